//! How the guest's threads are scheduled.

use super::subject::{REAL_TIME, attribute, tag, text, vcpus_named};
use super::{Found, Rule};
use crate::formats::CpuSet;

pub(super) const RULES: &[Rule] =
    &[MISSING, NO_VCPUS, BEYOND, OVERLAP, POLICY, NO_PRIORITY, PRIORITY, QUOTA, EMULATOR];

const FORMAT: &str = "libvirt formatdomain (CPU Tuning)";

const MISSING: Rule = Rule {
    id: "sched.missing",
    what: "No vCPU with a real-time policy",
    why: "Every other thread of the host that comes to the CPU gets its share of it.",
    source: "libvirt, KVM Real Time Guest Config",
    fatal: false,
    check: |guest| {
        if !guest.scheds.is_empty() {
            return Vec::new();
        }
        let last = guest.vcpus - 1;
        let list = if last == 0 { "0".to_owned() } else { format!("0-{last}") };
        let help = format!("add <vcpusched vcpus='{list}' scheduler='fifo' priority='1'/> to <cputune>");
        vec![Found::new(guest.place("cputune"), "no vCPU has a real-time policy", help)]
    },
};

const NO_VCPUS: Rule = Rule {
    id: "sched.no-vcpus",
    what: "A scheduler for nobody",
    why: "The schema allows it; libvirt refuses the definition: Missing attribute 'vcpus'.",
    source: "seen with libvirt 9.0",
    fatal: true,
    check: |guest| {
        let nobody = guest.scheds.iter().filter(|sched| !sched.element.has_attribute("vcpus"));
        let help = "name the vCPUs: vcpus='0-3'";
        nobody.map(|sched| Found::new(tag(sched.element), "it does not say for which vCPUs", help)).collect()
    },
};

const BEYOND: Rule = Rule {
    id: "sched.beyond-vcpus",
    what: "A scheduler of a vCPU that the guest does not have",
    why: "libvirt refuses the definition: vCPU '4' is not present in domain definition. The numbers begin at 0; the \
        guide of libvirt itself has 0-4 for four vCPUs.",
    source: "seen with libvirt 9.0; libvirt, KVM Real Time Guest Config",
    fatal: true,
    check: |guest| {
        let known: CpuSet = (0..guest.vcpus).collect();
        let beyond = |sched: &super::subject::Sched| {
            let beyond = sched.vcpus.difference(&known);
            (!beyond.is_empty()).then(|| {
                let message = format!("there is no {}", vcpus_named(&beyond));
                let help = format!("the guest has {}", vcpus_named(&known));
                Found::new(attribute(sched.element, "vcpus"), message, help)
            })
        };
        guest.scheds.iter().filter_map(beyond).collect()
    },
};

const OVERLAP: Rule = Rule {
    id: "sched.overlap",
    what: "Two schedulers of one vCPU",
    why: "libvirt refuses the definition: 'vcpusched' attributes 'vcpus' must not overlap.",
    source: "seen with libvirt 9.0",
    fatal: true,
    check: |guest| {
        let mut found = Vec::new();
        let mut seen = CpuSet::new();
        for sched in &guest.scheds {
            let again = sched.vcpus.intersection(&seen);
            if !again.is_empty() {
                let message = format!("{} named before", vcpus_named(&again));
                found.push(Found::new(attribute(sched.element, "vcpus"), message, "name each vCPU once"));
            }
            seen = seen.union(&sched.vcpus);
        }
        found
    },
};

const POLICY: Rule = Rule {
    id: "sched.policy",
    what: "A policy that is not real-time",
    why: "batch and idle come after everything else on the CPU; libvirt knows no other policies but fifo and rr. \
        Between vCPUs that are alone on their CPUs these two are the same.",
    source: FORMAT,
    fatal: false,
    check: |guest| {
        let other = guest.scheds.iter().filter(|sched| !REAL_TIME.contains(&sched.scheduler));
        let found = other.map(|sched| {
            let message = format!("`{}` is not a real-time policy", sched.scheduler);
            Found::new(attribute(sched.element, "scheduler"), message, "write scheduler='fifo'")
        });
        found.collect()
    },
};

/// The schedulers of all kinds of threads.
const SCHEDS: [&str; 3] = ["cputune/vcpusched", "cputune/iothreadsched", "cputune/emulatorsched"];

const NO_PRIORITY: Rule = Rule {
    id: "sched.no-priority",
    what: "A real-time policy without a priority",
    why: "libvirt refuses the definition.",
    source: FORMAT,
    fatal: true,
    check: |guest| {
        let scheds = SCHEDS.iter().flat_map(|path| super::subject::all(guest.root, path));
        let without = scheds.filter(|sched| {
            sched.attribute("scheduler").is_some_and(|policy| REAL_TIME.contains(&policy))
                && !sched.has_attribute("priority")
        });
        let help = "add priority='1'";
        without.map(|sched| Found::new(tag(sched), "it has no priority", help)).collect()
    },
};

const PRIORITY: Rule = Rule {
    id: "sched.priority",
    what: "A priority out of 1 to 99",
    why: "libvirt takes the definition; the guest then fails to start: Scheduler priority 0 out of range [1, 99].",
    source: "seen with libvirt 9.0; sched(7)",
    fatal: true,
    check: |guest| {
        let scheds = SCHEDS.iter().flat_map(|path| super::subject::all(guest.root, path));
        let wrong = scheds.filter(|sched| {
            let priority = sched.attribute("priority").map(str::parse::<u32>);
            priority.is_some_and(|priority| !priority.is_ok_and(|priority| (1..=99).contains(&priority)))
        });
        let found = wrong.map(|sched| {
            let message =
                format!("priority `{}` is not from 1 to 99", sched.attribute("priority").unwrap_or_default());
            Found::new(attribute(sched, "priority"), message, "1 is enough on a CPU of its own")
        });
        found.collect()
    },
};

const QUOTA: Rule = Rule {
    id: "sched.quota",
    what: "A limit of CPU time",
    why: "The guest is stopped for the rest of each period once it has used its quota up.",
    source: FORMAT,
    fatal: false,
    check: |guest| {
        let limits = ["quota", "global_quota"].into_iter();
        let set = limits.filter_map(|name| guest.one(&format!("cputune/{name}")));
        let limited = set.filter(|limit| text(*limit).parse::<i64>().is_ok_and(|limit| limit > 0));
        let found = limited.map(|limit| {
            Found::new(limit.range(), "the vCPUs are throttled by a quota", "take it out; 0 or -1 is none")
        });
        found.collect()
    },
};

const EMULATOR: Rule = Rule {
    id: "sched.emulator",
    what: "The emulator with a real-time policy",
    why: "It applies to the emulator's main thread alone, and on housekeeping CPUs it holds up the services of the host \
        and other guests' emulators.",
    source: "seen with libvirt 9.0: the other threads of the emulator keep the usual policy",
    fatal: false,
    check: |guest| {
        let found = guest.one("cputune/emulatorsched").into_iter();
        let help = "take it out: the emulator has housekeeping CPUs";
        found.map(|sched| Found::new(tag(sched), "the emulator has a real-time policy", help)).collect()
    },
};
