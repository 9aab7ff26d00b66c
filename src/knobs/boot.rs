//! Kernel arguments in general, and those that the operator adds.

use super::{Context, Knob, Reach, Setting};
use crate::formats::kernel_args::KernelArg;
use crate::profile::{BootLoader, Diagnostic};
use crate::resources::{Arguments, Resource};

pub(super) const KNOBS: &[Knob] = &[EXTRA];

const EXTRA: Knob = Knob {
    id: "boot.arguments",
    summary: "Give the kernel the further arguments of the profile's `kernel-arguments`",
    why: "An argument that this program has no knob for is still written, checked and audited in one place, \
        and cannot disturb the others: each is checked for characters that a shell, GRUB or the kernel would \
        read as something else.",
    source: "Linux admin-guide/kernel-parameters.txt",
    since: "always",
    check: "/proc/cmdline",
    reach: Reach::Reboot,
    settings: |ctx| {
        let texts = ctx.profile.host.kernel_arguments.iter();
        texts
            .map(|text| match KernelArg::parse(text) {
                Ok(argument) => Ok(arguments(ctx, vec![argument], None)),
                Err(error) => Err(vec![Diagnostic::error(text.span.clone(), error)]),
            })
            .collect()
    },
};

/// The setting of one kernel argument. `ignored`: the kernel's word against it, see [`Arguments::ignored`].
pub(super) fn argument(
    ctx: &Context,
    name: &str,
    value: &str,
    ignored: Option<String>,
) -> Result<Vec<Setting>, Vec<Diagnostic>> {
    let argument = KernelArg::new(name, Some(value)).map_err(|error| vec![Diagnostic::whole(error)])?;
    Ok(vec![arguments(ctx, vec![argument], ignored)])
}

/// The setting of arguments that stay together.
pub(super) fn arguments(ctx: &Context, arguments: Vec<KernelArg>, ignored: Option<String>) -> Setting {
    let written = ctx.profile.host.boot_loader.value == BootLoader::Auto;
    let label = arguments.last().map(|argument| argument.name().to_owned()).unwrap_or_default();
    Setting::new(label, Resource::Arguments(Arguments { arguments, written, ignored }))
}
