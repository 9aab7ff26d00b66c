//! Layer 6: what to set and why. Each knob is declared once, in its area's file; plan, apply, verify, explain
//! and the documentation walk [`all`]. Knobs never read or write: they turn a placement into settings.

mod boot;
mod check;
mod cpu;
mod device;
mod guest;
mod irq;
mod kvm;
mod measured;
mod memory;
mod owners;
mod power;
mod sched;
mod services;
mod values;
mod watchdog;

use crate::facts::{Facts, Further};
use crate::formats::{CpuSet, HostPath, ImageCopy};
use crate::guest::Templates;
use crate::placement::Placement;
use crate::profile::{Diagnostic, Profile, Source};
use crate::resources::{Attribute, Ignored, Resource, Value};
use serde::Serialize;
use std::collections::BTreeMap;

pub use boot::EXTRA_ARGUMENTS;
pub use irq::{CHANNELS_KNOB, IRQ_AFFINITY};
pub use measured::measured;
pub use owners::TUNED_KNOB;
pub use sched::FREE_THREADS_KNOB;
pub use services::{BOOT_UNIT_KNOB, IRQBALANCE_KNOB, PROFILE, UNIT, WANTED_BY};
pub use values::{Choice, Chosen, KEEP, Numbers, Values, Word, chosen, nearest};

/// One tunable that this program knows.
pub struct Knob {
    /// The name by which a profile overrides it: `area.name`.
    pub id: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// Why a real-time KVM host wants it, and what it costs.
    pub why: &'static str,
    /// Where this is documented.
    pub source: &'static str,
    /// Since when the kernel or tool has it.
    pub since: &'static str,
    /// How it is checked that it is in force.
    pub check: &'static str,
    /// When a change takes effect.
    pub reach: Reach,
    /// What a change does to what runs meanwhile.
    pub disruption: Disruption,
    /// What a profile may make of it, and what it is without.
    pub values: Values,
    /// What it sets for this profile on this machine, with the value that the context has for it.
    pub settings: fn(&Context) -> Result<Vec<Setting>, Vec<Diagnostic>>,
}

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// At once.
    Live,
    /// At the next boot.
    Reboot,
    /// At the next start of the guest.
    GuestRestart,
    /// Nothing is set: it is looked at only.
    Check,
}

impl Reach {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Reach::Live => "live",
            Reach::Reboot => "reboot",
            Reach::GuestRestart => "guest restart",
            Reach::Check => "check",
        }
    }
}

/// What a change does to what runs on the machine meanwhile: the class that a plan shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disruption {
    /// Nothing notices.
    None,
    /// CPUs stall for a moment: at most milliseconds.
    BriefStall,
    /// Interrupts go to other CPUs from then on.
    IrqMove,
    /// A network interface loses its link for a moment.
    LinkLoss,
    /// Guests must be stopped for it.
    GuestStop,
    /// The machine must reboot for it.
    Reboot,
}

impl Disruption {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Disruption::None => "none",
            Disruption::BriefStall => "brief stall",
            Disruption::IrqMove => "interrupts move",
            Disruption::LinkLoss => "the link is lost for a moment",
            Disruption::GuestStop => "needs the guest stopped",
            Disruption::Reboot => "needs a reboot",
        }
    }
}

/// What a knob may look at.
pub struct Context<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// Its text.
    pub source: &'a Source,
    /// The machine.
    pub facts: &'a Facts,
    /// Its division.
    pub placement: &'a Placement,
    /// The templates of guests.
    pub templates: &'a Templates,
    /// The value that the profile, or the default, gives to the knob that looks.
    pub value: Chosen,
    /// The operator's own user-data of each guest, in the order of the profile.
    pub user_data: &'a [Option<String>],
    /// What makes each disk of a guest that has a base image and is not there, by its path.
    pub copies: &'a BTreeMap<String, ImageCopy>,
    /// What is read of the machine only where the profile asks for it.
    pub further: &'a Further,
}

/// One value that a knob asks for.
#[derive(Debug, Clone)]
pub struct Setting {
    /// What is set, for people: `isolcpus`, `node 0`, `IRQ 24`.
    pub label: String,
    /// Beside the label where it helps: the handlers of an interrupt.
    pub detail: String,
    /// The knob that has the kernel set the same while it boots.
    pub at_boot: Option<&'static str>,
    /// What the operator has to know when it changes.
    pub note: Option<&'static str>,
    /// The resource with its value.
    pub resource: Resource,
}

impl Setting {
    fn new(label: impl Into<String>, resource: Resource) -> Setting {
        Setting { label: label.into(), detail: String::new(), at_boot: None, note: None, resource }
    }
}

/// Every knob, by area.
pub fn all() -> impl Iterator<Item = &'static Knob> {
    let areas = [
        cpu::KNOBS,
        irq::KNOBS,
        memory::KNOBS,
        sched::KNOBS,
        watchdog::KNOBS,
        power::KNOBS,
        kvm::KNOBS,
        device::KNOBS,
        boot::KNOBS,
        services::KNOBS,
        owners::KNOBS,
        guest::KNOBS,
        check::KNOBS,
    ];
    areas.into_iter().flatten()
}

impl Knob {
    /// The first part of its id: the area that a profile can keep as a whole.
    pub fn area(&self) -> &'static str {
        self.id.split_once('.').map_or(self.id, |(area, _)| area)
    }
}

/// What the kernel says in its log against one of these parameters.
fn refused(ctx: &Context, names: &[&str]) -> Option<Ignored> {
    let line = names.iter().find_map(|name| ctx.facts.kernel.log.against(name))?;
    Some(Ignored::Rejected(format!("the kernel did not accept it and logged `{line}`")))
}

/// Parameters of which a file of the kernel's tells what became of them.
const READ_BACK: [&str; 4] = ["isolcpus", "nohz_full", "irqaffinity", "psi"];

/// Without its log the kernel does not tell whether it took other parameters.
fn untold(ctx: &Context, name: &str) -> Option<Ignored> {
    let why = ctx.facts.kernel.log.unreadable.as_ref().filter(|_| !READ_BACK.contains(&name))?;
    Some(Ignored::Untold(format!(
        "it is on the kernel's line, and only the kernel's log tells whether it was taken: {why}"
    )))
}

/// The setting of one value in sysfs or procfs.
fn attribute(label: &str, path: impl Into<String>, want: Value) -> Setting {
    let path = HostPath::new(path.into());
    Setting::new(label, Resource::Attribute(Attribute { path, want, fixed: None, until_boot: false }))
}

/// The setting of something that cannot be had here.
fn unfit(label: &str, wanted: impl Into<String>, reason: impl Into<String>) -> Setting {
    Setting::new(label, Resource::Unfit { wanted: wanted.into(), reason: reason.into() })
}

/// The one setting of a knob under /proc/sys.
fn sysctl(name: &str, value: i64) -> Result<Vec<Setting>, Vec<Diagnostic>> {
    Ok(vec![attribute(name, format!("/proc/sys/{}", name.replace('.', "/")), Value::Number(value))])
}

/// Why a kernel argument that was given is not in force: what the kernel's own file says instead, and its log.
fn ignored(ctx: &Context, file: &str, running: Option<&CpuSet>, wanted: &CpuSet) -> Option<Ignored> {
    let log = &ctx.facts.kernel.log;
    let logged = match (log.about_isolation(), &log.unreadable) {
        (Some(line), _) => format!("; it logged `{line}`"),
        (None, Some(why)) => format!("; its log could not be read: {why}"),
        (None, None) => String::new(),
    };
    match running {
        Some(cpus) if cpus == wanted => None,
        Some(cpus) if cpus.is_empty() => {
            Some(Ignored::Rejected(format!("the kernel did not accept it: {file} is empty{logged}")))
        }
        Some(cpus) => {
            Some(Ignored::Rejected(format!("the kernel did not accept it: {file} says {cpus}{logged}")))
        }
        None if ctx.facts.kernel.release.is_none() => None,
        None => {
            Some(Ignored::Unsupported(format!("the running kernel was built without it: no {file}{logged}")))
        }
    }
}
