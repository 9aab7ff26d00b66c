//! The channels of a network interface, which have no file of their own: `ethtool` tells and sets them, and a path stands for
//! asking it. Source: ethtool(8) (-l, -L); Linux networking/ethtool-netlink.rst (CHANNELS_GET).

use super::HostPath;
use std::fmt;

const NET: &str = "/sys/class/net/";
const CHANNELS: &str = "/channels";

/// The channels that serve both directions: of others nothing is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    /// How many there are; 0 where all serve one direction.
    pub combined: u64,
    /// How many there can be; 0 where the driver has none.
    pub most: u64,
}

impl Channels {
    /// What `ethtool -l` prints: twice the same names, first with what can be and then with what is. Where there is none
    /// of a kind older versions print 0, newer ones `n/a`.
    pub fn of_ethtool(printed: &str) -> Option<Channels> {
        let mut found = printed.lines().filter_map(|line| line.strip_prefix("Combined:"));
        let mut next = || match found.next()?.trim() {
            "n/a" => Some(0),
            number => number.parse().ok(),
        };
        let (most, combined) = (next()?, next()?);
        Some(Channels { combined, most })
    }

    /// The text that a tree or a capture has of them, as it is displayed.
    pub fn parse(text: &str) -> Option<Channels> {
        let (combined, most) = text.trim().strip_prefix("combined ")?.split_once(" of ")?;
        Some(Channels { combined: combined.parse().ok()?, most: most.parse().ok()? })
    }
}

impl fmt::Display for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "combined {} of {}", self.combined, self.most)
    }
}

/// The path that stands for an interface's channels.
pub fn path(interface: &str) -> HostPath {
    HostPath::new(format!("{NET}{interface}{CHANNELS}"))
}

/// The interface whose channels a path stands for; `None` as well where its name could be taken for something else.
pub fn interface(path: &HostPath) -> Option<&str> {
    let interface = path.as_str().strip_prefix(NET)?.strip_suffix(CHANNELS)?;
    is_plain(interface).then_some(interface)
}

/// The directory of an interface's queues.
pub fn queues(interface: &str) -> HostPath {
    HostPath::new(format!("{NET}{interface}/queues"))
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
        for other in ["/sys/class/net/eth0/mtu", "/channels"] {
            assert_eq!(interface(&HostPath::new(other)), None, "{other}");
        }
        for odd in ["-L", "a b", "eth*", "a/b"] {
            assert_eq!(interface(&path(odd)), None, "{odd}");
        }
    }

    #[test]
    fn what_ethtool_prints_is_read() {
        let printed = |kinds: [&str; 4]| {
            let [rx, most, tx, now] = kinds;
            format!(
                "Channel parameters for eth0:\nPre-set maximums:\nRX:\t\t{rx}\nTX:\t\t{tx}\nOther:\t\t1\nCombined:\t{most}\n\
                 Current hardware settings:\nRX:\t\t{rx}\nTX:\t\t{tx}\nOther:\t\t1\nCombined:\t{now}\n"
            )
        };
        let found = |kinds| Channels::of_ethtool(&printed(kinds)).map(|found| (found.combined, found.most));
        assert_eq!(found(["n/a", "63", "n/a", "8"]), Some((8, 63)));
        assert_eq!(found(["0", "8", "0", "8"]), Some((8, 8)));
        assert_eq!(found(["4", "n/a", "1", "n/a"]), Some((0, 0)));
        assert_eq!(found(["4", "8", "4", "0"]), Some((0, 8)));
        assert_eq!(Channels::of_ethtool("Combined: 4\n"), None);
        assert_eq!(Channels::of_ethtool("Combined: 4\nCombined: many\n"), None);
        let text = Channels { combined: 8, most: 63 }.to_string();
        assert_eq!(Channels::parse(&text), Some(Channels { combined: 8, most: 63 }));
        assert_eq!(Channels::parse("8\n"), None);
    }
}
