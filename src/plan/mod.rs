//! Layer 8: what should be, against what is. A plan is data: dry-run prints it, verify judges by it, apply
//! carries its steps out. Pure.

mod boot;
mod channels;
mod counts;
pub mod diff;
mod effects;
pub mod findings;
mod guests;
mod in_use;
mod notes;
mod owners;
pub mod restore;
mod step;
pub mod table;
pub mod text;
mod trial;

use crate::facts::boot::{DROP_IN, RT_CONF};
use crate::facts::trial::{RECORD, SCRIPT, TRIAL_UNIT};
use crate::facts::{self, Facts, Further};
use crate::formats::HostPath;
use crate::formats::trial::Trial;
use crate::guest::Templates;
use crate::host::{Program, Read};
use crate::journal::{self, Entry};
use crate::knobs::{self, Choice, Context, Disruption, Knob, Reach, Setting};
use crate::placement::{self, Placement};
use crate::profile::{BootLoader, Diagnostic, Parsed, Profile};
use crate::resources::{Observed, Resource, State, follow_ups};
use boot::Boot;
pub use boot::Held;
pub use counts::Counts;
pub use in_use::Running;
pub use notes::unwritten_loader;
use restore::{How, Past, Restored};
use serde::Serialize;
use std::collections::HashSet;
pub use step::Step;
use trial::Course;

pub use trial::default_kernel;

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
    /// The trial that these steps begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// Every setting, and how the machine stands to it, in the order of the knobs.
    pub items: Vec<Item>,
    /// What apply does, in order; nothing if all is in line.
    pub steps: Vec<Step>,
    /// What the operator should know beside the settings.
    pub notes: Vec<String>,
    /// What apply refuses to work against, with the remedy.
    pub obstacles: Vec<String>,
    /// What is no longer ours after the steps: as it was before our first touch.
    #[serde(skip)]
    pub finished: Vec<HostPath>,
    /// What is ours after the steps in files of others.
    #[serde(skip)]
    pub held: Vec<Held>,
}

/// A guest's name and domain XML.
pub struct Rendered {
    /// The name.
    pub name: String,
    /// The document.
    pub xml: String,
}

/// One setting and how the machine stands to it.
#[derive(Debug, Serialize)]
pub struct Item {
    /// The knob that asks for it.
    pub knob: &'static str,
    /// What is set.
    pub label: String,
    /// More about it, where that helps.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Where it is; `None` for kernel arguments, which share a file.
    #[serde(skip)]
    pub path: Option<HostPath>,
    /// When a change takes effect.
    pub reach: Reach,
    /// What a change would do to what runs meanwhile.
    pub disruption: Disruption,
    /// Whether it is a kernel argument, which the boot loader's configuration has; others wait for a boot as well.
    #[serde(skip)]
    pub is_argument: bool,
    /// What was found.
    #[serde(flatten)]
    pub observed: Observed,
    /// What it should be.
    pub wanted: String,
}

/// How much of the profile is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    Everything,
    /// All of it, the kernel arguments for one boot only. The time, in seconds since the epoch.
    Trial(u64),
    /// What a reboot forgets: kernel attributes only.
    Runtime,
}

/// What an apply was asked for, and what it may do on a machine in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How much of the profile.
    pub scope: Scope,
    /// Whether to do at once what would disturb guests that run.
    pub live: bool,
    /// Whether to take over what another program of the machine sets.
    pub take_over: bool,
}

/// Guests are left in peace, and others keep what they set.
impl From<Scope> for Options {
    fn from(scope: Scope) -> Options {
        Options { scope, live: false, take_over: false }
    }
}

/// Plans a profile for a machine. Warnings about the profile come beside the plan.
///
/// # Errors
/// Everything that stands in the way, as diagnostics on the profile; then there is no plan at all.
pub fn make(
    host: &dyn Read,
    facts: Facts,
    parsed: &Parsed,
    options: impl Into<Options>,
    past: &Past,
) -> Result<(Plan, Vec<Diagnostic>), Vec<Diagnostic>> {
    let Options { scope, live, take_over } = options.into();
    let profile = &parsed.profile;
    let mut facts = facts;
    facts.boot.ours = past.state.arguments();
    let (facts, taken) = match take_over && profile.host.boot_loader.value == BootLoader::Auto {
        true => owners::without_rt_conf(host, facts),
        false => (facts, Vec::new()),
    };
    let choices = knobs::chosen(profile);
    let placed = placement::place(profile, &facts);
    // At boot a template that is broken must not keep the machine from its pages and interrupts.
    let own = if scope != Scope::Runtime { &facts.templates[..] } else { &[] };
    let renders = scope != Scope::Runtime && !(profile.guests.is_empty() && own.is_empty());
    let templates = if renders { Templates::new(own) } else { Ok(Templates::none()) };
    let templates = templates.map_err(|error| vec![Diagnostic::whole(error.to_string())]);
    let (choices, (placement, warnings), templates) = match (choices, placed, templates) {
        (Ok(choices), Ok(placed), Ok(templates)) => (choices, placed, templates),
        (choices, placed, templates) => {
            let errors = [choices.err(), placed.err(), templates.err()];
            return Err(errors.into_iter().flatten().flatten().collect());
        }
    };
    let user_data = if scope == Scope::Runtime { Vec::new() } else { guests::user_data(host, profile)? };
    let copies = if scope == Scope::Runtime { Default::default() } else { guests::copies(host, profile)? };
    let asks = |knob: &str| choices.iter().any(|choice| choice.knob.id == knob && !choice.kept);
    let (channels, free_threads) = (asks(knobs::CHANNELS_KNOB), asks(knobs::FREE_THREADS_KNOB));
    let further = Further::read(host, facts::Asked { channels, free_threads });
    let context = |choice: &Choice| Context {
        profile,
        source: &parsed.source,
        facts: &facts,
        placement: &placement,
        templates: &templates,
        value: choice.value,
        user_data: &user_data,
        copies: &copies,
        further: &further,
    };
    let mut asked = ask(context, &choices, scope)?;
    guests::keep_uuids(host, &mut asked, take_over);
    let rendered = asked.iter().filter_map(|asked| match &asked.setting.resource {
        Resource::Domain { name, xml: Some(xml), .. } => {
            Some(Rendered { name: name.clone(), xml: xml.clone() })
        }
        _ => None,
    });
    let rendered: Vec<_> = rendered.collect();
    let warned = guests::lint(&facts, &placement, profile, &rendered)?;
    let left_alone: Vec<_> = asked.extract_if(.., |asked| asked.kept).collect();
    let boot = match scope {
        Scope::Everything | Scope::Trial(_) => Boot::plan(host, &facts, &asked, &left_alone, &past.state),
        Scope::Runtime => None,
    };
    if let Some(error) = boot.as_ref().and_then(|boot| boot.too_long(profile, &facts)) {
        return Err(vec![error]);
    }
    let mut items: Vec<Item> = asked.iter().map(|asked| asked.observed(host, &facts)).collect();
    items.extend(boot.iter().flat_map(|boot| boot.obsolete(&facts)));
    passed_by(&mut items, &facts, &past.state);
    let running = if live { None } else { in_use::Running::of(&facts) };
    in_use::spare_guests(running.as_ref(), &asked, &mut items);
    let restored = match scope {
        Scope::Everything | Scope::Trial(_) => {
            no_longer_asked(host, &facts, profile, &asked, past, running.as_ref())
        }
        Scope::Runtime => Restored::default(),
    };
    // Before the look ahead, which takes what a boot will mend off the list of what differs now.
    let mut course = match scope {
        Scope::Trial(asked) => trial::begin(host, &facts, boot.as_ref(), &items, asked),
        Scope::Everything => trial::end(host, &facts),
        Scope::Runtime => Course::default(),
    };
    match &boot {
        Some(boot) if scope == Scope::Everything => {
            course.boot.extend(boot.steps(&items, facts.trial.script || !taken.is_empty()))
        }
        None if scope == Scope::Everything && facts.trial.script => {
            course.boot.push(Step::Run { program: Program::UpdateGrub });
        }
        _ => {}
    }
    course.boot.splice(0..0, taken);
    let steps = steps(host, &asked, &items, course.files, course.boot, &restored);
    let steps = owners::tuned_first(&facts, steps);
    look_ahead(&asked, &mut items);
    effects::pending(&facts, &placement, &mut items);
    items.extend(restored.items);
    let mut notes = notes::of_the_machine(&facts, profile);
    notes.extend(notes::other_guests(&placement, &facts));
    notes.extend(choices.iter().filter_map(notes::unprotected));
    notes.extend(past.notes.iter().chain(&restored.notes).chain(&restored.told).cloned());
    let held = boot.as_ref().map(Boot::held).unwrap_or_default();
    let finished = restored.finished.into_iter().chain(boot.iter().flat_map(Boot::finished)).collect();
    let open =
        |item: &Item| matches!(item.observed.state, State::Missing | State::Differs(_) | State::ByHand(_));
    let changing = asked.iter().zip(&items).filter(|(_, item)| open(item));
    for note in changing.filter_map(|(asked, _)| asked.setting.note.map(str::to_owned)) {
        // Two knobs may have the same to say.
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    if scope == Scope::Everything {
        notes.extend(effects::balanced(host, &facts));
    }
    notes.extend(notes::kept_pages(&left_alone, &placement, &facts));
    notes.extend(warned);
    notes.extend(guests::redefined(&facts, steps.iter()));
    notes.extend(guests::waiting(host, &facts, &asked, &items));
    notes.extend(guests::left(host, profile, &past.state));
    notes.extend(in_use::services(&facts, &placement, &asked));
    notes.extend(trial::told(&facts));
    notes.extend(course.notes);
    let obstacles = boot
        .iter()
        .flat_map(|boot| boot.obstacles(&facts))
        .chain(owners::conflicts(&facts, &asked, &items, take_over))
        .chain(guests::conflicts(host, &asked, take_over));
    let obstacles = obstacles.chain(course.obstacles).collect();
    let warnings = [parsed.warnings.clone(), warnings].concat();
    let manual_boot_loader = profile.host.boot_loader.value == BootLoader::Manual;
    let trial = course.trial;
    let plan = Plan {
        facts,
        placement,
        guests: rendered,
        manual_boot_loader,
        trial,
        items,
        steps,
        notes,
        obstacles,
        finished,
        held,
    };
    Ok((plan, warnings))
}

/// What we set once and no setting asks for: it goes back to how it was. The drop-in, the lines of others and the
/// files of a trial are planned as a whole.
fn no_longer_asked(
    host: &dyn Read,
    facts: &Facts,
    profile: &Profile,
    asked: &[Asked],
    past: &Past,
    running: Option<&in_use::Running>,
) -> Restored {
    let wanted: HashSet<&HostPath> = asked.iter().filter_map(|asked| asked.setting.resource.path()).collect();
    // What was taken over from rt-conf comes back by a revert alone.
    let apart = [DROP_IN, SCRIPT, RECORD, TRIAL_UNIT, RT_CONF];
    let of_boot = |entry: &Entry| apart.contains(&entry.path.as_str()) || !entry.arguments.is_empty();
    let ours = |entry: &&Entry| {
        !of_boot(entry) && !wanted.contains(&entry.path) && !guests::stays(host, profile, entry)
    };
    let boot_id = facts.kernel.boot_id.as_deref();
    let how = How {
        force: false,
        live: past.live,
        disks: false,
        boot_id,
        spared: running.map(|guests| (guests, "apply --live")),
    };
    Restored::plan(host, past.state.baseline.iter().filter(ours), how)
}

/// What a boot since did not bring: another boot does not bring it either.
fn passed_by(items: &mut [Item], facts: &Facts, state: &journal::State) {
    let Some(now) = &facts.kernel.boot_id else { return };
    let before = |stamp: &&journal::Stamp| stamp.boot_id.as_ref().is_some_and(|then| then != now);
    let is_open = |item: &&Item| matches!(item.observed.state, State::Missing | State::Differs(_));
    let open: Vec<&'static str> = items.iter().filter(is_open).map(|item| item.knob).collect();
    let arguments = state.kernel_arguments.as_ref().filter(before);
    let files = state.files.as_ref().filter(before);
    for item in items.iter_mut().filter(|item| item.observed.state == State::RebootPending) {
        let why = match (item.is_argument, arguments, files) {
            (true, Some(written), _) => {
                let time = &written.time;
                format!("a boot since {time} did not bring it: another entry or another boot loader was used")
            }
            (false, _, Some(written)) if !open.contains(&item.knob) => format!(
                "a boot since {} did not bring it: another file wins, or the initramfs has an older copy: make that anew by \
                 `update-initramfs -u` or `dracut -f`",
                written.time
            ),
            _ => continue,
        };
        item.observed.state = State::Differs(Some(why));
    }
}

/// One setting and the knob that asks for it.
struct Asked {
    knob: &'static Knob,
    /// Whether the profile leaves it as the machine has it.
    kept: bool,
    setting: Setting,
}

impl Asked {
    fn observed(&self, host: &dyn Read, facts: &Facts) -> Item {
        let observed = self.setting.resource.observe(host, facts);
        let new_guest =
            matches!(self.setting.resource, Resource::Domain { .. }) && observed.state == State::Missing;
        Item {
            knob: self.knob.id,
            label: self.setting.label.clone(),
            detail: self.setting.detail.clone(),
            path: self.setting.resource.path().cloned(),
            reach: self.knob.reach,
            is_argument: matches!(self.setting.resource, Resource::Arguments(_)),
            disruption: if new_guest { Disruption::None } else { self.knob.disruption },
            observed,
            wanted: self.setting.resource.wanted(),
        }
    }
}

/// What every knob asks for, within the scope.
fn ask<'c>(
    context: impl Fn(&Choice) -> Context<'c>,
    choices: &[Choice],
    scope: Scope,
) -> Result<Vec<Asked>, Vec<Diagnostic>> {
    let mut asked = Vec::new();
    let mut found = Vec::new();
    for choice in choices.iter().filter(|choice| scope != Scope::Runtime || choice.knob.reach == Reach::Live)
    {
        let Choice { knob, kept, .. } = *choice;
        match (knob.settings)(&context(choice)) {
            Ok(settings) => asked.extend(settings.into_iter().map(|setting| Asked { knob, kept, setting })),
            Err(errors) => found.extend(errors),
        }
    }
    asked.retain(|asked| scope != Scope::Runtime || matches!(asked.setting.resource, Resource::Attribute(_)));
    if found.is_empty() { Ok(asked) } else { Err(found) }
}

/// What attributes will be after the next boot: the boot unit sets them, and the kernel itself some of them.
fn look_ahead(asked: &[Asked], items: &mut [Item]) {
    let owned = |asked: &Asked| asked.knob.id == knobs::BOOT_UNIT_KNOB;
    let mut files = asked.iter().zip(&*items).filter(|(asked, _)| owned(asked)).peekable();
    let unit = files.peek().is_some() && files.all(|(_, item)| item.observed.state == State::InLine);
    let waiting = items.iter().filter(|item| item.observed.state == State::RebootPending);
    let waiting: Vec<&str> = waiting.map(|item| item.knob).collect();
    for (asked, item) in asked.iter().zip(items) {
        let at_boot = asked.setting.at_boot.is_some_and(|knob| waiting.contains(&knob));
        let Resource::Attribute(_) = &asked.setting.resource else { continue };
        let there = !matches!(item.observed.state, State::NotApplicable(_));
        if there && (unit || at_boot) {
            item.observed.next_boot = Some(item.wanted.clone());
        }
        // The kernel did not grant it while running; the next boot will.
        if at_boot && matches!(item.observed.state, State::Differs(None) | State::Waiting(_)) {
            item.observed.state = State::RebootPending;
        }
    }
}

/// What apply does, in order: attributes, files, disks, guests, the boot configuration. Directories that nothing needs any
/// more go last.
fn steps(
    host: &dyn Read,
    asked: &[Asked],
    items: &[Item],
    of_trial: Vec<Step>,
    boot: Vec<Step>,
    restored: &Restored,
) -> Vec<Step> {
    let mut attributes = Vec::new();
    let mut files = Vec::new();
    let (mut disks, mut domains, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    let mut kept = Vec::new();
    let text = |path: &HostPath| host.file(path).ok().map(|file| file.text().into_owned());
    let open = |item: &Item| matches!(item.observed.state, State::Missing | State::Differs(_));
    let changing = asked.iter().zip(items).filter(|(_, item)| open(item)).map(|(asked, _)| asked);
    for asked in changing.filter(|asked| guests::may_change(host, asked)) {
        match &asked.setting.resource {
            // Cannot be written while the kernel runs.
            Resource::Attribute(attribute) if attribute.until_boot => {}
            Resource::Attribute(attribute) => {
                let path = attribute.path.clone();
                let before = attribute.read(host).unwrap_or_default();
                let after = attribute.want.clone();
                attributes.push(Step::Attribute { path, before, after, exact: None });
            }
            Resource::File(file) => {
                let (path, after) = (file.path.clone(), Some(file.content.clone()));
                files.push(Step::File { before: text(&path), path, after, mode: file.mode, metadata: None });
            }
            Resource::Link { path, target } => {
                let before = host.link(path).ok().map(|link| link.to_string());
                files.push(Step::Link { path: path.clone(), before, after: Some(target.clone()) });
            }
            Resource::Domain { name, path, xml } => {
                let (name, path, after) = (name.clone(), path.clone(), xml.clone());
                domains.push(Step::Domain { name, before: text(&path), path, after, metadata: None });
            }
            Resource::Disk { guest, path, copy: Some(copy) } => {
                let (guest, path, copy) = (guest.clone(), path.clone(), Some(copy.clone()));
                disks.push(Step::Disk { guest, path, copy });
            }
            Resource::Autostart { path, definition, on } => {
                let before = host.link(path).ok().map(|link| link.to_string());
                let after = on.then(|| definition.to_string());
                starts.push(Step::Link { path: path.clone(), before, after });
            }
            Resource::Check { kept_by: Some(unit), .. } => kept.push(HostPath::new(*unit)),
            // All arguments together, in the drop-in; and what cannot be set.
            Resource::Disk { copy: None, .. } => {}
            Resource::Arguments(_) | Resource::Check { .. } | Resource::Unfit { .. } => {}
        }
    }
    attributes.extend_from_slice(&restored.attributes);
    files.extend(of_trial);
    files.extend_from_slice(&restored.files);
    domains.extend_from_slice(&restored.domains);
    starts.extend_from_slice(&restored.after_domains);
    let mut programs = after_change(&files);
    let mut anew = follow_ups(kept.iter().map(|unit| (unit, true)));
    // Their files may be as they were.
    anew.retain(|program| *program != Program::DaemonReload && !programs.contains(program));
    programs.append(&mut anew);
    channels::first(&mut attributes);
    programs.extend(guests::missing_images(host, asked, &programs));
    files.extend(programs.into_iter().map(|program| Step::Run { program }));
    [attributes, files, disks, domains, starts, boot, restored.directories().collect()]
        .into_iter()
        .flatten()
        .collect()
}

/// The programs that make the changes of these files take effect.
fn after_change(files: &[Step]) -> Vec<Program> {
    follow_ups(changed(files))
}

/// Which files and links are changed, and whether they are there afterwards.
fn changed(files: &[Step]) -> impl Iterator<Item = (&HostPath, bool)> {
    files.iter().filter_map(|step| match step {
        Step::File { path, after, .. } | Step::Link { path, after, .. } => Some((path, after.is_some())),
        _ => None,
    })
}

impl Item {
    /// Whether it is only looked at.
    pub fn is_check(&self) -> bool {
        self.reach == Reach::Check
    }

    /// Whether what is wanted takes effect at the next boot only.
    pub fn needs_reboot(&self) -> bool {
        match &self.observed.state {
            State::RebootPending => true,
            // What runs already needs none, though the boot configuration lost it.
            State::Missing | State::Differs(None) | State::ByHand(_) => {
                self.reach == Reach::Reboot && self.observed.running.as_ref() != Some(&self.wanted)
            }
            State::Obsolete => self.reach == Reach::Reboot && self.observed.running.is_some(),
            // A boot would not mend what has a reason of its own.
            State::Differs(Some(_))
            | State::Pending(_)
            | State::Rejected(_)
            | State::Foreign(_)
            | State::Unverifiable(_)
            | State::Waiting(_)
            | State::InLine
            | State::NotApplicable(_) => false,
        }
    }
}
