//! How the processor saves power: what there is to be set. Source: Linux admin-guide/pm.

use super::Cpus;
use crate::formats::HostPath;
use crate::host::{Read, ReadError};

/// What the kernel lets be set of it.
#[derive(Debug, Clone, Default)]
pub struct Power {
    /// Why CPUs take no bound on the time they need to wake; `None`: they do. The first online one is asked.
    pub no_resume_latency: Option<ReadError>,
}

/// The longest time that a CPU may take to wake (Linux ABI/testing/sysfs-devices-power).
pub fn resume_latency(cpu: u32) -> HostPath {
    HostPath::new(format!("/sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us"))
}

impl Power {
    /// Reads what there is.
    pub fn read(host: &dyn Read, cpus: &Cpus) -> Power {
        let first = cpus.online.first().unwrap_or(0);
        Power { no_resume_latency: host.file(&resume_latency(first)).err() }
    }
}
