//! The boot configuration as a whole: one drop-in with every argument, and whether it will reach the kernel.

use super::{Asked, Item, Step};
use crate::facts::{Facts, Loader};
use crate::formats::kernel_args::{COMMAND_LINE_SIZE, KernelArg, same_name};
use crate::formats::{HostPath, grub};
use crate::host::{Program, Read};
use crate::journal::{self, Change, Entry};
use crate::knobs::{self, Disruption, Reach};
use crate::profile::{Diagnostic, Profile};
use crate::resources::{Observed, OwnedFile, Resource, State, drop_in, present};

/// What becomes of our drop-in.
pub(super) struct Boot {
    /// The arguments in it.
    arguments: Vec<KernelArg>,
    /// Arguments in it that nothing asks for any more.
    obsolete: Vec<KernelArg>,
    /// Its text now; `None` if it does not exist.
    before: Option<String>,
    /// The arguments in it now.
    replaced: Vec<KernelArg>,
    /// Whether it has something else.
    foreign: bool,
    /// What was there before our first touch.
    first: Option<Entry>,
    file: OwnedFile,
}

impl Boot {
    /// `None` where this program does not write the boot configuration. What the drop-in has that no setting asks
    /// for goes: all of it is ours, so that a knob that is kept is as the machine has it without us.
    pub(super) fn plan(
        host: &dyn Read,
        facts: &Facts,
        asked: &[Asked],
        kept: &[Asked],
        state: &journal::State,
    ) -> Option<Boot> {
        let manual = asked.iter().chain(kept).any(
            |asked| matches!(&asked.setting.resource, Resource::Arguments(arguments) if !arguments.written),
        );
        if manual || facts.boot.loader != Loader::GrubDebian {
            return None;
        }
        let arguments: Vec<KernelArg> = asked
            .iter()
            .flat_map(|asked| match &asked.setting.resource {
                Resource::Arguments(arguments) => &arguments.arguments[..],
                _ => &[],
            })
            .cloned()
            .collect();
        let before = host.file(&drop_in(&[]).path).ok().map(|file| file.text().into_owned());
        let there = before.as_deref().and_then(grub::drop_in_args);
        let (foreign, replaced) = (before.is_some() && there.is_none(), there.unwrap_or_default());
        let wanted =
            |argument: &&KernelArg| arguments.iter().any(|other| same_name(other.name(), argument.name()));
        let obsolete = replaced.iter().filter(|argument| !wanted(argument)).cloned().collect();
        let file = drop_in(&arguments);
        let first = state.entry(&file.path).cloned();
        Some(Boot { obsolete, before, replaced, foreign, first, file, arguments })
    }

    /// The arguments that are to be in the drop-in.
    pub(super) fn arguments(&self) -> &[KernelArg] {
        &self.arguments
    }

    /// Those that are in it now, as they stand on the kernel's line.
    pub(super) fn replaced(&self) -> String {
        self.replaced.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    /// Whether it has something that this program does not write.
    pub(super) fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// An item for each argument that is to go.
    pub(super) fn obsolete(&self, facts: &Facts) -> Vec<Item> {
        let item = |argument: &KernelArg| {
            let on = |line| present(line, std::slice::from_ref(argument));
            Item {
                knob: knobs::EXTRA_ARGUMENTS,
                label: argument.name().to_owned(),
                detail: String::new(),
                path: None,
                reach: Reach::Reboot,
                disruption: Disruption::Reboot,
                observed: Observed {
                    running: facts.kernel.command_line.as_ref().and_then(on),
                    next_boot: facts.boot.next.first().and_then(on),
                    state: State::Obsolete,
                },
                wanted: String::new(),
            }
        };
        self.obsolete.iter().map(item).collect()
    }

    /// The drop-in, and update-grub where the generated configuration has not got what is wanted, or for another
    /// reason.
    pub(super) fn steps(&self, items: &[Item], update: bool) -> Vec<Step> {
        let stale = |item: &Item| {
            item.reach == Reach::Reboot
                && matches!(item.observed.state, State::Missing | State::Differs(None) | State::Obsolete)
        };
        let mut steps = Vec::new();
        let after = (!self.arguments.is_empty()).then(|| self.file.content.clone());
        if self.before != after {
            let (path, before) = (self.file.path.clone(), self.before.clone());
            steps.push(Step::File { path, before, after, mode: self.file.mode, metadata: None });
        }
        if update || !steps.is_empty() || items.iter().any(stale) {
            steps.push(Step::Run { program: Program::UpdateGrub });
        }
        let directories = self.done_with().into_iter().flat_map(|entry| entry.directories.iter().rev());
        steps.extend(directories.map(|path| Step::Directory { path: path.clone() }));
        steps
    }

    /// The drop-in, where it is no longer ours.
    pub(super) fn finished(&self) -> Option<HostPath> {
        self.done_with().map(|entry| entry.path.clone())
    }

    /// With no argument left the drop-in goes, and where there was none before us nothing is left to put back.
    fn done_with(&self) -> Option<&Entry> {
        let first = self.first.as_ref().filter(|_| self.arguments.is_empty());
        first.filter(|entry| matches!(entry.change, Change::File { before: None, .. }))
    }

    /// Why the drop-in would not reach the kernel's command line, as far as its neighbours tell.
    pub(super) fn obstacle(&self, facts: &Facts) -> Option<String> {
        let line = facts.boot.predicted(Some(&self.file.content))?;
        let lost: Vec<_> = self
            .arguments
            .iter()
            .filter(|argument| !line.values(argument.name()).contains(&argument.value()))
            .collect();
        let first = lost.first()?;
        Some(format!(
            "{first} would not reach the kernel from {}: /etc/default/grub has `--` in its arguments, or a later file \
             in /etc/default/grub.d assigns GRUB_CMDLINE_LINUX_DEFAULT. Take that out first",
            self.file.path
        ))
    }

    /// A command line that the kernel would cut off.
    pub(super) fn too_long(&self, profile: &Profile, facts: &Facts) -> Option<Diagnostic> {
        let lines = match &facts.boot.next[..] {
            [] => vec![facts.kernel.command_line.clone().unwrap_or_default()],
            next => next.to_vec(),
        };
        let lengths = lines.into_iter().map(|mut line| {
            line.set(&self.arguments);
            line.to_string().trim_end().len() + BOOT_IMAGE
        });
        let longest =
            lengths.max().filter(|length| *length >= COMMAND_LINE_SIZE && !self.arguments.is_empty())?;
        let message = format!("the kernel command line would have {longest} bytes, its path included");
        let help = format!(
            "the kernel takes {} bytes and cuts the rest off: give it fewer arguments",
            COMMAND_LINE_SIZE - 1
        );
        let spans = profile.host.kernel_arguments.first().zip(profile.host.kernel_arguments.last());
        let found = match spans {
            Some((first, last)) => Diagnostic::error(first.span.start..last.span.end, message),
            None => Diagnostic::whole(message),
        };
        Some(found.help(help))
    }
}

/// What GRUB puts in front of the arguments it is configured with: `BOOT_IMAGE=` and the kernel's path.
const BOOT_IMAGE: usize = 128;
