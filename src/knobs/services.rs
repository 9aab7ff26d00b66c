//! What sets again, at each boot, what a reboot forgets.

use super::values::word;
use super::{Context, Disruption, Knob, Reach, Setting, Values, unfit};
use crate::facts::PROGRAM;
use crate::facts::manager::UNITS;
use crate::facts::owners::{IRQBALANCE_UNIT, MASK};
use crate::formats::{CpuSet, HostPath};
use crate::resources::{IRQBALANCE_DROP_IN, IRQBALANCE_LIST, OwnedFile, Resource, State};

pub(super) const KNOBS: &[Knob] = &[BOOT_UNIT, IRQBALANCE, CPU_AFFINITY, ALLOWED_CPUS];

/// The applied profile, for the boot unit.
pub const PROFILE: &str = "/etc/rtkvm-tune/profile.toml";

/// The boot unit.
pub const UNIT: &str = "/etc/systemd/system/rtkvm-tune.service";

/// The link that enables it.
pub const WANTED_BY: &str = "/etc/systemd/system/multi-user.target.wants/rtkvm-tune.service";

/// The knob of the boot unit.
pub const BOOT_UNIT_KNOB: &str = BOOT_UNIT.id;

/// The knob of irqbalance.
pub const IRQBALANCE_KNOB: &str = IRQBALANCE.id;

const BOOT_UNIT: Knob = Knob {
    id: "services.boot-unit",
    summary: "Set again at each boot, before libvirt starts, what a reboot forgets",
    why: "Huge pages and interrupt affinities live in the running kernel only. The unit runs `apply --runtime` \
        with the applied profile, which is kept beside it; it touches neither the boot loader nor guests. \
        It is an ordinary systemd unit: `systemctl disable rtkvm-tune` turns it off.",
    source: "systemd.unit(5), systemd.service(5)",
    since: "systemd 197 or before",
    check: "the unit, its link in multi-user.target.wants and the kept profile have the planned content",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |ctx| {
        let link = Resource::Link { path: HostPath::new(WANTED_BY), target: "../rtkvm-tune.service".into() };
        Ok(vec![
            Setting::new("profile kept for it", file(PROFILE, ctx.source.text.clone())),
            Setting::new("unit", file(UNIT, unit())),
            Setting::new("enabled", link),
        ])
    },
};

const IRQBALANCE: Knob = Knob {
    id: "services.irqbalance",
    summary: "Have irqbalance leave the isolated CPUs alone, or not run",
    why: "irqbalance moves interrupts every 10 s. Once the kernel isolates CPUs it spares them by itself; until that \
        boot it moves interrupts back, and a list in its settings replaces its own finding. A drop-in of its unit \
        gives it the isolated CPUs, after whatever /etc/default/irqbalance or /etc/sysconfig/irqbalance say. It is \
        started again if it runs. \"mask\" stops it and keeps it from starting, as Red Hat's guide for real-time hosts \
        wants it: interrupts then stay where irq.affinity put them. The mask is an ordinary link; when it is taken \
        away, irqbalance starts with the next boot.",
    source: "irqbalance(1) (IRQBALANCE_BANNED_CPULIST); systemd.exec(5) (EnvironmentFile); systemctl(1) (mask)",
    since: "the list irqbalance 1.8; older ones take the mask, which newer ones report as discarded",
    check: "the drop-in and its variables have the planned content; masked: the link in its unit's place",
    reach: Reach::Live,
    disruption: Disruption::IrqMove,
    values: Values::words(&[
        word("on", "it runs and spares the isolated CPUs"),
        word("mask", "it is stopped and does not start"),
    ]),
    settings: |ctx| {
        if !ctx.facts.irqbalance {
            return Ok(Vec::new());
        }
        if ctx.value.word() == "mask" {
            return Ok(vec![irqbalance_mask(ctx)]);
        }
        let isolated = &ctx.placement.isolated;
        let list = format!(
            "{WRITTEN}IRQBALANCE_BANNED_CPULIST={isolated}\nIRQBALANCE_BANNED_CPUS={}\n",
            isolated.to_mask()
        );
        let drop_in = format!("{WRITTEN}[Service]\nEnvironmentFile={IRQBALANCE_LIST}\n");
        Ok(vec![
            Setting::new("banned CPUs", file(IRQBALANCE_LIST, list)),
            Setting::new("drop-in of its unit", file(IRQBALANCE_DROP_IN, drop_in)),
        ])
    },
};

fn irqbalance_mask(ctx: &Context) -> Setting {
    let label = "mask of its unit";
    match ctx.facts.owners.irqbalance_unit {
        true => {
            let why = format!(
                "{IRQBALANCE_UNIT} is in its place: end irqbalance by `systemctl disable --now irqbalance`, or move that \
                 file away"
            );
            unfit(label, format!("-> {MASK}"), why)
        }
        false => {
            let link = Resource::Link { path: HostPath::new(IRQBALANCE_UNIT), target: MASK.into() };
            Setting::new(label, link)
        }
    }
}

const CPU_AFFINITY: Knob = Knob {
    id: "services.cpu-affinity",
    summary: "Have systemd start everything on the housekeeping CPUs",
    why: "Where the kernel isolates CPUs at boot, process 1 and all that it starts stay away from them already; this is \
        for machines that run without isolcpus. libvirt gives guests their CPUs whatever it has itself. A program can \
        choose other CPUs for itself: services.allowed-cpus does not let it.",
    source: "systemd-system.conf(5) (CPUAffinity)",
    since: "systemd 218 or before",
    check: "the drop-in has the planned content, and Cpus_allowed_list in /proc/1/status",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::OPT_IN,
    settings: |ctx| {
        let housekeeping = &ctx.placement.housekeeping;
        let text = format!("{WRITTEN}[Manager]\nCPUAffinity={}\n", spaced(housekeeping));
        let file = file("/etc/systemd/system.conf.d/50-rtkvm-tune.conf", text);
        let (found, state) = match &ctx.facts.manager.first {
            Ok(cpus) if cpus.is_subset(housekeeping) => (Some(cpus.to_string()), State::InLine),
            Ok(cpus) => (Some(cpus.to_string()), State::RebootPending),
            Err(error) => (None, State::Unverifiable(format!("/proc/1/status {error}"))),
        };
        let running = Resource::Check { found, wanted: housekeeping.to_string(), state, kept_by: None };
        let file = Setting { note: Some(NEW_AFFINITY), ..Setting::new("drop-in", file) };
        Ok(vec![file, Setting::new("CPUs of process 1", running)])
    },
};

const NEW_AFFINITY: &str = "what systemd starts has the new CPUAffinity from the next boot on; where the initramfs has a copy of \
    /etc/systemd (dracut), make that anew before by `dracut -f`";

/// systemd takes ranges as well; single numbers are what every version takes.
fn spaced(cpus: &CpuSet) -> String {
    cpus.iter().map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(" ")
}

const ALLOWED_CPUS: Knob = Knob {
    id: "services.allowed-cpus",
    summary: "Confine services and users' sessions to the housekeeping CPUs",
    why: "A program in system.slice, user.slice or init.scope then cannot use an isolated CPU even where it asks for one. \
        machine.slice, where libvirt puts guests, is left as it is. QEMU that is started by a service of another kind, or \
        out of a session, is confined as well and cannot be pinned to isolated CPUs.",
    source: "systemd.resource-control(5) (AllowedCPUs); Linux admin-guide/cgroup-v2.rst (cpuset)",
    since: "systemd 244, with control groups of version 2",
    check: "the drop-ins have the planned content, and cpuset.cpus.effective of each in /sys/fs/cgroup",
    reach: Reach::Reboot,
    // systemd confines what runs as soon as it reads the drop-ins, and a guest may run outside of machine.slice.
    disruption: Disruption::GuestStop,
    values: Values::OPT_IN,
    settings: |ctx| {
        let housekeeping = &ctx.placement.housekeeping;
        let wanted = housekeeping.to_string();
        match &ctx.facts.manager.cpusets {
            Ok(true) => {}
            Ok(false) => {
                let why = "control groups are not of version 2, or have no cpuset: no such word in \
                    /sys/fs/cgroup/cgroup.controllers";
                return Ok(vec![unfit("slices", wanted, why)]);
            }
            Err(error) => {
                let state = State::Unverifiable(format!("/sys/fs/cgroup/cgroup.controllers {error}"));
                return Ok(vec![Setting::new(
                    "slices",
                    Resource::Check { found: None, wanted, state, kept_by: None },
                )]);
            }
        }
        let in_session = ctx.profile.host.libvirt.uri().ends_with("/session");
        let units = ctx.facts.manager.units.iter().flat_map(|(unit, runs)| {
            if in_session && *unit == SESSIONS {
                return vec![unfit(
                    unit,
                    wanted.clone(),
                    "the guests of the profile's libvirt-uri run in it",
                )];
            }
            let kind = if unit.ends_with(".scope") { "Scope" } else { "Slice" };
            let text = format!("{WRITTEN}[{kind}]\nAllowedCPUs={}\n", spaced(housekeeping));
            let path = format!("/etc/systemd/system/{unit}.d/50-rtkvm-tune.conf");
            let state = match runs {
                Some(cpus) if cpus.is_subset(housekeeping) => State::InLine,
                _ => State::RebootPending,
            };
            let found = runs.as_ref().map(CpuSet::to_string);
            let running = Resource::Check { found, wanted: wanted.clone(), state, kept_by: None };
            let running = Setting::new(format!("CPUs of {unit}"), running);
            vec![Setting::new(format!("drop-in of {unit}"), file(&path, text)), running]
        });
        Ok(units.collect())
    },
};

/// Where users' sessions are.
const SESSIONS: &str = UNITS[2];

/// The first line of a file that is ours.
pub(super) const WRITTEN: &str = "# Written by rtkvm-tune; changes are lost at the next apply.\n";

pub(super) fn file(path: &str, content: String) -> Resource {
    Resource::File(OwnedFile { path: HostPath::new(path), content, mode: 0o644 })
}

fn unit() -> String {
    format!(
        "{WRITTEN}\
         [Unit]\n\
         Description=Real-time KVM host settings that a reboot forgets\n\
         After=systemd-modules-load.service\n\
         # There during a trial boot only.\n\
         Wants=rtkvm-tune-trial.service\n\
         Before=libvirtd.service virtqemud.service libvirt-guests.service\n\
         ConditionPathExists={PROFILE}\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         # Devices that are still coming up bring interrupts and workqueues.\n\
         ExecStartPre=-/usr/bin/udevadm settle --timeout=60\n\
         ExecStart={PROGRAM} recover --wait 300\n\
         ExecStart={PROGRAM} apply --runtime --keep-going --wait 300 {PROFILE}\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}
