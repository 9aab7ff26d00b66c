//! Others that set what this program sets, by the files they keep.

use super::{Service, text};
use crate::formats::kernel_args::KernelArgs;
use crate::formats::{CpuSet, HostPath, shell_vars};
use crate::host::{Read, ReadError};
use serde::Serialize;
use std::rc::Rc;

/// Others that keep settings on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Owners {
    /// TuneD, where it is or was at work.
    pub tuned: Option<Tuned>,
    /// Whether a timer asks for new firmware.
    pub fwupd: bool,
    /// Whether systemd-oomd is started at boot. It does not start without pressure stalls (systemd-oomd.service(8)).
    #[serde(skip)]
    pub oomd: bool,
    /// Whether somebody put a unit file of irqbalance where its mask would be.
    pub irqbalance_unit: bool,
    /// What irqbalance was told by a variable, which replaces what it spares by itself.
    pub banned: Option<Banned>,
}

/// TuneD's state. Source: tuned-adm(8), tuned/consts.py of TuneD 2.20.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tuned {
    /// Its active profile; empty after `tuned-adm off`.
    pub profile: String,
    /// Its daemon.
    pub pid: Option<u32>,
    /// Whether its unit is started at boot.
    pub enabled: bool,
    /// Whether its unit is masked, so that nothing starts it.
    pub masked: bool,
    /// Whether somebody put a unit file of their own where the mask would be.
    pub own_unit: bool,
    /// The kernel arguments that it gives every boot entry (`$tuned_params`).
    #[serde(serialize_with = "as_text")]
    pub arguments: KernelArgs,
}

/// The CPUs that irqbalance spares by a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Banned {
    /// The file that sets it.
    pub file: &'static str,
    /// The CPUs.
    pub cpus: CpuSet,
}

fn as_text<S: serde::Serializer>(args: &KernelArgs, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(args)
}

/// Where a unit is masked: a link to /dev/null (systemctl(1)).
pub const TUNED_UNIT: &str = "/etc/systemd/system/tuned.service";
/// Where irqbalance's is.
pub const IRQBALANCE_UNIT: &str = "/etc/systemd/system/irqbalance.service";
/// The target of that link.
pub const MASK: &str = "/dev/null";
/// What TuneD gives the boot entries.
pub const TUNED_ARGUMENTS: &str = "/etc/tuned/bootcmdline";
const TUNED_WANTED: &str = "/etc/systemd/system/multi-user.target.wants/tuned.service";
const TUNED_PROFILE: &str = "/etc/tuned/active_profile";
const OOMD_UNIT: &str = "/etc/systemd/system/systemd-oomd.service";
const OOMD_WANTED: &str = "/etc/systemd/system/multi-user.target.wants/systemd-oomd.service";
const FWUPD: &str = "/etc/systemd/system/timers.target.wants/fwupd-refresh.timer";
/// Of Debian and Ubuntu, and of Red Hat and SUSE.
const IRQBALANCE: [&str; 2] = ["/etc/default/irqbalance", "/etc/sysconfig/irqbalance"];

impl Owners {
    /// Reads them; `services` are those that run.
    pub fn read(host: &dyn Read, services: &[Service]) -> Owners {
        Owners {
            tuned: Tuned::read(host, services),
            irqbalance_unit: has_own(&host.link(&HostPath::new(IRQBALANCE_UNIT))),
            oomd: host.link(&HostPath::new(OOMD_WANTED)).is_ok()
                && host.link(&HostPath::new(OOMD_UNIT)).as_deref() != Ok(MASK),
            fwupd: host.link(&HostPath::new(FWUPD)).is_ok(),
            banned: IRQBALANCE.into_iter().find_map(|file| Banned::read(host, file)),
        }
    }
}

/// Whether there is something else than a mask.
fn has_own(mask: &Result<Rc<str>, ReadError>) -> bool {
    !matches!(mask.as_deref(), Ok(MASK) | Err(ReadError::Absent | ReadError::Untold))
}

impl Tuned {
    fn read(host: &dyn Read, services: &[Service]) -> Option<Tuned> {
        let read = |path: &str| text(host, &HostPath::new(path)).unwrap_or_default();
        let mask = host.link(&HostPath::new(TUNED_UNIT));
        let arguments = shell_vars::parse(&read(TUNED_ARGUMENTS));
        let tuned = Tuned {
            profile: read(TUNED_PROFILE).trim().to_owned(),
            pid: services.iter().find(|service| service.name == "tuned").map(|service| service.pid),
            enabled: host.link(&HostPath::new(TUNED_WANTED)).is_ok(),
            masked: mask.as_deref() == Ok(MASK),
            own_unit: has_own(&mask),
            arguments: KernelArgs::parse(arguments.text("TUNED_BOOT_CMDLINE").unwrap_or_default()),
        };
        let is_there = !tuned.profile.is_empty() || tuned.masked || tuned.arguments.tokens().next().is_some();
        is_there.then_some(tuned)
    }

    /// Whether it sets things now or will after a boot.
    pub fn is_active(&self) -> bool {
        !self.profile.is_empty() && (self.pid.is_some() || (self.enabled && !self.masked))
    }
}

impl Banned {
    /// The list goes before the mask, which newer ones discard (irqbalance(1)). An empty variable is as none.
    fn read(host: &dyn Read, file: &'static str) -> Option<Banned> {
        let vars = shell_vars::parse(&text(host, &HostPath::new(file))?);
        let set = |name: &str| vars.text(name).filter(|value| !value.is_empty());
        let list = set("IRQBALANCE_BANNED_CPULIST").map(CpuSet::parse_kernel_list);
        let cpus = list.or_else(|| set("IRQBALANCE_BANNED_CPUS").map(CpuSet::parse_mask))?.ok()?;
        Some(Banned { file, cpus })
    }
}
