//! Where systemd lets processes run. Source: systemd.resource-control(5), Linux admin-guide/cgroup-v2.rst (cpuset).

use crate::formats::{CpuSet, HostPath};
use crate::host::{Read, ReadError};

/// What confines processes.
#[derive(Debug, Clone)]
pub struct Manager {
    /// The CPUs of process 1, which every service inherits that has none of its own; an error says why they are not
    /// known.
    pub first: Result<CpuSet, ReadError>,
    /// Whether control groups are of version 2 and have CPUs; an error says why that is not known.
    pub cpusets: Result<bool, ReadError>,
    /// What processes of each of [`UNITS`] may use; `None`: nothing confines it yet.
    pub units: Vec<(&'static str, Option<CpuSet>)>,
}

/// What systemd divides a machine into, without machine.slice, where guests are.
pub const UNITS: [&str; 3] = ["init.scope", "system.slice", "user.slice"];

const ALLOWED: &str = "Cpus_allowed_list:";

impl Manager {
    /// Reads it.
    pub fn read(host: &dyn Read) -> Manager {
        let status = host.lines(&HostPath::new("/proc/1/status"), |line| line.starts_with(ALLOWED));
        let first = status.and_then(|file| {
            let text = file.text();
            let list = text.trim().strip_prefix(ALLOWED).unwrap_or_default();
            CpuSet::parse_kernel_list(list.trim()).map_err(|_| ReadError::Unsuitable)
        });
        let controllers = host.file(&HostPath::new("/sys/fs/cgroup/cgroup.controllers"));
        let cpusets = match controllers {
            Ok(file) => Ok(file.text().split_whitespace().any(|name| name == "cpuset")),
            Err(ReadError::Absent) => Ok(false),
            Err(error) => Err(error),
        };
        let unit = |name: &'static str| {
            let path = HostPath::new(format!("/sys/fs/cgroup/{name}/cpuset.cpus.effective"));
            (name, super::cpu_list(host, &path))
        };
        Manager { first, cpusets, units: UNITS.map(unit).into() }
    }
}
