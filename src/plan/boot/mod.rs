//! The boot configuration as a whole: every argument in the one place or the places that the boot loader has for it, and
//! whether it will reach the kernel.

mod drop_in;
mod lines;

use super::{Asked, Item, Step};
use crate::facts::{Facts, Loader};
use crate::formats::HostPath;
use crate::formats::boot_line::Wanted;
use crate::formats::kernel_args::{COMMAND_LINE_SIZE, KernelArg, same_name};
use crate::host::{Program, Read};
use crate::journal;
use crate::knobs::{self, Disruption, Reach};
use crate::profile::{Diagnostic, Profile};
use crate::resources::{Observed, Resource, State, present};
use drop_in::DropIn;
use lines::Lines;
pub(super) use lines::without;

/// What is ours on the line of somebody else's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The file.
    pub path: HostPath,
    /// The arguments on its line that are ours.
    pub arguments: Vec<KernelArg>,
}

/// What becomes of the boot configuration.
pub(super) struct Boot {
    /// The arguments in it.
    arguments: Vec<KernelArg>,
    /// Arguments of ours in it that nothing asks for any more.
    obsolete: Vec<KernelArg>,
    place: Place,
}

/// Where the arguments are written.
enum Place {
    /// In a file of our own.
    DropIn(Box<DropIn>),
    /// On the lines of others.
    Lines(Lines),
}

impl Boot {
    /// `None` where this program does not write the boot configuration. What is ours in it and no setting asks for
    /// goes, so that a knob that is kept is as the machine has it without us.
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
        if manual || facts.boot.loader.by_hand().is_some() {
            return None;
        }
        let wanted: Vec<Wanted> = asked.iter().filter_map(wanted).collect();
        let arguments: Vec<KernelArg> = wanted.iter().flat_map(|group| group.arguments.clone()).collect();
        let (place, there) = match facts.boot.loader {
            Loader::GrubDebian => {
                let place = DropIn::plan(host, &arguments, state);
                let there = place.replaced.clone();
                (Place::DropIn(Box::new(place)), there)
            }
            _ => (Place::Lines(Lines::plan(facts, &wanted, state)), facts.boot.ours.clone()),
        };
        let asked_for =
            |argument: &KernelArg| arguments.iter().any(|other| same_name(other.name(), argument.name()));
        let obsolete = there.into_iter().filter(|argument| !asked_for(argument)).collect();
        Some(Boot { arguments, obsolete, place })
    }

    /// The arguments that are to be in it.
    pub(super) fn arguments(&self) -> &[KernelArg] {
        &self.arguments
    }

    /// Our drop-in; `None` where the boot loader reads none.
    pub(super) fn drop_in(&self) -> Option<&DropIn> {
        match &self.place {
            Place::DropIn(drop_in) => Some(drop_in),
            Place::Lines(_) => None,
        }
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
                is_argument: true,
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

    /// The files, and the program that reads them where the generated configuration has not got what is wanted, or for
    /// another reason.
    pub(super) fn steps(&self, items: &[Item], update: bool) -> Vec<Step> {
        let stale = |item: &Item| {
            item.is_argument
                && matches!(item.observed.state, State::Missing | State::Differs(None) | State::Obsolete)
        };
        let (mut steps, generator) = match &self.place {
            Place::DropIn(place) => (place.step().into_iter().collect(), Some(Program::UpdateGrub)),
            Place::Lines(place) => (place.steps(), place.generator()),
        };
        if update || !steps.is_empty() || items.iter().any(stale) {
            steps.extend(generator.map(|program| Step::Run { program }));
        }
        if let Place::DropIn(place) = &self.place {
            steps.extend(place.directories());
        }
        steps
    }

    /// The files that are no longer ours.
    pub(super) fn finished(&self) -> Vec<HostPath> {
        match &self.place {
            Place::DropIn(place) => place.finished().into_iter().collect(),
            Place::Lines(place) => place.finished().to_vec(),
        }
    }

    /// What is ours after the steps in files of others.
    pub(super) fn held(&self) -> Vec<Held> {
        match &self.place {
            Place::DropIn(_) => Vec::new(),
            Place::Lines(place) => place.held(),
        }
    }

    /// Why the arguments would not reach the kernel, as far as that can be told.
    pub(super) fn obstacles(&self, facts: &Facts) -> Vec<String> {
        match &self.place {
            Place::DropIn(place) => place.obstacle(facts, &self.arguments).into_iter().collect(),
            Place::Lines(place) => place.obstacles(facts),
        }
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

fn wanted(asked: &Asked) -> Option<Wanted> {
    match &asked.setting.resource {
        Resource::Arguments(arguments) => {
            Some(Wanted { arguments: arguments.arguments.clone(), unique: arguments.unique })
        }
        _ => None,
    }
}

/// What GRUB puts in front of the arguments it is configured with: `BOOT_IMAGE=` and the kernel's path.
const BOOT_IMAGE: usize = 128;
