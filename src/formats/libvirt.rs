//! Which libvirt: a connection URI (<https://libvirt.org/uri.html>), and where it has a guest's definition.

use super::HostPath;
use std::fmt::Write;

/// A libvirt with a QEMU driver, by its URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Connection(String);

/// The system's own libvirt.
const SYSTEM: &str = "qemu:///system";

/// Where the system's libvirt keeps its definitions (<https://libvirt.org/drvqemu.html>).
const FILES: &str = "/etc/libvirt/qemu";

/// The directory there with a link for each guest that is started with the host.
const AUTOSTART: &str = "autostart";

/// Below it stand the definitions of every other libvirt, which only that libvirt itself can read: no such directory
/// is ever made.
const ANSWERED: &str = "/.libvirt";

/// How a connection may be made. `ext` would run any program.
const TRANSPORTS: [&str; 4] = ["unix", "tcp", "tls", "ssh"];

/// What a URI may ask for. Others of libvirt's parameters run a program.
const PARAMETERS: [&str; 6] = ["socket", "mode", "root", "pkipath", "keyfile", "known_hosts"];

/// How a URI names the machine it is used on.
const HERE: [&str; 4] = ["", "localhost", "127.0.0.1", "[::1]"];

/// Longer than any that is meant, in bytes.
const LONGEST: usize = 255;

impl serde::Serialize for Connection {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Default for Connection {
    fn default() -> Connection {
        Connection(SYSTEM.into())
    }
}

impl Connection {
    /// A URI of QEMU's driver, safe as a program's argument: `qemu[+TRANSPORT]://[[USER@]HOST[:PORT]]/PATH[?PARAMETERS]`.
    ///
    /// # Errors
    /// What is wrong with it, and the remedy.
    pub fn parse(text: &str) -> Result<Connection, String> {
        if text.len() > LONGEST {
            return Err(format!("a libvirt URI has at most {LONGEST} bytes, not {}", text.len()));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "+:/?=&%._~@[]-".contains(c);
        if let Some(c) = text.chars().find(|c| !plain(*c)) {
            let shown =
                if c.is_ascii_graphic() { format!("`{c}`") } else { format!("U+{:04X}", u32::from(c)) };
            return Err(format!("a libvirt URI has no {shown}: write it as %XX"));
        }
        let wrong = || format!("expected a URI of libvirt's QEMU driver, as \"{SYSTEM}\"");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (driver, transport) = match scheme.split_once('+') {
            Some((driver, transport)) => (driver, Some(transport)),
            None => (scheme, None),
        };
        if driver != "qemu" {
            return Err(wrong());
        }
        if let Some(transport) = transport.filter(|transport| !TRANSPORTS.contains(transport)) {
            return Err(format!(
                "transport `{transport}` is not supported: use one of {}",
                TRANSPORTS.join(", ")
            ));
        }
        let (host, path) = rest.split_once('/').ok_or_else(wrong)?;
        // libvirt ends the host at other characters too, and ssh would take a name that begins with a dash for an option.
        let (user, name) = host.split_once('@').unwrap_or(("", host));
        let of_user = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let of_host = |c: char| c.is_ascii_alphanumeric() || "._-:[]%".contains(c);
        if [user, name].iter().any(|part| part.starts_with('-'))
            || !user.chars().all(of_user)
            || !name.chars().all(of_host)
        {
            return Err(format!("`{host}` is no host"));
        }
        let is_port = |port: &str| port.chars().all(|c| c.is_ascii_digit());
        let is = |local: &str| match name.strip_prefix(local) {
            Some("") => true,
            Some(rest) => rest.strip_prefix(':').is_some_and(is_port),
            None => false,
        };
        if !HERE.into_iter().any(is) {
            return Err(format!(
                "`{host}` is another machine's libvirt, and guests are planned for this one: run rtkvm-tune there; if it \
                 is this machine, write `localhost`"
            ));
        }
        let parameters = path.split_once('?').map_or("", |(_, parameters)| parameters);
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let name = parameter.split('=').next().unwrap_or_default();
            if !PARAMETERS.contains(&name) {
                let known = PARAMETERS.join(", ");
                return Err(format!("parameter `{name}` is not supported: use {known}"));
            }
        }
        Ok(Connection(text.into()))
    }

    /// The URI.
    pub fn uri(&self) -> &str {
        &self.0
    }

    /// Whether it is the system's own libvirt.
    pub fn is_system(&self) -> bool {
        self.0 == SYSTEM
    }

    /// Where it has the definition of a guest: a file, or for another libvirt than the system's a name that stands
    /// for asking it.
    ///
    /// # Panics
    /// As [`HostPath::new`]: names are checked before.
    pub fn definition(&self, name: &str) -> HostPath {
        HostPath::new(format!("{}/{name}.xml", self.directory()))
    }

    /// The directory of its definitions: one with files, or for another libvirt than the system's a name that stands
    /// for asking it.
    pub fn definitions(&self) -> HostPath {
        HostPath::new(self.directory())
    }

    /// Where it has a link to the definition of a guest that it starts by itself: a link, or for another libvirt than
    /// the system's a name that stands for asking it.
    ///
    /// # Panics
    /// As [`HostPath::new`]: names are checked before.
    pub fn autostart(&self, name: &str) -> HostPath {
        HostPath::new(format!("{}/{AUTOSTART}/{name}.xml", self.directory()))
    }

    fn directory(&self) -> String {
        if self.is_system() {
            return FILES.into();
        }
        let mut encoded = String::new();
        for byte in self.0.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' => encoded.push(byte.into()),
                _ => write!(encoded, "%{byte:02x}").expect("a String takes all"),
            }
        }
        format!("{ANSWERED}/{encoded}")
    }

    /// The libvirt and the guest whose definition a path is; `None` for any other path.
    pub fn of_definition(path: &HostPath) -> Option<(Connection, &str)> {
        let named = |rest: &'_ str| rest.strip_suffix(".xml").is_some_and(|name| !name.is_empty());
        if let Some(rest) = path.as_str().strip_prefix(FILES).and_then(|rest| rest.strip_prefix('/')) {
            let name = rest.strip_suffix(".xml").filter(|name| !name.contains('/') && named(rest))?;
            return Some((Connection::default(), name));
        }
        let rest = path.as_str().strip_prefix(ANSWERED)?.strip_prefix('/')?;
        let (encoded, file) = rest.split_once('/')?;
        let name = file.strip_suffix(".xml").filter(|name| !name.contains('/') && named(file))?;
        let connection = Connection::parse(&decode(encoded)?).ok()?;
        // One name for one libvirt.
        (connection.definition(name) == *path && !connection.is_system()).then_some((connection, name))
    }

    /// The libvirt that a path stands for asking for all its definitions; `None` for any other path.
    pub fn of_definitions(path: &HostPath) -> Option<Connection> {
        let (connection, _) = Connection::of_definition(&path.join("-.xml"))?;
        (!connection.is_system()).then_some(connection)
    }

    /// The libvirt and the guest whose start a path is about; `None` for any other path.
    pub fn of_autostart(path: &HostPath) -> Option<(Connection, &str)> {
        let (dir, file) = path.split();
        let (above, name) = dir.as_ref()?.split();
        let definition = above.filter(|_| name == AUTOSTART)?.join(file);
        let (connection, _) = Connection::of_definition(&definition)?;
        Some((connection, file.strip_suffix(".xml")?))
    }

    /// Whether a path stands for asking a libvirt, and is no file.
    pub fn is_asked(path: &HostPath) -> bool {
        path.is_below(&HostPath::new(ANSWERED))
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_qemu_that_runs_no_program_is_taken() {
        for uri in [
            "qemu:///system",
            "qemu:///session",
            "qemu+unix:///system?socket=/run/other/libvirt-sock",
            "qemu+ssh://root@localhost:2222/system?keyfile=/root/.ssh/id",
            "qemu+tcp://127.0.0.1/system",
            "qemu+tls://[::1]:16514/system",
            "qemu:///embed?root=/srv/embed",
        ] {
            assert_eq!(Connection::parse(uri).map(|c| c.0), Ok(uri.to_owned()));
        }
        for (uri, word) in [
            ("", "expected a URI"),
            ("qemu", "expected a URI"),
            ("--help://", "expected a URI"),
            ("xen:///system", "expected a URI"),
            ("test:///default", "expected a URI"),
            ("qemu://host", "expected a URI"),
            ("qemu+ext:///system?command=/bin/sh", "transport `ext`"),
            ("qemu+ssh://localhost/system?command=/tmp/x", "parameter `command`"),
            ("qemu+ssh://localhost/system?netcat=/tmp/x", "parameter `netcat`"),
            ("qemu+ssh://root@host.example/system", "another machine's libvirt"),
            ("qemu+tls://[2001%3Adb8::1]/system", "another machine's libvirt"),
            ("qemu+tcp://localhost.example/system", "another machine's libvirt"),
            // Where libvirt ends the host, and reads the rest as parameters or as another host.
            ("qemu+ssh://localhost:22?command=/tmp/x", "is no host"),
            ("qemu+ssh://localhost?netcat=/tmp/x", "is no host"),
            ("qemu+ssh://host.example?@localhost/system", "is no host"),
            ("qemu+ssh://a@b@localhost/system", "is no host"),
            ("qemu+ssh://localhost:22x/system", "another machine's libvirt"),
            ("qemu+ssh://localhost1/system", "another machine's libvirt"),
            ("qemu+ssh://-oProxyCommand=x/system", "is no host"),
            ("qemu+ssh://a@-oProxyCommand=x/system", "is no host"),
            ("qemu:///system x", "no U+0020"),
            ("qemu:///sys;tem", "no `;`"),
            ("qemu:///system\n", "no U+000A"),
        ] {
            let error = Connection::parse(uri).unwrap_err();
            assert!(error.contains(word), "{uri}: {error}");
        }
        assert!(Connection::parse(&format!("qemu:///{}", "x".repeat(300))).unwrap_err().contains("255"));
    }

    #[test]
    fn a_definition_names_its_libvirt() {
        let system = Connection::default();
        assert_eq!(system.definition("rt0").as_str(), "/etc/libvirt/qemu/rt0.xml");
        let other = Connection::parse("qemu+unix:///system?socket=/run/a/b").unwrap();
        let path = other.definition("rt0");
        assert_eq!(path.as_str(), "/.libvirt/qemu+unix%3a%2f%2f%2fsystem%3fsocket%3d%2frun%2fa%2fb/rt0.xml");
        assert_eq!(Connection::of_definition(&path), Some((other.clone(), "rt0")));
        assert_eq!(Connection::of_definitions(&other.definitions()), Some(other));
        assert_eq!(Connection::of_definitions(&system.definitions()), None);
        assert_eq!(Connection::of_definition(&system.definition("a.b")), Some((system, "a.b")));
        for path in [
            "/etc/libvirt/qemu/networks/default.xml",
            "/etc/libvirt/qemu/.xml",
            "/etc/libvirt/qemu.conf",
            "/.libvirt/rt0.xml",
            "/.libvirt/qemu%3a%2f%2f%2fsystem/rt0.xml",
            "/.libvirt/qemu%3A%2F%2F%2Fsession/rt0.xml",
            "/.libvirt/xen%3a%2f%2f%2fsystem/rt0.xml",
            "/.libvirt/%zz/rt0.xml",
            "/.libvirt/%e4/rt0.xml",
        ] {
            assert_eq!(Connection::of_definition(&HostPath::new(path)), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_path_gives_its_connection_back(path in "[a-z0-9/._~-]{0,20}", name in "[a-z0-9][a-z0-9._+-]{0,9}") {
            let Ok(connection) = Connection::parse(&format!("qemu+unix:///{path}?socket=/{path}")) else {
                return Ok(());
            };
            let definition = connection.definition(&name);
            let autostart = connection.autostart(&name);
            let known = Some((connection.clone(), name.as_str()));
            prop_assert_eq!(Connection::of_autostart(&autostart), known);
            prop_assert_eq!(Connection::of_autostart(&definition), None);
            prop_assert_eq!(Connection::of_definition(&autostart), None);
            prop_assert_eq!(Connection::of_definition(&definition), Some((connection, name.as_str())));
        }
    }
}
