//! The channels of a network interface, which have no file of their own: as many as receive queues, which are
//! directories. Source: Linux ABI/testing/sysfs-class-net-queues; ethtool(8) (-L).

use super::HostPath;

const NET: &str = "/sys/class/net/";
const QUEUES: &str = "/queues/rx-";

/// Where the number of an interface's channels is read: all of its receive queues.
pub fn path(interface: &str) -> HostPath {
    HostPath::new(format!("{NET}{interface}{QUEUES}*"))
}

/// The interface whose channels are read there; `None` as well where its name could be taken for something else.
pub fn interface(path: &HostPath) -> Option<&str> {
    let interface = path.as_str().strip_prefix(NET)?.strip_suffix('*')?.strip_suffix(QUEUES)?;
    is_plain(interface).then_some(interface)
}

/// The directory of an interface's queues, and how the names of those begin that count.
pub fn queues(interface: &str) -> (HostPath, &'static str) {
    (HostPath::new(format!("{NET}{interface}/queues")), "rx-")
}

/// Whether a name cannot be taken for an option, a pattern or several names.
fn is_plain(interface: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    interface.starts_with(|c: char| c.is_ascii_alphanumeric()) && interface.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_has_its_channels_in_one_place() {
        assert_eq!(interface(&path("eth0")), Some("eth0"));
        assert_eq!(interface(&path("enp3s0f1.100")), Some("enp3s0f1.100"));
        for other in ["/sys/class/net/eth0/queues/rx-0", "/queues/rx-*"] {
            assert_eq!(interface(&HostPath::new(other)), None, "{other}");
        }
        for odd in ["-L", "a b", "eth*", "a/b"] {
            assert_eq!(interface(&path(odd)), None, "{odd}");
        }
    }
}
