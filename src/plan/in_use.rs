//! A machine in use: the guests that run on it, and the programs that set the same things.

use super::{Asked, Item};
use crate::facts::irqs::affinity;
use crate::facts::{Facts, RunningGuest, Service};
use crate::formats::CpuSet;
use crate::formats::HostPath;
use crate::knobs::{Disruption, IRQBALANCE_KNOB, TUNED_KNOB};
use crate::placement::Placement;
use crate::resources::{Resource, State};

/// Guests that run, and what of theirs must be left in peace.
pub struct Running {
    /// Who they are.
    guests: String,
    /// Where the interrupts of their devices are set.
    interrupts: Vec<HostPath>,
}

impl Running {
    /// `None` if no guest runs.
    pub fn of(facts: &Facts) -> Option<Running> {
        let guests = named(&facts.guests)?;
        let theirs = facts.irqs.irqs.iter().filter(|irq| irq.is_of_a_guest());
        let interrupts = theirs.map(|irq| affinity(irq.number)).collect();
        Some(Running { guests, interrupts })
    }

    /// Why a change of this class waits; `how` does it all the same. That is what stalls CPUs, what moves an interrupt
    /// of a device that a guest has, what takes a link, and what needs guests stopped. A definition waits for nothing:
    /// libvirt keeps the running guest as it is until its next start. Other interrupts leave the guests' CPUs, which is
    /// what they want.
    pub(super) fn waits(&self, disruption: Disruption, path: Option<&HostPath>, how: &str) -> Option<String> {
        let what = match disruption {
            Disruption::BriefStall => "it stalls CPUs for a moment",
            Disruption::IrqMove if path.is_some_and(|path| self.interrupts.contains(path)) => {
                "the interrupt is of a guest's device"
            }
            // Which guests use the interface is not known.
            Disruption::LinkLoss => "a network interface loses its link for a moment",
            Disruption::GuestStop => "it needs the guests stopped",
            _ => return None,
        };
        Some(format!("{what}, and {}: stop them, or do it all the same by `{how}`", self.guests))
    }
}

/// Lets what would disturb guests that run wait, with the reason.
pub(super) fn spare_guests(running: Option<&Running>, asked: &[Asked], items: &mut [Item]) {
    let Some(running) = running else { return };
    for (asked, item) in asked.iter().zip(items) {
        let resource = &asked.setting.resource;
        let waits = match resource {
            Resource::Domain { .. } => None,
            _ => running.waits(asked.knob.disruption, resource.path(), "apply --live"),
        };
        if let (Some(reason), State::Missing | State::Differs(None)) = (waits, &item.observed.state) {
            item.observed.state = State::Waiting(reason);
        }
    }
}

/// Programs that run and set the same things, and what to know of each.
pub(super) fn services(facts: &Facts, placement: &Placement, asked: &[Asked]) -> Vec<String> {
    let known = |service: &Service| {
        let asks = |knob: &str| asked.iter().any(|asked| asked.knob.id == knob);
        if service.name == "irqbalance" && asks(IRQBALANCE_KNOB) {
            return None;
        }
        if service.name == "irqbalance" {
            return irqbalance(facts, &placement.isolated, service);
        }
        // It is a setting there, as above.
        if service.name == "tuned" && asks(TUNED_KNOB) {
            return None;
        }
        let (_, what) = SERVICES.iter().find(|(name, _)| *name == service.name)?;
        Some(format!("{} (PID {}) {what}", service.name, service.pid))
    };
    facts.services.iter().filter_map(known).collect()
}

/// irqbalance spares the CPUs that the kernel isolates or keeps without a tick, unless a variable says which
/// (irqbalance(1)): nothing if those are all of ours.
fn irqbalance(facts: &Facts, isolated: &CpuSet, service: &Service) -> Option<String> {
    let none = CpuSet::new();
    let kernel = |set: &Option<CpuSet>| set.as_ref().unwrap_or(&none).clone();
    let spared = match &facts.owners.banned {
        Some(banned) => banned.cpus.clone(),
        None => kernel(&facts.cpus.isolated).union(&kernel(&facts.cpus.nohz_full)),
    };
    let open = isolated.difference(&spared);
    if open.is_empty() {
        return None;
    }
    let pid = service.pid;
    Some(match &facts.owners.banned {
        Some(banned) => format!(
            "irqbalance (PID {pid}) spares CPUs {} only, by a variable in {}, and moves interrupts to {open} again: take the \
             variable out, then it spares what the kernel isolates, or set IRQBALANCE_BANNED_CPULIST={isolated}",
            banned.cpus, banned.file
        ),
        None => format!(
            "irqbalance (PID {pid}) moves interrupts as well; it leaves alone the CPUs that the kernel isolates, that is \
             after the reboot"
        ),
    })
}

/// What to know of a service, by its process's name.
const SERVICES: [(&str, &str); 8] = [
    (
        "tuned",
        "may set some of the same values; `tuned-adm active` names its profile, `tuned-adm off` ends it",
    ),
    (
        "numad",
        "moves processes and their memory between nodes, guests among them; stop it where guests are pinned",
    ),
    (
        "ksmtuned",
        "turns on the merging of equal pages, which takes time from guests; stop it on a real-time host",
    ),
    (
        "power-profiles-",
        "sets frequency governors and preferences; stop power-profiles-daemon on a real-time host",
    ),
    ("thermald", "slows CPUs down before they get hot; stop it where cooling is sufficient"),
    (
        "kubelet",
        "gives CPUs to containers by cpuset, isolated ones among them: name them in its reservedSystemCPUs",
    ),
    (
        "stalld",
        "lends a starved thread a moment of an isolated CPU, which the vCPU there lacks: leave isolated CPUs out by its \
         option -c",
    ),
    ("auto-cpufreq", "sets frequency governors and preferences; stop it on a real-time host"),
];

/// Who runs: `guests rt0 (PID 812) and db (PID 913) run`; `None` if nobody does.
fn named(guests: &[RunningGuest]) -> Option<String> {
    let shown: Vec<_> = guests.iter().map(|guest| format!("{} (PID {})", guest.name, guest.pid)).collect();
    match &shown[..] {
        [] => None,
        [one] => Some(format!("guest {one} runs")),
        [most @ .., last] if most.len() < MOST_GUESTS => {
            Some(format!("guests {} and {last} run", most.join(", ")))
        }
        [first, rest @ ..] => Some(format!("guest {first} and {} more run", rest.len())),
    }
}

/// More guests than these are counted, not named.
const MOST_GUESTS: usize = 4;
