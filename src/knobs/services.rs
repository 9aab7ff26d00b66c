//! What sets again, at each boot, what a reboot forgets.

use super::{Disruption, Knob, Reach, Setting};
use crate::facts::PROGRAM;
use crate::formats::HostPath;
use crate::resources::{OwnedFile, Resource};

pub(super) const KNOBS: &[Knob] = &[BOOT_UNIT];

/// The applied profile, for the boot unit.
pub const PROFILE: &str = "/etc/rtkvm-tune/profile.toml";

/// The boot unit.
pub const UNIT: &str = "/etc/systemd/system/rtkvm-tune.service";

/// The link that enables it.
pub const WANTED_BY: &str = "/etc/systemd/system/multi-user.target.wants/rtkvm-tune.service";

/// The knob of the boot unit.
pub const BOOT_UNIT_KNOB: &str = BOOT_UNIT.id;

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
        let file = |path, content| Resource::File(OwnedFile { path, content, mode: 0o644 });
        let link = Resource::Link { path: HostPath::new(WANTED_BY), target: "../rtkvm-tune.service".into() };
        Ok(vec![
            Setting::new("profile kept for it", file(HostPath::new(PROFILE), ctx.source.text.clone())),
            Setting::new("unit", file(HostPath::new(UNIT), unit())),
            Setting::new("enabled", link),
        ])
    },
};

fn unit() -> String {
    format!(
        "# Written by rtkvm-tune; changes are lost at the next apply.\n\
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
         ExecStart={PROGRAM} recover\n\
         ExecStart={PROGRAM} apply --runtime --keep-going {PROFILE}\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}
