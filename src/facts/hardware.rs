//! What a machine must have for real-time guests and no program can set: processor, firmware, kernel build, libvirt.

use super::{cpu_list, line};
use crate::formats::{CpuSet, HostPath};
use crate::host::{Read, ReadError};

/// What was found. `None`: it is not shown, or the description of the machine does not tell.
#[derive(Debug, Clone, Default)]
pub struct Hardware {
    /// The flags of the first processor; `None` on other architectures than x86.
    pub flags: Option<Vec<String>>,
    /// The revision of its microcode.
    pub microcode: Option<String>,
    /// The protections that the kernel says it cannot give because microcode lacks.
    pub without_microcode: Vec<String>,
    /// System management interrupts of the boot CPU since it was switched on; an error says why not.
    pub smi: Option<Result<u64, ReadError>>,
    /// Cores that save power (`cpu_atom`) of a processor that has others too.
    pub efficiency_cores: Option<CpuSet>,
    /// Whether KVM's device is there.
    pub kvm: Option<bool>,
    /// Whether the running kernel has KVM's module, or has it built in.
    pub kvm_module: Option<bool>,
    /// Whether real-time threads in a control group need a share of their own (`CONFIG_RT_GROUP_SCHED`).
    pub rt_group_sched: Option<bool>,
    /// The version of libvirt's library.
    pub libvirt: Option<[u32; 3]>,
    /// `cgroup_controllers` of libvirt's qemu.conf, as it is written there; `None` within: it does not set them.
    pub cgroup_controllers: Option<Result<Option<String>, ReadError>>,
}

/// Enough of /proc/cpuinfo for the first processor.
const CPUINFO_HEAD: usize = 8192;

/// `MSR_SMI_COUNT`, on Intel's since Nehalem (Intel 64 Software Developer's Manual, volume 4).
const SMI_COUNT: u64 = 0x34;

/// Where distributions have libraries.
const LIBRARIES: [&str; 4] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];

impl Hardware {
    /// Reads it; `release` is the running kernel's.
    pub fn read(host: &dyn Read, release: Option<&str>, boot_cpu: u32) -> Hardware {
        use procfs::FromBufRead;
        let head = host.head(&HostPath::new("/proc/cpuinfo"), CPUINFO_HEAD).ok();
        let text = head.map(|head| head.text().into_owned()).unwrap_or_default();
        let first = text.split("\n\n").next().unwrap_or_default();
        let info = procfs::CpuInfo::from_buf_read(first.as_bytes()).ok();
        let words = |flags: Vec<&str>| flags.into_iter().map(str::to_owned).collect();
        let intel = info.as_ref().and_then(|info| info.vendor_id(0)) == Some("GenuineIntel");
        Hardware {
            flags: info.as_ref().and_then(|info| info.flags(0)).map(words),
            microcode: info.and_then(|info| info.get_field(0, "microcode").map(str::to_owned)),
            without_microcode: without_microcode(host),
            smi: intel.then(|| host.register(boot_cpu, SMI_COUNT)),
            efficiency_cores: cpu_list(host, &HostPath::new("/sys/devices/cpu_atom/cpus")),
            kvm: there(host, "/dev/kvm"),
            kvm_module: kvm_module(host, release),
            rt_group_sched: rt_group_sched(host, release),
            libvirt: LIBRARIES.into_iter().find_map(|dir| {
                let link = host.link(&HostPath::new(format!("{dir}/libvirt.so.0"))).ok()?;
                libvirt_version(&link)
            }),
            cgroup_controllers: Some(cgroup_controllers(host)),
        }
    }
}

/// Whether something is at a path, whatever it is.
fn there(host: &dyn Read, path: &str) -> Option<bool> {
    match host.head(&HostPath::new(path), 0) {
        Ok(_) | Err(ReadError::Unsuitable | ReadError::Refused(_)) => Some(true),
        Err(ReadError::Absent) => Some(false),
        Err(ReadError::Untold | ReadError::NoAnswer | ReadError::NoEthtool) => None,
    }
}

/// Source: Documentation/ABI/testing/sysfs-devices-system-cpu (vulnerabilities).
fn without_microcode(host: &dyn Read) -> Vec<String> {
    let dir = HostPath::new("/sys/devices/system/cpu/vulnerabilities");
    let names = host.list(&dir).unwrap_or_default();
    let lacks = |name: &&String| {
        let text = line(host, &dir.join(name)).unwrap_or_default().to_lowercase();
        text.contains("no microcode")
    };
    names.iter().filter(lacks).cloned().collect()
}

/// Loaded or built in, it is in /sys/module; else it is one of the kernel's files, compressed or not.
fn kvm_module(host: &dyn Read, release: Option<&str>) -> Option<bool> {
    let release = release?;
    if host.list(&HostPath::new("/sys/module/kvm")).is_ok() {
        return Some(true);
    }
    let is_there = |arch: &str| {
        let dir = HostPath::new(format!("/lib/modules/{release}/kernel/arch/{arch}/kvm"));
        let names = host.list(&dir).unwrap_or_default();
        names.iter().any(|name| name.starts_with("kvm.ko"))
    };
    // Where the modules cannot be seen nothing is known.
    host.list(&HostPath::new(format!("/lib/modules/{release}"))).ok()?;
    Some(is_there("x86"))
}

/// By the file that only such kernels have, else by how the kernel was built.
fn rt_group_sched(host: &dyn Read, release: Option<&str>) -> Option<bool> {
    if there(host, "/sys/fs/cgroup/cpu/cpu.rt_runtime_us") == Some(true) {
        return Some(true);
    }
    let config = HostPath::new(format!("/boot/config-{}", release?));
    let config = host.lines(&config, |line| line.contains("CONFIG_RT_GROUP_SCHED")).ok()?;
    Some(config.text().lines().any(|line| line.starts_with("CONFIG_RT_GROUP_SCHED=y")))
}

/// `libvirt.so.0.9000.0` is 9.0.0: the library's name has the version in it.
fn libvirt_version(target: &str) -> Option<[u32; 3]> {
    let (number, micro) = target.rsplit('/').next()?.strip_prefix("libvirt.so.0.")?.split_once('.')?;
    let number: u32 = number.parse().ok()?;
    Some([number / 1000, number % 1000, micro.parse().ok()?])
}

/// The value of the last line that sets it, up to the bracket that closes it, which may be lines below.
fn cgroup_controllers(host: &dyn Read) -> Result<Option<String>, ReadError> {
    // What is a comment by default, and passwords, are nobody's business.
    let wanted = |line: &str| {
        let line = line.trim_start();
        let set = !line.is_empty() && !line.starts_with('#');
        set && !["password", "secret"].iter().any(|word| line.contains(word))
    };
    let config = host.lines(&HostPath::new("/etc/libvirt/qemu.conf"), wanted)?;
    Ok(controllers_in(&config.text()))
}

fn controllers_in(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let sets = |line: &&str| {
        line.trim_start()
            .strip_prefix("cgroup_controllers")
            .is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let rest = lines[lines.iter().rposition(sets)?..].join(" ");
    let (_, value) = rest.split_once('=')?;
    let end = value.find(']').map_or(value.len(), |at| at + 1);
    Some(value[..end].trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_the_librarys_name() {
        assert_eq!(libvirt_version("libvirt.so.0.9000.0"), Some([9, 0, 0]));
        assert_eq!(libvirt_version("/usr/lib64/libvirt.so.0.10005.2"), Some([10, 5, 2]));
        assert_eq!(libvirt_version("libvirt.so.0"), None);
    }

    #[test]
    fn what_libvirt_was_told_may_span_lines() {
        let split = "user = 1\ncgroup_controllers = [ \"cpu\",\n  \"memory\" ]\ngroup = 1\n";
        assert_eq!(controllers_in(split).as_deref(), Some("[ \"cpu\",   \"memory\" ]"));
        assert_eq!(controllers_in("#cgroup_controllers = [ \"cpuset\" ]\n"), None);
    }
}
