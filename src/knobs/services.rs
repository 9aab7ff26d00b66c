//! What sets again, at each boot, what a reboot forgets.

use super::{Disruption, Knob, Reach, Setting};
use crate::facts::PROGRAM;
use crate::formats::HostPath;
use crate::resources::{IRQBALANCE_DROP_IN, IRQBALANCE_LIST, OwnedFile, Resource};

pub(super) const KNOBS: &[Knob] = &[BOOT_UNIT, IRQBALANCE];

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
    summary: "Have irqbalance leave the isolated CPUs alone",
    why: "irqbalance moves interrupts every 10 s. Once the kernel isolates CPUs it spares them by itself; until that \
        boot it moves interrupts back, and a list in its settings replaces its own finding. A drop-in of its unit \
        gives it the isolated CPUs, after whatever /etc/default/irqbalance or /etc/sysconfig/irqbalance say. It is \
        started again if it runs.",
    source: "irqbalance(1) (IRQBALANCE_BANNED_CPULIST); systemd.exec(5) (EnvironmentFile)",
    since: "the list irqbalance 1.8; older ones take the mask, which newer ones report as discarded",
    check: "the drop-in and its variables have the planned content",
    reach: Reach::Live,
    disruption: Disruption::IrqMove,
    settings: |ctx| {
        if !ctx.facts.irqbalance {
            return Ok(Vec::new());
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
         ExecStart={PROGRAM} recover\n\
         ExecStart={PROGRAM} apply --runtime --keep-going {PROFILE}\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}
