//! Layer 7: what should be, against what is. A plan is data: dry-run prints it, verify judges by it, apply
//! carries its steps out. Pure.

pub mod diff;
pub mod table;
pub mod text;

use crate::facts::{Facts, Loader};
use crate::formats::HostPath;
use crate::formats::kernel_args::{COMMAND_LINE_SIZE, KernelArg};
use crate::guest::Templates;
use crate::host::{Program, Read};
use crate::knobs::{self, Context, Reach, Setting};
use crate::placement::{self, Placement};
use crate::profile::{BootLoader, Diagnostic, Parsed, Profile};
use crate::resources::{Observed, Resource, State, Value, definition, drop_in};
use serde::Serialize;

/// Everything about one profile on one machine.
#[derive(Serialize)]
pub struct Plan {
    /// The machine as it was found.
    #[serde(skip)]
    pub facts: Facts,
    /// Its division.
    pub placement: Placement,
    /// The rendered guests, in the order of the profile.
    #[serde(skip)]
    pub guests: Vec<Rendered>,
    /// Whether the profile leaves the kernel arguments to the operator.
    #[serde(skip)]
    pub manual_boot_loader: bool,
    /// Every setting, and how the machine stands to it, in the order of the knobs.
    pub items: Vec<Item>,
    /// What apply does, in order; nothing if all is in line.
    pub steps: Vec<Step>,
    /// What the operator should know beside the settings.
    pub notes: Vec<String>,
}

/// A guest's name and domain XML.
pub struct Rendered {
    /// The name.
    pub name: String,
    /// The document.
    pub xml: String,
}

/// One setting and how the machine stands to it.
#[derive(Serialize)]
pub struct Item {
    /// The knob that asks for it.
    pub knob: &'static str,
    /// What is set.
    pub label: String,
    /// More about it, where that helps.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// When a change takes effect.
    pub reach: Reach,
    /// What was found.
    #[serde(flatten)]
    pub observed: Observed,
    /// What it should be.
    pub wanted: String,
}

/// One thing that apply does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Step {
    /// Write a kernel attribute and read it back.
    Attribute {
        /// The file.
        path: HostPath,
        /// Its text before.
        before: String,
        /// The value.
        #[serde(serialize_with = "for_kernel")]
        after: Value,
    },
    /// Replace, make or remove a whole file.
    File {
        /// The file.
        path: HostPath,
        /// Its text before; `None` if it does not exist.
        before: Option<String>,
        /// Its text after; `None` to remove it.
        after: Option<String>,
        /// Permission bits of a new file.
        mode: u32,
    },
    /// Make a symbolic link.
    Link {
        /// Where.
        path: HostPath,
        /// Its target before.
        before: Option<String>,
        /// Its target after.
        after: String,
    },
    /// Run a program; on a tree this is left to the operator.
    Run {
        /// Which.
        #[serde(serialize_with = "command")]
        program: Program,
    },
    /// Define a guest.
    Domain {
        /// Its name.
        name: String,
        /// Where libvirt keeps it.
        path: HostPath,
        /// The definition before.
        before: Option<String>,
        /// The rendered document.
        after: String,
    },
}

fn for_kernel<S: serde::Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.for_kernel())
}

fn command<S: serde::Serializer>(program: &Program, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(program.command())
}

/// How much of the profile is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    Everything,
    /// What a reboot forgets: kernel attributes only.
    Runtime,
}

/// Counts over the items of a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Not there yet.
    pub add: usize,
    /// There with another value.
    pub change: usize,
    /// Files of ours that are no longer wanted.
    pub remove: usize,
    /// As they should be.
    pub in_line: usize,
    /// Set, and waiting for a boot.
    pub reboot_pending: usize,
    /// To be done by hand.
    pub by_hand: usize,
    /// Cannot be set here.
    pub not_applicable: usize,
}

/// Plans a profile for a machine. Warnings about the profile come beside the plan.
///
/// # Errors
/// Everything that stands in the way, as diagnostics on the profile; then there is no plan at all.
pub fn make(
    host: &dyn Read,
    facts: Facts,
    parsed: &Parsed,
    scope: Scope,
) -> Result<(Plan, Vec<Diagnostic>), Vec<Diagnostic>> {
    let profile = &parsed.profile;
    let kept = knobs::kept(profile);
    let placed = placement::place(profile, &facts);
    let templates =
        Templates::new(&facts.templates).map_err(|error| vec![Diagnostic::whole(error.to_string())]);
    let (kept, (placement, warnings), templates) = match (kept, placed, templates) {
        (Ok(kept), Ok(placed), Ok(templates)) => (kept, placed, templates),
        (kept, placed, templates) => {
            let errors = [kept.err(), placed.err(), templates.err()];
            return Err(errors.into_iter().flatten().flatten().collect());
        }
    };
    let ctx = Context {
        profile,
        source: &parsed.source,
        facts: &facts,
        placement: &placement,
        templates: &templates,
    };
    let mut found = Vec::new();
    let mut settings: Vec<(&'static knobs::Knob, Setting)> = Vec::new();
    for knob in knobs::all() {
        match (knob.settings)(&ctx) {
            Ok(asked) => settings.extend(asked.into_iter().map(|setting| (knob, setting))),
            Err(errors) => found.extend(errors),
        }
    }
    let guests = settings.iter().filter_map(|(_, setting)| match &setting.resource {
        Resource::Domain { name, xml } => Some(Rendered { name: name.clone(), xml: xml.clone() }),
        _ => None,
    });
    let guests: Vec<_> = guests.collect();
    let in_scope =
        |setting: &Setting| scope == Scope::Everything || matches!(setting.resource, Resource::Attribute(_));
    settings.retain(|(knob, setting)| !kept.contains(&knob.id) && in_scope(setting));
    found.extend(too_long(profile, &facts, &settings));
    if !found.is_empty() {
        return Err(found);
    }
    let mut items: Vec<Item> =
        settings.iter().map(|(knob, setting)| item(host, &facts, knob, setting)).collect();
    let steps = steps(host, &facts, &settings, &items, scope);
    look_ahead(&settings, &mut items);
    let notes = notes(&facts, profile);
    let warnings = [parsed.warnings.clone(), warnings].concat();
    let manual_boot_loader = profile.host.boot_loader.value == BootLoader::Manual;
    Ok((Plan { facts, placement, guests, manual_boot_loader, items, steps, notes }, warnings))
}

fn item(host: &dyn Read, facts: &Facts, knob: &'static knobs::Knob, setting: &Setting) -> Item {
    Item {
        knob: knob.id,
        label: setting.label.clone(),
        detail: setting.detail.clone(),
        reach: knob.reach,
        observed: setting.resource.observe(host, facts),
        wanted: setting.resource.wanted(),
    }
}

/// What attributes will be after the next boot: the boot unit sets them, and the kernel itself some of them.
fn look_ahead(settings: &[(&knobs::Knob, Setting)], items: &mut [Item]) {
    let files = settings
        .iter()
        .zip(&*items)
        .filter(|((_, s), _)| matches!(s.resource, Resource::File(_) | Resource::Link { .. }));
    let states: Vec<_> = files.map(|(_, item)| &item.observed.state).collect();
    let unit = !states.is_empty() && states.iter().all(|state| **state == State::InLine);
    let pending: Vec<&str> = items
        .iter()
        .filter(|item| item.observed.state == State::RebootPending)
        .map(|item| item.knob)
        .collect();
    for ((_, setting), item) in settings.iter().zip(items) {
        let at_boot = setting.at_boot.is_some_and(|knob| pending.contains(&knob));
        let Resource::Attribute(attribute) = &setting.resource else { continue };
        if attribute.fixed.is_none() && (unit || at_boot) {
            item.observed.next_boot = Some(item.wanted.clone());
        }
        // The kernel did not grant it while running; the next boot will.
        if at_boot && matches!(item.observed.state, State::Differs(None)) {
            item.observed.state = State::RebootPending;
        }
    }
}

/// What apply does, in order: attributes, files, the boot configuration, guests.
fn steps(
    host: &dyn Read,
    facts: &Facts,
    settings: &[(&knobs::Knob, Setting)],
    items: &[Item],
    scope: Scope,
) -> Vec<Step> {
    let mut attributes = Vec::new();
    let mut files = Vec::new();
    let mut domains = Vec::new();
    let text = |path: &HostPath| host.file(path).ok().map(|file| file.text().into_owned());
    let open = settings.iter().zip(items);
    for ((_, setting), _) in
        open.filter(|(_, item)| matches!(item.observed.state, State::Missing | State::Differs(_)))
    {
        match &setting.resource {
            Resource::Attribute(attribute) => {
                let path = attribute.path.clone();
                let before = text(&path).unwrap_or_default();
                attributes.push(Step::Attribute { path, before, after: attribute.want.clone() });
            }
            Resource::File(file) => {
                let (path, after) = (file.path.clone(), Some(file.content.clone()));
                files.push(Step::File { before: text(&path), path, after, mode: file.mode });
            }
            Resource::Link { path, target } => {
                let before = host.link(path).ok().map(|link| link.to_string());
                files.push(Step::Link { path: path.clone(), before, after: target.clone() });
            }
            Resource::Domain { name, xml } => {
                let path = definition(name);
                domains.push(Step::Domain {
                    name: name.clone(),
                    before: text(&path),
                    path,
                    after: xml.clone(),
                });
            }
            // All of them together, below.
            Resource::Arguments(_) => {}
        }
    }
    if !files.is_empty() {
        files.push(Step::Run { program: Program::DaemonReload });
    }
    let boot = if scope == Scope::Everything { boot_steps(host, facts, settings, items) } else { Vec::new() };
    [attributes, files, boot, domains].concat()
}

/// The drop-in with every argument, and update-grub where the generated configuration has not got them.
fn boot_steps(
    host: &dyn Read,
    facts: &Facts,
    settings: &[(&knobs::Knob, Setting)],
    items: &[Item],
) -> Vec<Step> {
    if facts.boot.loader != Loader::GrubDebian {
        return Vec::new();
    }
    let arguments = written_arguments(settings);
    let file = drop_in(&arguments);
    let before = host.file(&file.path).ok().map(|file| file.text().into_owned());
    let after = (!arguments.is_empty()).then_some(file.content);
    let mut steps = Vec::new();
    let boot_is = |state: fn(&State) -> bool| {
        let arguments =
            settings.iter().zip(items).filter(|((_, s), _)| matches!(s.resource, Resource::Arguments(_)));
        arguments.into_iter().any(|(_, item)| state(&item.observed.state))
    };
    let stale = boot_is(|state| matches!(state, State::Missing | State::Differs(None)));
    if before != after {
        steps.push(Step::File { path: file.path, before, after, mode: file.mode });
    }
    if stale || !steps.is_empty() {
        steps.push(Step::Run { program: Program::UpdateGrub });
    }
    steps
}

fn written_arguments(settings: &[(&knobs::Knob, Setting)]) -> Vec<KernelArg> {
    let written = settings.iter().filter_map(|(_, setting)| match &setting.resource {
        Resource::Arguments(arguments) if arguments.written => Some(arguments.arguments.clone()),
        _ => None,
    });
    written.flatten().collect()
}

/// What GRUB puts in front of the arguments it is configured with: `BOOT_IMAGE=` and the kernel's path.
const BOOT_IMAGE: usize = 128;

/// A command line that the kernel would cut off.
fn too_long(profile: &Profile, facts: &Facts, settings: &[(&knobs::Knob, Setting)]) -> Option<Diagnostic> {
    let arguments = written_arguments(settings);
    let lines = match &facts.boot.next[..] {
        [] => vec![facts.kernel.command_line.clone().unwrap_or_default()],
        next => next.to_vec(),
    };
    let with = |mut line: crate::formats::kernel_args::KernelArgs| {
        line.set(&arguments);
        line.to_string().trim_end().len() + BOOT_IMAGE
    };
    let longest = lines.into_iter().map(with).max().unwrap_or(0);
    if longest < COMMAND_LINE_SIZE {
        return None;
    }
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

fn notes(facts: &Facts, profile: &Profile) -> Vec<String> {
    let mut notes = Vec::new();
    match facts.kernel.preempt_rt {
        Some(true) => {}
        Some(false) => notes.push(
            "the running kernel is not PREEMPT_RT: CPUs are isolated, but latency has no bound; boot a real-time \
             kernel"
                .into(),
        ),
        None => notes.push("whether the kernel is PREEMPT_RT is not known here".into()),
    }
    if facts.boot.loader == Loader::Unknown && profile.host.boot_loader.value == BootLoader::Auto {
        notes.push(format!("the boot loader is not known here: {}", unknown_loader()));
    }
    if !facts.installed {
        notes.push(format!(
            "{} is not there, which the boot unit starts: install the package",
            crate::facts::PROGRAM
        ));
    }
    notes
}

/// What was looked for, and what to do.
pub fn unknown_loader() -> String {
    "only GRUB as Debian and Ubuntu set it up is (/etc/debian_version and /etc/default/grub). Put \
     `boot-loader = \"manual\"` under [host] to apply everything else, and add the kernel arguments by hand"
        .into()
}

impl Plan {
    /// Counts over the items.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for item in &self.items {
            let slot = match &item.observed.state {
                State::InLine => &mut counts.in_line,
                State::Missing => &mut counts.add,
                State::Differs(_) => &mut counts.change,
                State::RebootPending => &mut counts.reboot_pending,
                State::NotApplicable(_) => &mut counts.not_applicable,
                State::ByHand(_) => &mut counts.by_hand,
            };
            *slot += 1;
        }
        let removed = |step: &&Step| matches!(step, Step::File { after: None, .. });
        counts.remove = self.steps.iter().filter(removed).count();
        counts
    }

    /// Whether something that is wanted takes effect at the next boot only.
    pub fn needs_reboot(&self) -> bool {
        let waits = |item: &Item| match item.observed.state {
            State::RebootPending => true,
            State::Missing | State::Differs(_) | State::ByHand(_) => item.reach == Reach::Reboot,
            State::InLine | State::NotApplicable(_) => false,
        };
        self.items.iter().any(waits)
    }

    /// The exit status of an audit: 0 in line, 1 differs, 3 nothing missing but a reboot.
    pub fn status(&self) -> u8 {
        let counts = self.counts();
        match counts {
            _ if counts.add + counts.change + counts.remove + counts.by_hand > 0 => 1,
            _ if counts.reboot_pending > 0 => 3,
            _ => 0,
        }
    }
}
