//! The CPU that the guest sees.

use super::subject::{all, attribute, tag, vcpus_named};
use super::{Found, Rule};
use crate::formats::CpuSet;

pub(super) const RULES: &[Rule] = &[EMULATED, MODE, TOPOLOGY, FEATURE_NAME, DEADLINE, PMU, CELLS];

const FORMAT: &str = "libvirt formatdomain (CPU model and topology)";

const EMULATED: Rule = Rule {
    id: "cpu.emulated",
    what: "A guest that is emulated",
    why: "Without KVM QEMU translates each instruction: nothing about its time can be foretold.",
    source: "libvirt formatdomain (Element and attribute overview)",
    fatal: false,
    check: |guest| match guest.root.attribute("type") {
        Some("kvm") => Vec::new(),
        _ => {
            vec![Found::new(attribute(guest.root, "type"), "the guest does not use KVM", "write type='kvm'")]
        }
    },
};

const MODE: Rule = Rule {
    id: "cpu.mode",
    what: "A CPU model that is not the host's",
    why: "A named model, or none, lacks what the host has: an invariant TSC, the TSC deadline timer, instructions.",
    source: FORMAT,
    fatal: false,
    check: |guest| {
        let help = "write <cpu mode='host-passthrough'>, or host-model for guests that migrate";
        match guest.one("cpu") {
            None => vec![Found::new(guest.place(""), "the guest has QEMU's default CPU", help)],
            Some(cpu) => match cpu.attribute("mode") {
                Some("host-passthrough" | "host-model" | "maximum") => Vec::new(),
                mode => {
                    let message = format!("mode `{}` is not the host's CPU", mode.unwrap_or("custom"));
                    vec![Found::new(attribute(cpu, "mode"), message, help)]
                }
            },
        }
    },
};

const TOPOLOGY: Rule = Rule {
    id: "cpu.topology",
    what: "A topology of more or fewer vCPUs",
    why: "libvirt refuses the definition: CPU topology doesn't match maximum vcpu count.",
    source: "seen with libvirt 9.0",
    fatal: true,
    check: |guest| {
        let Some(topology) = guest.one("cpu/topology") else { return Vec::new() };
        let parts = ["sockets", "dies", "clusters", "cores", "threads"];
        let part = |name: &&str| topology.attribute(*name).map_or(Some(1), |count| count.parse::<u64>().ok());
        let product = parts.iter().map(part).try_fold(1u64, |product, part| product.checked_mul(part?));
        match product {
            Some(product) if product == u64::from(guest.vcpus) => Vec::new(),
            product => {
                let has =
                    product.map_or("a number that cannot be read".into(), |product| product.to_string());
                let message = format!("the topology has {has} vCPUs, the guest has {}", guest.vcpus);
                vec![Found::new(
                    tag(topology),
                    message,
                    "make sockets x dies x cores x threads the number of vCPUs",
                )]
            }
        }
    },
};

/// Names of other programs for what libvirt calls otherwise.
const NAMES: [(&str, &str); 6] = [
    ("tsc_deadline", "tsc-deadline"),
    ("tsc_deadline_timer", "tsc-deadline"),
    ("tsc-deadline-timer", "tsc-deadline"),
    ("nonstop_tsc", "invtsc"),
    ("constant_tsc", "invtsc"),
    ("invariant_tsc", "invtsc"),
];

const FEATURE_NAME: Rule = Rule {
    id: "cpu.feature-name",
    what: "A feature under a name that libvirt does not know",
    why: "libvirt takes the definition; the guest then fails to start: unknown CPU feature.",
    source: "seen with libvirt 9.0; /usr/share/libvirt/cpu_map",
    fatal: true,
    check: |guest| {
        let mut found = Vec::new();
        for feature in all(guest.root, "cpu/feature") {
            let name = feature.attribute("name").unwrap_or_default();
            if let Some((_, right)) = NAMES.iter().find(|(wrong, _)| *wrong == name) {
                let message = format!("libvirt knows no feature `{name}`");
                found.push(Found::new(attribute(feature, "name"), message, format!("it calls it `{right}`")));
            }
        }
        found
    },
};

const DEADLINE: Rule = Rule {
    id: "cpu.tsc-deadline",
    what: "A guest without the TSC deadline timer",
    why: "The guest's timers then go through the local APIC's counter, which is coarser, and each needs more exits.",
    source: "libvirt, KVM Real Time Guest Config",
    fatal: false,
    check: |guest| {
        let mut features = all(guest.root, "cpu/feature");
        let without = features.find(|feature| {
            feature.attribute("name") == Some("tsc-deadline")
                && feature.attribute("policy").is_some_and(|policy| ["disable", "forbid"].contains(&policy))
        });
        let help = "write policy='require'";
        without
            .map(|feature| Found::new(attribute(feature, "policy"), "the TSC deadline timer is off", help))
            .into_iter()
            .collect()
    },
};

const PMU: Rule = Rule {
    id: "cpu.pmu",
    what: "A virtual PMU",
    why: "With host-passthrough the guest gets performance counters by default; each switch between guest and host then \
        saves and loads them.",
    source: "libvirt formatdomain (Hypervisor features); KVM Real Time Guest Config",
    fatal: false,
    check: |guest| {
        let passed = guest.one("cpu").is_some_and(|cpu| cpu.attribute("mode") == Some("host-passthrough"));
        let pmu = guest.one("features/pmu");
        match pmu {
            _ if !passed => Vec::new(),
            Some(pmu) if pmu.attribute("state") == Some("off") => Vec::new(),
            Some(pmu) => vec![Found::new(tag(pmu), "the guest has a PMU", "write <pmu state='off'/>")],
            None => {
                let help = "add <pmu state='off'/> to <features>";
                vec![Found::new(guest.place("features"), "the guest has a PMU", help)]
            }
        }
    },
};

const CELLS: Rule = Rule {
    id: "cpu.cells",
    what: "Cells that do not divide the vCPUs",
    why: "A vCPU in no cell goes to cell 0 without a word; one in two cells, or one that does not exist, is refused.",
    source: "seen with libvirt 9.0",
    fatal: true,
    check: |guest| {
        let mut found = Vec::new();
        let known: CpuSet = (0..guest.vcpus).collect();
        let mut seen = CpuSet::new();
        for cell in guest.cells.iter().filter(|cell| cell.written) {
            let again = cell.vcpus.intersection(&seen);
            let beyond = cell.vcpus.difference(&known);
            if !again.is_empty() {
                let message = format!("{} in two cells", vcpus_named(&again));
                found.push(Found::new(attribute(cell.element, "cpus"), message, "name each vCPU once"));
            }
            if !beyond.is_empty() {
                let message = format!("there is no {}", vcpus_named(&beyond));
                let help = format!("the guest has {}", vcpus_named(&known));
                found.push(Found::new(attribute(cell.element, "cpus"), message, help));
            }
            seen = seen.union(&cell.vcpus);
        }
        let free = known.difference(&seen);
        if !free.is_empty() && guest.cells.iter().any(|cell| cell.written) {
            let message = format!("{} in no cell", vcpus_named(&free));
            found.push(Found::new(guest.place("cpu/numa"), message, "name each vCPU in one cell"));
        }
        found
    },
};
