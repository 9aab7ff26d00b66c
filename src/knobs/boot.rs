//! Kernel arguments in general, and those that the operator adds.

use super::{Context, Disruption, Knob, Reach, Setting, Values, refused, untold};
use crate::formats::kernel_args::{KernelArg, KernelArgs};
use crate::profile::{BootLoader, Diagnostic};
use crate::resources::{Arguments, Conflict, Ignored, Resource};

pub(super) const KNOBS: &[Knob] = &[EXTRA];

/// The knob of the profile's own arguments.
pub const EXTRA_ARGUMENTS: &str = EXTRA.id;

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
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| {
        let texts = ctx.profile.host.kernel_arguments.iter();
        texts
            .map(|text| match KernelArg::parse(text) {
                // Some may be given several times: console=, the options of a module.
                Ok(argument) => Ok(repeatable(arguments(ctx, vec![argument], None, None))),
                Err(error) => Err(vec![Diagnostic::error(text.span.clone(), error)]),
            })
            .collect()
    },
};

/// The setting of one kernel argument that takes one value. `ignored`: the kernel's word against it.
pub(super) fn argument(
    ctx: &Context,
    name: &str,
    value: &str,
    ignored: Option<Ignored>,
) -> Result<Vec<Setting>, Vec<Diagnostic>> {
    single(ctx, name, Some(value), ignored)
}

/// The setting of one kernel argument without a value.
pub(super) fn flag(ctx: &Context, name: &str) -> Result<Vec<Setting>, Vec<Diagnostic>> {
    single(ctx, name, None, None)
}

fn single(
    ctx: &Context,
    name: &str,
    value: Option<&str>,
    ignored: Option<Ignored>,
) -> Result<Vec<Setting>, Vec<Diagnostic>> {
    let ignored = ignored.or_else(|| refused(ctx, &[name])).or_else(|| untold(ctx, name));
    let argument = KernelArg::new(name, value).map_err(|error| vec![Diagnostic::whole(error)])?;
    let conflict = conflict(ctx, |line| {
        let other = line.values(name).into_iter().find(|other| *other != value)?;
        Some(other.map_or(name.to_owned(), |other| format!("{name}={other}")))
    });
    Ok(vec![arguments(ctx, vec![argument], ignored, conflict)])
}

fn repeatable(mut setting: Setting) -> Setting {
    if let Resource::Arguments(arguments) = &mut setting.resource {
        arguments.unique = false;
    }
    setting
}

/// The first argument of somebody else's that `against` finds on a line of the next boot.
pub(super) fn conflict(ctx: &Context, against: impl Fn(&KernelArgs) -> Option<String>) -> Option<Conflict> {
    let boot = &ctx.facts.boot;
    let found = boot.foreign().into_iter().find_map(|(line, path)| Some((against(&line)?, path)));
    found.map(|(argument, path)| {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (&*argument, None),
        };
        let file = boot.setter(name, value, path);
        let replaced = path.is_some_and(|path| path.as_str() == file);
        Conflict { argument, file, replaced }
    })
}

/// The setting of arguments that stay together.
pub(super) fn arguments(
    ctx: &Context,
    arguments: Vec<KernelArg>,
    ignored: Option<Ignored>,
    conflict: Option<Conflict>,
) -> Setting {
    let written = ctx.profile.host.boot_loader.value == BootLoader::Auto;
    let label = arguments.last().map(|argument| argument.name().to_owned()).unwrap_or_default();
    Setting::new(
        label,
        Resource::Arguments(Arguments { arguments, written, ignored, unique: true, conflict }),
    )
}
