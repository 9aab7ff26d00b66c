//! What the first processor is, and what the kernel says of its clock, its threads and its error reports. The others
//! are taken to be the same.

use super::kernel::{CPUINFO, CPUINFO_HEAD};
use super::{Cpus, line};
use crate::formats::HostPath;
use crate::host::{Read, ReadError};
use procfs::FromBufRead;

/// The processor. `None` and empty: not known, or not on this architecture.
#[derive(Debug, Clone, Default)]
pub struct Processor {
    /// `vendor_id` of /proc/cpuinfo; x86 alone has one.
    pub vendor: Option<String>,
    /// Its flags.
    pub flags: Vec<String>,
    /// The clock that the kernel uses now.
    pub clock: Option<String>,
    /// The kernel's word on SMT: `on`, `off`, `forceoff`, `notsupported`, `notimplemented`.
    pub smt: Option<String>,
    /// The switch for reports of corrected errors, one for the whole machine though each CPU shows it; or why there
    /// is none.
    pub ignore_corrected: Option<Result<HostPath, ReadError>>,
}

/// The clock in use (Linux ABI/testing/sysfs-devices-clocksource).
const CLOCK: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// Whether and how SMT is on (Linux ABI/testing/sysfs-devices-system-cpu).
pub const SMT: &str = "/sys/devices/system/cpu/smt/control";

impl Processor {
    /// Reads it.
    pub fn read(host: &dyn Read, cpus: &Cpus) -> Processor {
        let head = host.head(&HostPath::new(CPUINFO), CPUINFO_HEAD).ok();
        let text = head.as_ref().map(|file| file.text().into_owned()).unwrap_or_default();
        let first = text.split("\n\n").next().unwrap_or_default();
        let info = procfs::CpuInfo::from_buf_read(first.as_bytes()).ok();
        let flags = info.as_ref().and_then(|info| info.flags(0)).unwrap_or_default();
        let first = cpus.online.first().unwrap_or(0);
        let switch = HostPath::new(format!("/sys/devices/system/machinecheck/machinecheck{first}/ignore_ce"));
        Processor {
            vendor: info.as_ref().and_then(|info| info.vendor_id(0)).map(str::to_owned),
            flags: flags.into_iter().map(str::to_owned).collect(),
            clock: line(host, &HostPath::new(CLOCK)),
            smt: line(host, &HostPath::new(SMT)),
            ignore_corrected: Some(host.file(&switch).map(|_| switch)),
        }
    }

    /// Whether it has a flag.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|own| own == flag)
    }

    /// Whether Intel made it.
    pub fn is_intel(&self) -> bool {
        self.vendor.as_deref() == Some("GenuineIntel")
    }

    /// Whether AMD, or Hygon after it, made it.
    pub fn is_amd(&self) -> bool {
        matches!(self.vendor.as_deref(), Some("AuthenticAMD" | "HygonGenuine"))
    }
}
