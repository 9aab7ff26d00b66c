//! What no program can set and a real-time host needs all the same: looked at, with the consequence.

use super::{Context, Disruption, Knob, Reach, Setting, Values};
use crate::facts::Architecture;
use crate::formats::{CpuSet, Size};
use crate::profile::Diagnostic;
use crate::resources::{Resource, State};

pub(super) const KNOBS: &[Knob] = &[
    RT_KERNEL,
    RT_GROUP_SCHED,
    TSC,
    GIGABYTE_PAGES,
    SMI,
    KVM,
    POSTED_INTERRUPTS,
    EFFICIENCY_CORES,
    MEMORY_NODES,
    MICROCODE,
    LIBVIRT,
    LIBVIRT_CPUSET,
];

type Settings = Result<Vec<Setting>, Vec<Diagnostic>>;

const AREA: &str = "check";

/// A knob that sets nothing: what all of them share.
const CHECK: Knob = Knob {
    id: AREA,
    summary: "",
    why: "",
    source: "",
    since: "",
    check: "",
    reach: Reach::Check,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |_| Ok(Vec::new()),
};

/// The one row of a check.
fn found(what: Option<impl ToString>, wanted: &str, state: State) -> Settings {
    let found = what.map(|what| what.to_string());
    let resource = Resource::Check { found, wanted: wanted.into(), state, kept_by: None };
    Ok(vec![Setting::new("", resource)])
}

fn unmet(consequence: impl Into<String>) -> State {
    State::ByHand(consequence.into())
}

/// What this machine has not got, or where nothing is wrong and something is to be known.
fn none(why: impl Into<String>) -> State {
    State::NotApplicable(why.into())
}

/// What would tell cannot be seen.
fn unknown(why: impl Into<String>) -> State {
    State::Unverifiable(why.into())
}

/// Flags of x86 processors that are not there.
fn no_flags(ctx: &Context) -> State {
    match ctx.facts.kernel.architecture {
        Architecture::X86 => unknown("/proc/cpuinfo shows no flags of the processor"),
        Architecture::Aarch64 => none("processors of this kind have no such flag"),
    }
}

const RT_KERNEL: Knob = Knob {
    id: "check.rt-kernel",
    summary: "Whether the kernel is a real-time one",
    why: "Without PREEMPT_RT the kernel cannot be interrupted in the middle of its own work, so that CPUs are isolated but \
     latency has no bound.",
    source: "Linux PREEMPT_RT",
    since: "in mainline Linux 6.12",
    check: "PREEMPT_RT in /proc/sys/kernel/version, or /sys/kernel/realtime",
    settings: |ctx| {
        let is = ctx.facts.kernel.preempt_rt;
        let state = match is {
            Some(true) => State::InLine,
            Some(false) => unmet("CPUs are isolated, but latency has no bound: boot a real-time kernel"),
            None => unknown("whether the kernel is PREEMPT_RT is not known here"),
        };
        found(is.map(|is| if is { "PREEMPT_RT" } else { "other" }), "PREEMPT_RT", state)
    },
    ..CHECK
};

const RT_GROUP_SCHED: Knob = Knob {
    id: "check.rt-group-sched",
    summary: "Whether real-time threads in a control group need a share of their own",
    why: "With CONFIG_RT_GROUP_SCHED a thread cannot have SCHED_FIFO in a control group that has no real-time share, and \
     libvirt gives its groups none: a guest with vcpusched does not start.",
    source: "Linux scheduler/sched-rt-group.rst",
    since: "the switch rt_group_sched= came later",
    check: "/sys/fs/cgroup/cpu/cpu.rt_runtime_us, else CONFIG_RT_GROUP_SCHED in /boot/config-RELEASE",
    settings: |ctx| {
        let line = ctx.facts.kernel.command_line.as_ref();
        let off = line.is_some_and(|line| line.values("rt_group_sched").contains(&Some("0")));
        let is = ctx.facts.hardware.rt_group_sched.map(|is| is && !off);
        let state = match is {
            Some(false) => State::InLine,
            Some(true) => unmet(
                "guests with vcpusched do not start: boot a kernel without it or with rt_group_sched=0, or leave \"cpu\" \
                 out of cgroup_controllers in /etc/libvirt/qemu.conf",
            ),
            None => unknown("how the kernel was built cannot be seen"),
        };
        found(is.map(|is| if is { "on" } else { "off" }), "off", state)
    },
    ..CHECK
};

const TSC: Knob = Knob {
    id: "check.tsc",
    summary: "Whether the processor's clock runs on at one rate",
    why: "Without constant_tsc and nonstop_tsc time is read from a slow device, in the guests too, or differs from CPU to CPU.",
    source: "Linux virt/kvm/x86/timekeeping.rst",
    since: "always",
    check: "flags in /proc/cpuinfo",
    settings: |ctx| {
        let Some(flags) = &ctx.facts.hardware.flags else {
            return found(None::<&str>, "stable", no_flags(ctx));
        };
        let lacks = |flag: &&str| !flags.iter().any(|have| have == flag);
        let lacks: Vec<&str> = TSC_FLAGS.into_iter().filter(lacks).collect();
        match lacks.is_empty() {
            true => found(Some("stable"), "stable", State::InLine),
            false => {
                let why = format!(
                    "without {} reading the time is slow or uneven, in the guests too: use another processor",
                    lacks.join(" and ")
                );
                found(Some("not stable"), "stable", unmet(why))
            }
        }
    },
    ..CHECK
};

const TSC_FLAGS: [&str; 2] = ["constant_tsc", "nonstop_tsc"];

const GIGABYTE_PAGES: Knob = Knob {
    id: "check.gigabyte-pages",
    summary: "Whether the processor has pages of 1 GiB",
    why: "Without pdpe1gb guests have pages of 2 MiB, of which the processor looks up 512 times as many.",
    source: "Linux admin-guide/mm/hugetlbpage.rst",
    since: "always",
    check: "pdpe1gb in /proc/cpuinfo",
    settings: |ctx| {
        let is = ctx.facts.kernel.gigabyte_pages;
        let state = match is {
            Some(false) if ctx.placement.page == Size::GIB => unmet("it has none: use hugepages of 2MiB"),
            Some(false) => State::InLine,
            Some(true) => State::InLine,
            None => no_flags(ctx),
        };
        found(is.map(|is| if is { "pdpe1gb" } else { "none" }), "pdpe1gb", state)
    },
    ..CHECK
};

const SMI: Knob = Knob {
    id: "check.smi",
    summary: "How often the firmware interrupted the machine",
    why: "A system management interrupt stops every CPU for the firmware's work, isolated ones too, often for more than \
     100 us, and no kernel can hold it back: find those that go on by hwlatdetect, and turn their cause off in the \
     firmware.",
    source: "Intel SDM volume 4 (MSR_SMI_COUNT); Linux trace/hwlat_detector.rst",
    since: "Intel since Nehalem",
    check: "register 0x34 through /dev/cpu/N/msr (module msr, root)",
    settings: |ctx| {
        let measure = "`hwlatdetect --duration=1h` finds them";
        match &ctx.facts.hardware.smi {
            Some(Ok(0)) => found(Some(0), "0", State::InLine),
            Some(Ok(count)) => {
                let why =
                    format!("counted since power-on: if it grows, CPUs stop for the firmware; {measure}");
                found(Some(count), "no more", unknown(why))
            }
            Some(Err(error)) => found(
                None::<u64>,
                "0",
                unknown(format!("not counted: /dev/cpu/{}/msr {error}; {measure}", ctx.facts.cpus.boot)),
            ),
            None => found(None::<u64>, "0", none(format!("this processor does not count them; {measure}"))),
        }
    },
    ..CHECK
};

const KVM: Knob = Knob {
    id: "check.kvm",
    summary: "Whether guests can run on KVM, under this kernel too",
    why: "Without /dev/kvm no guest of the profile starts; some real-time kernels have KVM in a package of its own.",
    source: "Linux virt/kvm/api.rst; RHEL 8 and 9, kernel-rt-kvm",
    since: "always",
    check: "/dev/kvm, /sys/module/kvm and the kernel's modules",
    settings: |ctx| {
        let hardware = &ctx.facts.hardware;
        let flag = |name: &str| hardware.flags.iter().flatten().any(|flag| flag == name);
        let state = match (hardware.kvm, hardware.kvm_module) {
            (Some(true), _) => State::InLine,
            (None, _) => unknown("whether it is there is not known here"),
            (Some(false), Some(false)) => unmet(
                "no guest starts: this kernel has no KVM module, install the package with it (kernel-rt-kvm)",
            ),
            (Some(false), _) if hardware.flags.is_some() && !flag("vmx") && !flag("svm") => {
                unmet("no guest starts: turn virtualization (VT-x, AMD-V) on in the firmware")
            }
            (Some(false), _) => unmet("no guest starts: load kvm_intel or kvm_amd, and see the kernel's log"),
        };
        found(hardware.kvm.map(|is| if is { "/dev/kvm" } else { "none" }), "/dev/kvm", state)
    },
    ..CHECK
};

const POSTED_INTERRUPTS: Knob = Knob {
    id: "check.posted-interrupts",
    summary: "Whether interrupts reach a guest that runs without stopping it",
    why: "Without APICv (Intel) or AVIC (AMD) the guest is left for every interrupt that is meant for it, and entered again, \
     which takes microseconds.",
    source: "Linux arch/x86/kvm/vmx (enable_apicv), arch/x86/kvm/svm/avic.c (avic); Intel SDM volume 3 (posted interrupts)",
    since: "enable_apicv Linux 3.9, avic 4.7",
    check: "/sys/module/kvm_intel/parameters/enable_apicv or /sys/module/kvm_amd/parameters/avic is Y or 1",
    settings: |ctx| {
        let modules = &ctx.facts.modules;
        let known = [("kvm_intel", "enable_apicv"), ("kvm_amd", "avic")];
        let Some((module, name)) = known.into_iter().find(|(module, _)| modules.has(module)) else {
            return found(None::<&str>, "on", none("neither kvm_intel nor kvm_amd is loaded"));
        };
        match modules.parameter(module, name) {
            Ok(("Y" | "1", _)) => found(Some("on"), "on", State::InLine),
            Ok(_) => {
                let why = format!(
                    "each interrupt for a guest stops it: the processor has no such thing, or {module} is told not to use \
                     it (`options {module} {name}=1` for modprobe)"
                );
                found(Some("off"), "on", unmet(why))
            }
            Err(error) if error.is_absent() => {
                found(None::<&str>, "on", none(format!("{module} has no option {name}")))
            }
            Err(error) => {
                found(None::<&str>, "on", unknown(format!("/sys/module/{module}/parameters/{name} {error}")))
            }
        }
    },
    ..CHECK
};

const EFFICIENCY_CORES: Knob = Knob {
    id: "check.hybrid-cores",
    summary: "Whether isolated CPUs are cores that save power",
    why: "A vCPU on such a core is slower than one on the others, and its worst case is another: leave them to the system.",
    source: "Linux admin-guide/pm/intel_pstate.rst (hybrid processors)",
    since: "Linux 5.13",
    check: "/sys/devices/cpu_atom/cpus",
    settings: |ctx| {
        let none = CpuSet::new();
        let cores = ctx.facts.hardware.efficiency_cores.as_ref().unwrap_or(&none);
        let slow = cores.intersection(&ctx.placement.isolated);
        let state = match slow.is_empty() {
            true => State::InLine,
            false => unmet(format!(
                "vCPUs on {slow} are slower than the others: name those CPUs in housekeeping-cpus"
            )),
        };
        found(Some(if slow.is_empty() { "none".into() } else { slow.to_string() }), "none", state)
    },
    ..CHECK
};

const MEMORY_NODES: Knob = Knob {
    id: "check.memory-nodes",
    summary: "Whether there is memory without CPUs of its own",
    why: "Such memory (CXL, HBM, persistent) is slower or meant for something else: guests get none of it, and programs of \
     the system may.",
    source: "Linux admin-guide/mm/numaperf.rst",
    since: "always",
    check: "has_memory and has_cpu in /sys/devices/system/node",
    settings: |ctx| {
        let nodes = ctx.facts.numa.nodes.iter().filter(|node| node.cpus.is_empty() && node.memory.0 > 0);
        let nodes: CpuSet = nodes.map(|node| node.id).collect();
        let state = match nodes.is_empty() {
            true => State::InLine,
            false => none(format!("no guest gets memory of node {nodes}; programs of the system may")),
        };
        found(Some(if nodes.is_empty() { "none".into() } else { format!("node {nodes}") }), "none", state)
    },
    ..CHECK
};

const MICROCODE: Knob = Knob {
    id: "check.microcode",
    summary: "Whether the processor has the microcode that the kernel asks for",
    why: "Without it faults of the processor stay open that a guest could use; it must be loaded at boot, for to load it \
     later stops every CPU.",
    source: "Linux arch/x86/microcode.rst, admin-guide/hw-vuln",
    since: "Linux 4.15",
    check: "/sys/devices/system/cpu/vulnerabilities says `no microcode`",
    settings: |ctx| {
        let hardware = &ctx.facts.hardware;
        let state = match (&hardware.without_microcode[..], &hardware.microcode) {
            ([], Some(_)) => State::InLine,
            ([], None) if ctx.facts.kernel.architecture == Architecture::X86 => {
                unknown("its revision is not shown")
            }
            ([], None) => none("processors of this kind have none that the kernel loads"),
            (names, _) => unmet(format!(
                "{} stays open: install the processor's microcode (intel-microcode, amd64-microcode) and reboot",
                names.join(", ")
            )),
        };
        found(hardware.microcode.as_ref(), "as the kernel asks", state)
    },
    ..CHECK
};

const LIBVIRT: Knob = Knob {
    id: "check.libvirt",
    summary: "Whether libvirt knows every element of the guests' definitions",
    why: "An older libvirt refuses `maxphysaddr` when a guest is defined; a template of your own can leave it out.",
    source: "libvirt formatdomain",
    since: "always",
    check: "the version in the name of libvirt.so.0",
    settings: |ctx| {
        let version = ctx.facts.hardware.libvirt;
        let state = match version {
            Some(version) if version >= LEAST_LIBVIRT => State::InLine,
            Some(_) => unmet("it refuses the guests' definitions: update it, or give the guests a template"),
            None => unknown("its library is not in the usual places"),
        };
        let dotted = |[major, minor, micro]: [u32; 3]| format!("{major}.{minor}.{micro}");
        found(version.map(dotted), "8.7 or newer", state)
    },
    ..CHECK
};

/// The first that knows `maxphysaddr`.
const LEAST_LIBVIRT: [u32; 3] = [8, 7, 0];

const LIBVIRT_CPUSET: Knob = Knob {
    id: "check.libvirt-cpuset",
    summary: "Whether libvirt keeps guests' threads together by cpuset",
    why: "Without the controller the threads by which QEMU touches memory at the start run on every CPU of the node, isolated \
     ones of other guests among them.",
    source: "libvirt, qemu.conf (cgroup_controllers)",
    since: "always",
    check: "cgroup_controllers in /etc/libvirt/qemu.conf (root)",
    settings: |ctx| {
        let told = match &ctx.facts.hardware.cgroup_controllers {
            Some(Ok(told)) => told.as_ref(),
            Some(Err(error)) if error.is_absent() => {
                return found(None::<&str>, "with \"cpuset\"", none("there is no /etc/libvirt/qemu.conf"));
            }
            Some(Err(error)) => {
                let why = format!("/etc/libvirt/qemu.conf {error}");
                return found(None::<&str>, "with \"cpuset\"", unknown(why));
            }
            None => None,
        };
        let state = match told {
            Some(list) if !list.contains("\"cpuset\"") => unmet(
                "starting a guest disturbs the isolated CPUs of others: put \"cpuset\" in cgroup_controllers of \
                 /etc/libvirt/qemu.conf, and restart libvirt",
            ),
            _ => State::InLine,
        };
        found(Some(told.map_or("default", String::as_str)), "with \"cpuset\"", state)
    },
    ..CHECK
};
