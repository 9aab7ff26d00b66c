//! Where the guest's threads run.

use super::subject::{Subject, attribute, one, tag, text, vcpus_named};
use super::{Found, Rule};
use crate::formats::CpuSet;

pub(super) const RULES: &[Rule] = &[
    MISSING,
    EXTRA,
    TWICE,
    SEVERAL,
    ABSENT,
    OUTSIDE,
    SHARED,
    OTHER_GUEST,
    SPLIT_CORE,
    NODES,
    EMULATOR_MISSING,
    EMULATOR_ISOLATED,
    IO_THREAD_MISSING,
    IO_THREAD_ISOLATED,
    AUTOMATIC,
];

const FORMAT: &str = "libvirt formatdomain (CPU Tuning)";

const MISSING: Rule = Rule {
    id: "pins.missing",
    what: "A vCPU without a pin",
    why: "It floats over all CPUs of the host, isolated ones of other guests included.",
    source: FORMAT,
    fatal: false,
    check: |guest| {
        let pinned: CpuSet =
            guest.pins.iter().map(|pin| pin.number).filter(|vcpu| *vcpu < guest.vcpus).collect();
        let floating = (0..guest.vcpus).collect::<CpuSet>().difference(&pinned);
        if floating.is_empty() {
            return Vec::new();
        }
        let message = format!("{} of {} not pinned", vcpus_named(&floating), guest.vcpus);
        let help = "add <vcpupin vcpu='N' cpuset='CPU'/> for each, with one isolated CPU of its own";
        vec![Found::new(guest.place("cputune"), message, help)]
    },
};

const EXTRA: Rule = Rule {
    id: "pins.extra",
    what: "A pin of a vCPU that the guest does not have",
    why: "libvirt drops it without a word: the count of the vCPUs or the number in the pin is not what was meant.",
    source: "seen with libvirt 9.0",
    fatal: false,
    check: |guest| {
        let extra = guest.pins.iter().filter(|pin| pin.number >= guest.vcpus);
        let found = extra.map(|pin| {
            let message = format!("there is no vCPU {}", pin.number);
            let help =
                format!("the guest has {}: take the pin out", vcpus_named(&(0..guest.vcpus).collect()));
            Found::new(attribute(pin.element, "vcpu"), message, help)
        });
        found.collect()
    },
};

const TWICE: Rule = Rule {
    id: "pins.twice",
    what: "Two pins of the same thread",
    why: "libvirt refuses the document.",
    source: "seen with libvirt 9.0: duplicate vcpupin for vcpu",
    fatal: true,
    check: |guest| {
        let mut found = Vec::new();
        for pins in [&guest.pins, &guest.others] {
            for (at, pin) in pins.iter().enumerate() {
                let name = pin.element.tag_name().name();
                let same = |other: &&super::subject::Pin| {
                    other.number == pin.number && other.element.tag_name().name() == name
                };
                if let Some(first) = pins[..at].iter().find(same) {
                    let message = format!("a second <{name}> for the same thread");
                    let label = format!("the first says {}", first.cpus);
                    found.push(Found::new(tag(pin.element), message, "keep one of them").label(label));
                }
            }
        }
        found
    },
};

const SEVERAL: Rule = Rule {
    id: "pins.several",
    what: "A vCPU pinned to several CPUs",
    why: "Nothing balances load between isolated CPUs: the vCPU stays on the first of them, and the others are lost. \
        Between CPUs that are not isolated it is moved about.",
    source: "Linux admin-guide/kernel-parameters.txt (isolcpus); libvirt, KVM Real Time Guest Config",
    fatal: false,
    check: |guest| {
        let several = guest.pins.iter().filter(|pin| pin.cpus.len() > 1);
        let found = several.map(|pin| {
            let message = format!("vCPU {} may run on {} CPUs", pin.number, pin.cpus.len());
            Found::new(attribute(pin.element, "cpuset"), message, "pin each vCPU to one CPU")
        });
        found.collect()
    },
};

const ABSENT: Rule = Rule {
    id: "pins.absent-cpu",
    what: "A pin to a CPU that does not exist or is offline",
    why: "libvirt takes the definition; the guest then fails to start: Numerical result out of range.",
    source: "seen with libvirt 9.0",
    fatal: true,
    check: |guest| {
        let online = &guest.host.facts.cpus.online;
        let offline = &guest.host.facts.cpus.offline;
        let mut found = Vec::new();
        for pin in guest.pins.iter().chain(&guest.others) {
            let gone = pin.cpus.difference(online);
            if gone.is_empty() {
                continue;
            }
            let what = if gone.is_subset(offline) { "offline" } else { "not there" };
            let message = format!("CPU {gone} is {what} on this machine");
            let help = format!("online CPUs are {online}");
            found.push(Found::new(attribute(pin.element, "cpuset"), message, help));
        }
        found
    },
};

const OUTSIDE: Rule = Rule {
    id: "pins.outside-isolated",
    what: "A vCPU on a CPU that is not isolated",
    why: "Services, interrupts and kernel threads of the host run there too, each of which holds the guest up; a \
        real-time vCPU in turn holds them up.",
    source: "libvirt, KVM Real Time Guest Config; /sys/devices/system/cpu/isolated",
    fatal: false,
    check: |guest| {
        let Some(isolated) = guest.host.isolated() else { return Vec::new() };
        let online = &guest.host.facts.cpus.online;
        let mut found = Vec::new();
        for pin in &guest.pins {
            let outside = pin.cpus.intersection(online).difference(isolated);
            if outside.is_empty() {
                continue;
            }
            let message = format!("vCPU {} is on CPU {outside}, which is not isolated", pin.number);
            let help = match isolated.is_empty() {
                true => "this machine isolates no CPUs: `rtkvm-tune apply` does it, and --profile PROFILE tells which \
                         ones it would be"
                    .to_owned(),
                false => format!("isolated CPUs are {isolated}"),
            };
            found.push(Found::new(attribute(pin.element, "cpuset"), message, help));
        }
        found
    },
};

const SHARED: Rule = Rule {
    id: "pins.shared-cpu",
    what: "A CPU with a vCPU and another thread of the guest",
    why: "Only one of them runs at a time. A vCPU with a real-time policy never yields to its emulator, whose work it \
        waits for: the guest hangs, mostly while it boots.",
    source: "libvirt, KVM Real Time Guest Config",
    fatal: false,
    check: |guest| {
        let real_time = guest.real_time();
        let mut found = Vec::new();
        for (at, pin) in guest.pins.iter().enumerate() {
            let before = guest.pins[..at].iter();
            let shares = |other: &&super::subject::Pin| {
                other.number != pin.number && !other.cpus.is_disjoint(&pin.cpus)
            };
            if let Some(other) = before.clone().find(shares) {
                let shared = other.cpus.intersection(&pin.cpus);
                let message = format!("vCPU {} shares CPU {shared} with vCPU {}", pin.number, other.number);
                found.push(Found::new(
                    attribute(pin.element, "cpuset"),
                    message,
                    "give each vCPU its own CPU",
                ));
            }
            for other in guest.others.iter().filter(|other| !other.cpus.is_disjoint(&pin.cpus)) {
                let shared = other.cpus.intersection(&pin.cpus);
                let thread = match other.element.tag_name().name() {
                    "emulatorpin" => "the emulator".to_owned(),
                    _ => format!("I/O thread {}", other.number),
                };
                let policy = if real_time.contains(pin.number) {
                    ", which never runs while the vCPU does"
                } else {
                    ""
                };
                let message = format!("vCPU {} shares CPU {shared} with {thread}{policy}", pin.number);
                let help = format!("pin {thread} to housekeeping CPUs: {}", guest.host.housekeeping());
                found.push(Found::new(attribute(pin.element, "cpuset"), message, help));
            }
        }
        found
    },
};

const OTHER_GUEST: Rule = Rule {
    id: "pins.other-guest",
    what: "A CPU with vCPUs of two guests",
    why: "Only one of them runs at a time; with a real-time policy the other one may never.",
    source: "libvirt, KVM Real Time Guest Config",
    fatal: false,
    check: |guest| {
        let mut found = Vec::new();
        for pin in &guest.pins {
            for other in guest.neighbours.iter().filter(|other| !other.cpus.is_disjoint(&pin.cpus)) {
                let shared = other.cpus.intersection(&pin.cpus);
                let message = format!("vCPU {} shares CPU {shared} with guest {}", pin.number, other.name);
                let help = "give the guests CPUs of their own";
                found.push(Found::new(attribute(pin.element, "cpuset"), message, help));
            }
        }
        found
    },
};

const SPLIT_CORE: Rule = Rule {
    id: "pins.split-core",
    what: "A core whose threads do not belong together",
    why: "The threads of a core share its caches and execution units: what runs on one slows the other. Siblings are \
        either the two threads of one core of the guest, or one of them stays idle.",
    source: "Linux admin-guide/cputopology.rst; libvirt formatdomain (CPU model and topology)",
    fatal: false,
    check: split_core,
};

fn split_core(guest: &Subject) -> Vec<Found> {
    let threads = guest.one("cpu/topology").and_then(|topology| topology.attribute("threads")?.parse().ok());
    let threads: u32 = threads.filter(|threads| *threads > 0).unwrap_or(1);
    let housekeeping = guest.host.housekeeping();
    let isolated = guest.host.isolated();
    let mut found = Vec::new();
    let single: Vec<_> = guest
        .pins
        .iter()
        .filter_map(|pin| Some((pin, pin.cpus.first().filter(|_| pin.cpus.len() == 1)?)))
        .collect();
    for (at, (pin, cpu)) in single.iter().enumerate() {
        let Some(core) = guest.host.facts.cpus.core_of(*cpu) else { continue };
        let here = || attribute(pin.element, "cpuset");
        let sibling = core.cpus.intersection(&housekeeping);
        let on_isolated = isolated.is_some_and(|isolated| isolated.contains(*cpu));
        if on_isolated && !sibling.is_empty() {
            let message =
                format!("CPU {cpu} of vCPU {} is a sibling of housekeeping CPU {sibling}", pin.number);
            found.push(Found::new(here(), message, "isolate whole cores"));
        }
        let same_core = |number: u32| threads > 1 && number / threads == pin.number / threads;
        for (other, taken) in &single[..at] {
            if core.cpus.contains(*taken) && taken != cpu && !same_core(other.number) {
                let message = format!(
                    "vCPUs {} and {} are on the two threads of one core, {}, and the guest takes them for cores",
                    other.number, pin.number, core.cpus
                );
                let help = "pin them to cores of their own, or give the guest cores of two threads and pin these in order";
                found.push(Found::new(here(), message, help));
            }
            if same_core(other.number) && !core.cpus.contains(*taken) {
                let message = format!(
                    "vCPUs {} and {} are threads of one core of the guest, on CPUs {taken} and {cpu} of two cores",
                    other.number, pin.number
                );
                let help = format!("CPU {cpu} belongs to core {}: pin siblings to siblings", core.cpus);
                found.push(Found::new(here(), message, help));
            }
        }
        for other in guest.neighbours.iter() {
            let shared = core.cpus.intersection(&other.cpus);
            if !shared.is_empty() && !other.cpus.contains(*cpu) {
                let message = format!(
                    "CPU {cpu} of vCPU {} is a sibling of CPU {shared} of guest {}",
                    pin.number, other.name
                );
                found.push(Found::new(here(), message, "give each guest whole cores"));
            }
        }
    }
    found
}

const NODES: Rule = Rule {
    id: "pins.nodes",
    what: "The vCPUs of one cell on several NUMA nodes",
    why: "The guest takes all its memory for equally near; for some of its vCPUs it is remote, and slower.",
    source: "libvirt formatdomain (NUMA Node Tuning)",
    fatal: false,
    check: |guest| {
        let mut found = Vec::new();
        for cell in &guest.cells {
            let cpus = guest.cpus_of(&cell.vcpus);
            let nodes = guest.nodes_of(&cpus);
            // One pin to several CPUs is told already.
            if nodes.len() < 2 {
                continue;
            }
            let of = if cell.written { format!("of cell {} ", cell.id) } else { String::new() };
            let message = format!("the vCPUs {of}run on nodes {nodes}");
            let at = if cell.written { tag(cell.element) } else { guest.place("cputune") };
            let help = "keep them on one node, or give the guest a <cell> for each node";
            found.push(Found::new(at, message, help));
        }
        found
    },
};

const EMULATOR_MISSING: Rule = Rule {
    id: "pins.emulator-missing",
    what: "No pin of the emulator",
    why: "libvirt then lets the emulator's threads run on all CPUs, isolated ones included, or on those of <vcpu cpuset>. \
        Newer ones take the isolated CPUs out; 9.0 does not.",
    source: "seen with libvirt 9.0; libvirt formatdomain (CPU Tuning)",
    fatal: false,
    check: |guest| {
        if guest.one("cputune/emulatorpin").is_some() {
            return Vec::new();
        }
        let help = format!("add <emulatorpin cpuset='{}'/> to <cputune>", guest.host.housekeeping());
        match guest.one("vcpu").filter(|vcpu| vcpu.has_attribute("cpuset")) {
            Some(vcpu) => {
                let message = "the emulator runs on the CPUs of <vcpu cpuset>, which are the vCPUs'";
                vec![Found::new(attribute(vcpu, "cpuset"), message, help)]
            }
            None => vec![Found::new(guest.place("cputune"), "the emulator is not pinned", help)],
        }
    },
};

const EMULATOR_ISOLATED: Rule = Rule {
    id: "pins.emulator-isolated",
    what: "The emulator on isolated CPUs",
    why: "Its threads are as many as it likes and wait for nobody: on an isolated CPU they hold up the vCPU there, and \
        stay all on the first CPU of their list.",
    source: "libvirt, KVM Real Time Guest Config",
    fatal: false,
    check: |guest| isolated_threads(guest, "emulatorpin"),
};

const IO_THREAD_ISOLATED: Rule = Rule {
    id: "pins.iothread-isolated",
    what: "An I/O thread on isolated CPUs",
    why: "It holds up the vCPU there, and I/O threads that share isolated CPUs stay all on the first.",
    source: "libvirt, KVM Real Time Guest Config",
    fatal: false,
    check: |guest| isolated_threads(guest, "iothreadpin"),
};

fn isolated_threads(guest: &Subject, name: &str) -> Vec<Found> {
    let Some(isolated) = guest.host.isolated() else { return Vec::new() };
    let pins = guest.others.iter().filter(|pin| pin.element.tag_name().name() == name);
    let inside = pins.filter(|pin| !pin.cpus.is_disjoint(isolated));
    let found = inside.map(|pin| {
        let message = format!("CPU {} is isolated", pin.cpus.intersection(isolated));
        let help = format!("pin it to housekeeping CPUs: {}", guest.host.housekeeping());
        Found::new(attribute(pin.element, "cpuset"), message, help)
    });
    found.collect()
}

const IO_THREAD_MISSING: Rule = Rule {
    id: "pins.iothread-missing",
    what: "An I/O thread without a pin",
    why: "It runs on all CPUs of the host, isolated ones included.",
    source: FORMAT,
    fatal: false,
    check: |guest| {
        let Some(iothreads) = guest.one("iothreads") else { return Vec::new() };
        let count: u32 = text(iothreads).parse().unwrap_or(0);
        let pinned = |thread: u32| {
            let pins = guest.others.iter();
            pins.clone().any(|pin| pin.element.tag_name().name() == "iothreadpin" && pin.number == thread)
        };
        let ids: Vec<u32> = match one(guest.root, "iothreadids") {
            Some(ids) => super::subject::all(ids, "iothread")
                .filter_map(|thread| thread.attribute("id")?.parse().ok())
                .collect(),
            None => (1..=count.min(1024)).collect(),
        };
        let free: Vec<String> = ids.into_iter().filter(|id| !pinned(*id)).map(|id| id.to_string()).collect();
        if free.is_empty() {
            return Vec::new();
        }
        let message = format!("I/O thread {} is not pinned", free.join(", "));
        let cpus = guest.host.housekeeping();
        let help = format!("add <iothreadpin iothread='{}' cpuset='{cpus}'/> to <cputune>", free[0]);
        vec![Found::new(iothreads.range(), message, help)]
    },
};

const AUTOMATIC: Rule = Rule {
    id: "pins.automatic",
    what: "Placement left to numad",
    why: "libvirt asks numad, which knows nothing of isolated CPUs, and does not start the guest where there is none.",
    source: "libvirt formatdomain (CPU Allocation)",
    fatal: false,
    check: |guest| {
        let automatic = |path| {
            let element = guest.one(path)?;
            (element.attribute("placement") == Some("auto")).then(|| attribute(element, "placement"))
        };
        let found = ["vcpu", "numatune/memory"].into_iter().filter_map(automatic);
        let help = "write placement='static', and pins and a nodeset";
        found.map(|at| Found::new(at, "where this goes is left to numad", help)).collect()
    },
};
