//! Machines of any size as folders, grown from the recorded reference machine: whatever rtkvm-tune reads of
//! that, it finds here as well.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use rtkvm_tune::host::{Entry, Snapshot};

use crate::shell::root;

/// The CPUs of a node, of a socket (which shares its last cache), and the interrupts for each CPU.
const NODE: u32 = 32;
const SOCKET: u32 = 8;
const IRQS: u32 = 16;

/// A folder that is removed with this value unless it is kept.
pub(crate) struct Tree {
    /// The root of the machine.
    pub(crate) folder: PathBuf,
    /// Whether it stays.
    pub(crate) kept: bool,
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("warning: cannot remove {}: {error}", self.folder.display());
        }
    }
}

impl Tree {
    /// A machine with this many CPUs, a multiple of 32, in nodes of 32, with 16 interrupts for each CPU.
    pub(crate) fn grow(cpus: u32) -> Result<Tree> {
        let name = format!("rtkvm-tune-bench-{}-{cpus}", std::process::id());
        let tree = Tree { folder: std::env::temp_dir().join(name), kept: false };
        fs::create_dir(&tree.folder).with_context(|| format!("cannot make {}", tree.folder.display()))?;
        let capture = root().join("tests/captures/reference.capture");
        let text =
            fs::read_to_string(&capture).with_context(|| format!("cannot read {}", capture.display()))?;
        let machine =
            Snapshot::from_capture(&text).map_err(|error| anyhow!("{}: {error}", capture.display()))?;
        for (path, entry) in machine.entries() {
            tree.take_over(path.as_str(), &entry, cpus)?;
        }
        Ok(tree)
    }

    /// One thing of the recorded machine. What belongs to its CPU 0, node 0 or interrupt 1 is made for all of
    /// the grown one; what belongs to others is left.
    fn take_over(&self, path: &str, entry: &Entry, cpus: u32) -> Result<()> {
        let (text, mode) = match entry {
            Entry::File(file) => (file.text().into_owned(), file.mode),
            Entry::Link(target) => return self.link(path, target),
            Entry::List(names) => return self.folders(path, names, cpus),
            Entry::Error(_) => return Ok(()),
        };
        let Some((before, kind, number, after)) = numbered(path) else {
            return self.put(path, &whole(path, cpus).unwrap_or(text), mode);
        };
        let count = match (kind, number) {
            ("cpu", 0) => cpus,
            ("node", 0) => cpus / NODE,
            ("irq/", 1) => cpus * IRQS,
            _ => return Ok(()),
        };
        for new in 0..count {
            let content = match kind {
                "cpu" => of_cpu(after, new, &text),
                "node" => of_node(after, new, cpus, &text),
                _ => of_irq(after, new, cpus, &text),
            };
            self.put(&format!("{before}{kind}{new}{after}"), &content, mode)?;
        }
        Ok(())
    }

    /// An empty folder is what remains of a list; those that belong to a CPU are made for each.
    fn folders(&self, path: &str, names: &[String], cpus: u32) -> Result<()> {
        let Some((before, "cpu", 0, after)) = numbered(path) else { return Ok(()) };
        for cpu in 0..cpus {
            for name in names.iter().filter(|name| name.starts_with("index")) {
                fs::create_dir_all(self.at(&format!("{before}cpu{cpu}{after}/{name}")))?;
            }
        }
        Ok(())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.join(path.trim_start_matches('/'))
    }

    fn link(&self, path: &str, target: &str) -> Result<()> {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap_or(Path::new("/")))?;
        Ok(symlink(target, at)?)
    }

    fn put(&self, path: &str, text: &str, mode: u32) -> Result<()> {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap_or(Path::new("/")))?;
        fs::write(&at, text).with_context(|| format!("cannot write {}", at.display()))?;
        Ok(fs::set_permissions(&at, fs::Permissions::from_mode(mode))?)
    }
}

/// Splits `/a/cpu12/b` into `/a/`, `cpu`, 12 and `/b`; also for `node` and `irq/`.
fn numbered(path: &str) -> Option<(&str, &str, u32, &str)> {
    ["/cpu/cpu", "/node/node", "/irq/"].into_iter().find_map(|pattern| {
        let digits = path.find(pattern)? + pattern.len();
        let after = path[digits..].find('/').map_or(path.len(), |length| digits + length);
        let number = path[digits..after].parse().ok()?;
        let kind = pattern.trim_start_matches("/cpu/").trim_start_matches("/node/").trim_start_matches('/');
        Some((&path[..digits - kind.len()], kind, number, &path[after..]))
    })
}

/// What describes the machine as a whole; none for what is the same on every machine.
fn whole(path: &str, cpus: u32) -> Option<String> {
    Some(match path {
        "/sys/devices/system/cpu/online"
        | "/sys/devices/system/cpu/possible"
        | "/sys/devices/system/cpu/present" => {
            format!("0-{}\n", cpus - 1)
        }
        "/sys/devices/system/node/online" => format!("0-{}\n", cpus / NODE - 1),
        "/proc/irq/default_smp_affinity" => {
            format!("{}\n", vec!["ffffffff"; cpus.div_ceil(32) as usize].join(","))
        }
        _ => return None,
    })
}

fn range(first: u32, count: u32) -> String {
    format!("{first}-{}\n", first + count - 1)
}

fn of_cpu(file: &str, cpu: u32, text: &str) -> String {
    match file.rsplit('/').next() {
        Some("shared_cpu_list") => range(cpu / SOCKET * SOCKET, SOCKET),
        Some("core_cpus_list") => format!("{cpu}\n"),
        Some("core_id") => format!("{}\n", cpu % SOCKET),
        Some("physical_package_id") => format!("{}\n", cpu / SOCKET),
        _ => text.to_owned(),
    }
}

fn of_node(file: &str, node: u32, cpus: u32, text: &str) -> String {
    match file {
        "/cpulist" => range(node * NODE, NODE),
        "/meminfo" => text.replace("Node 0 ", &format!("Node {node} ")),
        "/distance" => {
            let far = |other| if other == node { "10" } else { "21" };
            (0..cpus / NODE).map(far).collect::<Vec<_>>().join(" ") + "\n"
        }
        _ => text.to_owned(),
    }
}

fn of_irq(file: &str, irq: u32, cpus: u32, text: &str) -> String {
    let node = irq % (cpus / NODE);
    match file {
        "/smp_affinity_list" => range(node * NODE, NODE),
        "/effective_affinity_list" => format!("{}\n", node * NODE + irq / (cpus / NODE) % NODE),
        "/node" => format!("{node}\n"),
        "/actions" => format!("eth{}-TxRx-{}\n", irq / 64, irq % 64),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_paths_are_found() {
        let cpu = "/sys/devices/system/cpu/cpu12/topology/die_id";
        assert_eq!(numbered(cpu), Some(("/sys/devices/system/cpu/", "cpu", 12, "/topology/die_id")));
        assert_eq!(numbered("/proc/irq/3/node"), Some(("/proc/", "irq/", 3, "/node")));
        let node = "/sys/devices/system/node/node0/cpulist";
        assert_eq!(numbered(node), Some(("/sys/devices/system/node/", "node", 0, "/cpulist")));
        assert_eq!(numbered("/sys/devices/system/cpu/online"), None);
        assert_eq!(numbered("/proc/irq/default_smp_affinity"), None);
    }

    #[test]
    fn a_grown_machine_is_read_as_what_it_is() {
        let tree = Tree::grow(64).unwrap();
        let read = |path: &str| fs::read_to_string(tree.at(path)).unwrap();
        assert_eq!(read("/sys/devices/system/cpu/online"), "0-63\n");
        assert_eq!(read("/sys/devices/system/node/node1/cpulist"), "32-63\n");
        assert_eq!(read("/sys/devices/system/node/node1/distance"), "21 10\n");
        assert!(read("/sys/devices/system/node/node1/meminfo").starts_with("Node 1 MemTotal:"));
        assert_eq!(read("/sys/devices/system/cpu/cpu63/topology/physical_package_id"), "7\n");
        assert_eq!(fs::read_dir(tree.at("/proc/irq")).unwrap().count(), 64 * 16 + 1);
    }
}
