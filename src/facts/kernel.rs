//! The running kernel, the processor as it sees it, and the operating system.

use super::{KernelLog, line, text};
use crate::formats::kernel_args::KernelArgs;
use crate::formats::{CpuSet, HostPath, shell_vars};
use crate::host::{Read, ReadError};
use serde::Serialize;

/// The running kernel and what it runs on. `None`: the machine description does not tell.
#[derive(Debug, Clone, Serialize)]
pub struct Kernel {
    /// `uname -r`.
    pub release: Option<String>,
    /// Whether it is a PREEMPT_RT kernel.
    pub preempt_rt: Option<bool>,
    /// The command line it was started with.
    #[serde(serialize_with = "as_text")]
    pub command_line: Option<KernelArgs>,
    /// The name that the kernel gave to this boot: random(4), `boot_id`.
    #[serde(skip)]
    pub boot_id: Option<String>,
    /// What the processor is; x86_64 where nothing tells.
    pub architecture: Architecture,
    /// Whether the processor has 1 GiB pages (`pdpe1gb`); `None` on other architectures than x86.
    pub gigabyte_pages: Option<bool>,
    /// What it logged about its arguments.
    pub log: KernelLog,
    /// Why the fair server of CPU 0 cannot be read; `None`: it can.
    #[serde(skip)]
    pub no_fair_server: Option<String>,
    /// The workqueues with a CPU mask of their own.
    pub workqueues: Vec<String>,
    /// The CPUs that unbound work was asked to keep to, and those it keeps to: fewer where a cpuset partition has some.
    /// `None` before Linux 6.8, which shows the latter only.
    #[serde(skip)]
    pub unbound_work: Option<(CpuSet, CpuSet)>,
    /// Whether it accounts for pressure stalls (PSI): it does where [`PRESSURE`] can be read.
    #[serde(skip)]
    pub pressure: bool,
    /// `PRETTY_NAME` of os-release(5).
    pub os: Option<String>,
    /// `ID` and `ID_LIKE` of os-release(5).
    pub os_family: Vec<String>,
}

/// The processors that guests are rendered for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// Intel and AMD.
    #[default]
    #[serde(rename = "x86_64")]
    X86,
    /// 64-bit ARM.
    Aarch64,
}

impl Architecture {
    /// libvirt's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::X86 => "x86_64",
            Architecture::Aarch64 => "aarch64",
        }
    }
}

fn as_text<S: serde::Serializer>(args: &Option<KernelArgs>, serializer: S) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&args.as_ref().map(ToString::to_string), serializer)
}

/// What the kernel knows of the processors.
pub(super) const CPUINFO: &str = "/proc/cpuinfo";

/// Enough of it for the first processor: about 1.5 KiB on x86.
pub(super) const CPUINFO_HEAD: usize = 8192;

impl Kernel {
    /// Reads the kernel's own words.
    pub fn read(host: &dyn Read) -> Kernel {
        let sysctl = |name: &str| line(host, &HostPath::new(format!("/proc/sys/kernel/{name}")));
        let release_file = ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .find_map(|path| text(host, &HostPath::new(*path)));
        let os = shell_vars::parse(&release_file.unwrap_or_default());
        let words = ["ID", "ID_LIKE"].iter().filter_map(|name| os.text(name));
        Kernel {
            release: sysctl("osrelease"),
            preempt_rt: is_realtime(sysctl("version"), line(host, &HostPath::new("/sys/kernel/realtime"))),
            command_line: text(host, &HostPath::new("/proc/cmdline")).map(|text| KernelArgs::parse(&text)),
            architecture: architecture(host),
            gigabyte_pages: gigabyte_pages(host),
            log: KernelLog::read(host),
            no_fair_server: no_fair_server(host),
            workqueues: workqueues(host),
            unbound_work: unbound_work(host),
            pressure: host.head(&HostPath::new(PRESSURE), 0).is_ok(),
            os: os.text("PRETTY_NAME").map(str::to_owned),
            boot_id: sysctl("random/boot_id"),
            os_family: words.flat_map(str::split_whitespace).map(str::to_owned).collect(),
        }
    }
}

/// Why it cannot be read: debugfs is root's alone, and lockdown closes it.
fn no_fair_server(host: &dyn Read) -> Option<String> {
    match host.file(&fair_server(0)).err()? {
        ReadError::Absent => Some("the kernel has none, or debugfs is not mounted".into()),
        error => Some(format!("{}: {error}", fair_server(0))),
    }
}

/// The time that other threads than real-time ones get of each second on a CPU, in ns (Linux 6.12,
/// scheduler/sched-deadline.rst). It is in debugfs.
pub fn fair_server(cpu: u32) -> HostPath {
    HostPath::new(format!("/sys/kernel/debug/sched/fair_server/cpu{cpu}/runtime"))
}

/// How long tasks waited for a CPU (Linux accounting/psi.rst). Without PSI it is not there; in older kernels it is, with
/// `psi=0` as well, and each read fails.
pub const PRESSURE: &str = "/proc/pressure/cpu";

/// Where the kernel shows its workqueues (Linux core-api/workqueue.rst).
pub const WORKQUEUES: &str = "/sys/devices/virtual/workqueue";

/// The CPUs of all that have no mask of their own.
pub const WORKQUEUE_MASK: &str = "/sys/devices/virtual/workqueue/cpumask";

/// Beside the mask of all there is a directory for each workqueue; the mask of a bound one is not shown.
fn workqueues(host: &dyn Read) -> Vec<String> {
    let dir = HostPath::new(WORKQUEUES);
    let names = host.list(&dir).unwrap_or_default();
    let names = names.iter().filter(|name| !name.starts_with("cpumask") && *name != "uevent");
    names.filter(|name| host.file(&dir.join(name).join("cpumask")).is_ok()).cloned().collect()
}

/// Source: Linux kernel/workqueue.c (wq_requested_unbound_cpumask).
fn unbound_work(host: &dyn Read) -> Option<(CpuSet, CpuSet)> {
    let mask = |path: &HostPath| CpuSet::parse_mask(&text(host, path)?).ok();
    let asked = mask(&HostPath::new(WORKQUEUES).join("cpumask_requested"))?;
    Some((asked, mask(&HostPath::new(WORKQUEUE_MASK))?))
}

/// `/sys/kernel/realtime` says it on patched kernels; mainline says it in its version only. `PREEMPT_DYNAMIC`
/// is not real-time.
fn is_realtime(version: Option<String>, file: Option<String>) -> Option<bool> {
    if file.as_deref() == Some("1") {
        return Some(true);
    }
    version.map(|version| version.contains("PREEMPT_RT") || version.contains("PREEMPT RT"))
}

/// Only ARM's /proc/cpuinfo has implementers (arch/arm64/kernel/cpuinfo.c).
fn architecture(host: &dyn Read) -> Architecture {
    let head = host.head(&HostPath::new("/proc/cpuinfo"), CPUINFO_HEAD);
    match head.is_ok_and(|head| head.text().contains("CPU implementer")) {
        true => Architecture::Aarch64,
        false => Architecture::X86,
    }
}

fn gigabyte_pages(host: &dyn Read) -> Option<bool> {
    use procfs::FromBufRead;
    let head = host.head(&HostPath::new(CPUINFO), CPUINFO_HEAD).ok()?;
    let text = head.text();
    let first = text.split("\n\n").next()?;
    let info = procfs::CpuInfo::from_buf_read(first.as_bytes()).ok()?;
    let flags = info.flags(0)?;
    Some(flags.contains(&"pdpe1gb"))
}

#[cfg(test)]
mod tests {
    use super::is_realtime;

    #[test]
    fn real_time_is_not_guessed() {
        let version = |text: &str| Some(text.to_owned());
        assert_eq!(is_realtime(version("#1 SMP PREEMPT_RT Debian 6.1.1"), None), Some(true));
        assert_eq!(is_realtime(version("#1 SMP PREEMPT RT"), None), Some(true));
        assert_eq!(is_realtime(version("#1 SMP PREEMPT_DYNAMIC"), None), Some(false));
        assert_eq!(is_realtime(version("#1 SMP"), version("1")), Some(true));
        assert_eq!(is_realtime(None, None), None);
    }
}
