//! A private libvirtd on a simulated reference machine: 2 nodes of 2 sockets of 4 cores, 32 GiB each.
//!
//! It runs in mount, network and process namespaces of its own, below a tmpfs for everything it writes, so
//! that it neither sees nor leaves anything on the machine. The namespaces end with their first process, and
//! that one ends when it is killed or when its standard input closes, so also if the tests are killed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// Waiting for libvirtd's socket longer than this is a failure.
const DEADLINE: Duration = Duration::from_secs(20);

/// What the tests need, and the Debian package it is in.
const TOOLS: [(&str, &str); 6] = [
    ("unshare", "util-linux"),
    ("libvirtd", "libvirt-daemon-system"),
    ("virsh", "libvirt-clients"),
    ("virt-xml-validate", "libvirt-clients"),
    ("xmllint", "libxml2-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
];

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The first process of the namespaces. QEMU probes KVM as root, because libvirt asks again (10 s) for every
/// define where QEMU's own user may not open /dev/kvm. The shell stays: it reaps what libvirtd orphans.
const START: &str = r#"
set -e
tree=$1
mount -t tmpfs tmpfs /run
cp -a "$tree" /run/tree
for dir in /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    mkdir -p "$dir"
    mount -t tmpfs tmpfs "$dir"
done
mkdir /run/libvirt /run/pages-1g /run/pages-2m
mount -t hugetlbfs -o pagesize=1G none /run/pages-1g
mount -t hugetlbfs -o pagesize=2M none /run/pages-2m
mount --bind /run/tree/cpu /sys/devices/system/cpu
mount --bind /run/tree/node /sys/devices/system/node
mkdir -p /var/lib/libvirt/images
printf 'auth_unix_rw = "none"\n' > /etc/libvirt/libvirtd.conf
printf 'security_driver = "none"\nuser = "root"\ngroup = "root"\nstdio_handler = "file"\n' > /etc/libvirt/qemu.conf
libvirtd < /dev/null > /run/libvirtd.log 2>&1 &
cat > /dev/null
"#;

/// The command with everything that it writes on the tmpfs, over what is there; libvirtd does not see that.
const TUNE: &str = r#"
set -e
cat > /run/profile.toml
for dir in var/lib etc; do
    mkdir -p "/run/upper/$dir" "/run/work/$dir" "/run/kept/$dir"
    mount --rbind "/$dir/libvirt" "/run/kept/$dir"
    mount -t overlay overlay -o "lowerdir=/$dir,upperdir=/run/upper/$dir,workdir=/run/work/$dir" "/$dir"
    mount --rbind "/run/kept/$dir" "/$dir/libvirt"
done
exec "$@"
"#;

/// A running libvirtd; it ends when the last user drops it.
pub(crate) struct Host {
    first: Child,
    uri: String,
}

/// The libvirtd that the tests share.
pub(crate) fn shared() -> Arc<Host> {
    static HOST: Mutex<Weak<Host>> = Mutex::new(Weak::new());
    let mut shared = HOST.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    shared.upgrade().unwrap_or_else(|| {
        let host = Arc::new(Host::start());
        *shared = Arc::downgrade(&host);
        host
    })
}

impl Host {
    /// Starts a libvirtd and waits for its socket.
    pub(crate) fn start() -> Host {
        require_tools();
        let tree = tempfile::tempdir().expect("a temporary directory");
        reference_machine(tree.path());
        let first = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "sh", "-c", START, "sh"])
            .arg(tree.path())
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let socket = format!("/proc/{}/root/run/libvirt/libvirt-sock", first.id());
        let mut host = Host { first, uri: format!("qemu+unix:///system?socket={socket}") };
        let started = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            if let Some(status) = host.first.try_wait().expect("a child") {
                panic!("libvirtd's namespaces ended with {status}: see the messages above");
            }
            let log = format!("/proc/{}/root/run/libvirtd.log", host.first.id());
            let late = started.elapsed() > DEADLINE;
            assert!(!late, "no libvirtd after {DEADLINE:?}: {}", fs::read_to_string(log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
        // Two clients that are the first at once fail in libxml2, which sets up the types of schemas for the first one, and
        // not safely. Valid or not makes no difference.
        host.try_virsh(&["define", "--validate", "/dev/stdin"], "<domain/>");
        host
    }

    /// The process that holds the namespaces, as this process numbers it.
    pub(crate) fn pid(&self) -> u32 {
        self.first.id()
    }

    /// The URI by which the whole machine reaches it.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Runs this tree's command in the namespaces, where this libvirtd is the system's; `PROFILE` stands for a file
    /// with this text. What it keeps below /var/lib and /etc goes with the namespaces.
    pub(crate) fn tune(&self, words: &[&str], profile: &str) -> Output {
        self.tune_under(&[], words, profile)
    }

    /// The same with the command as the last words of another.
    pub(crate) fn tune_under(&self, by: &[&str], words: &[&str], profile: &str) -> Output {
        // The first process in the namespaces, not the one that made them.
        let children = format!("/proc/{0}/task/{0}/children", self.first.id());
        let inside = fs::read_to_string(children).expect("readable").trim().to_owned();
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--pid", "--target", &inside]);
        command.args(["unshare", "--mount", "--propagation", "private", "sh", "-c", TUNE, "sh"]);
        command.args(by).arg(env!("CARGO_BIN_EXE_rtkvm-tune"));
        let words = words.iter().map(|word| if *word == "PROFILE" { "/run/profile.toml" } else { *word });
        run(command.args(words).env("PATH", PATH), profile)
    }

    /// A path of the namespaces, as this process sees it.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.first.id()))
    }

    /// Runs virsh with `input` as its standard input, whatever its result.
    pub(crate) fn try_virsh(&self, args: &[&str], input: &str) -> Output {
        run(Command::new("virsh").args(["--connect", &self.uri]).args(args), input)
    }

    /// Runs virsh and gives its output; a failure ends the test with virsh's message.
    pub(crate) fn virsh(&self, args: &[&str], input: &str) -> String {
        succeeded(&format!("virsh {args:?}"), &self.try_virsh(args, input), input)
    }

    /// Defines guests, checked against libvirt's schema, by one virsh, and gives what libvirt then holds of each.
    pub(crate) fn define_all(&self, guests: &[(&str, &str)]) -> Vec<String> {
        let files = tempfile::tempdir().expect("a temporary directory");
        let mut script = String::new();
        for (name, xml) in guests {
            let path = files.path().join(name);
            fs::write(&path, xml).expect("written");
            script += &format!("define --validate {}\n", path.display());
        }
        for (name, _) in guests {
            script += &format!("dumpxml --inactive --domain {name}\n");
        }
        // As a terminal would: a command that fails does not end it, so that the count tells.
        let output = self.try_virsh(&["--quiet"], &script);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let end = "</domain>";
        let held: Vec<String> = text
            .match_indices("<domain ")
            .filter_map(|(at, _)| Some(text[at..at + text[at..].find(end)? + end.len()].to_owned()))
            .collect();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            held.len() == guests.len() && errors.trim().is_empty(),
            "{} of {}: {errors}",
            held.len(),
            guests.len()
        );
        held
    }

    /// Defines a guest, checked against libvirt's schema, and gives what libvirt then holds.
    pub(crate) fn define(&self, name: &str, xml: &str) -> String {
        self.virsh(&["define", "--validate", "/dev/stdin"], xml);
        self.virsh(&["dumpxml", "--inactive", "--domain", name], "")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.first.stdin.take());
        // Killing the first process ends all of its namespace, whatever libvirtd is doing.
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}

/// Validates a document against libvirt's schema, as an operator would.
pub(crate) fn validate(xml: &str) {
    require_tools();
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(xml.as_bytes()).expect("a written file");
    let output = run(Command::new("virt-xml-validate").arg(file.path()).arg("domain"), "");
    succeeded("virt-xml-validate", &output, xml);
}

fn run(command: &mut Command, input: &str) -> Output {
    let piped =
        command.env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the command starts");
    // A command that fails early does not read its input.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("the command ends")
}

fn succeeded(what: &str, output: &Output, input: &str) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {error}\n{input}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn require_tools() {
    for (tool, package) in TOOLS {
        let found = PATH.split(':').any(|dir| Path::new(dir).join(tool).exists());
        assert!(found, "{tool} is missing: install the Debian package {package}");
    }
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests mount in namespaces of their own: run them as root"
    );
    assert!(
        Path::new("/dev/kvm").exists(),
        "/dev/kvm is missing, and libvirt refuses every KVM guest then: load kvm_intel or kvm_amd"
    );
}

/// Writes `/sys/devices/system/{cpu,node}` of the reference machine, with 26 pages of 1 GiB on each node.
fn reference_machine(root: &Path) {
    let put = |path: String, text: &str| {
        let path: PathBuf = root.join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, format!("{text}\n")).expect("a file");
    };
    for (file, text) in [("online", "0-15"), ("present", "0-15"), ("possible", "0-15"), ("offline", "")] {
        put(format!("cpu/{file}"), text);
    }
    put("cpu/isolated".into(), "2-7,10-15");
    put("cpu/kernel_max".into(), "8191");
    for cpu in 0..16 {
        let socket = cpu / 4;
        let (alone, mates) = (cpu.to_string(), format!("{}-{}", socket * 4, socket * 4 + 3));
        let (mask, mates_mask) = (format!("{:04x}", 1 << cpu), format!("{:04x}", 0xf << (socket * 4)));
        if cpu != 0 {
            put(format!("cpu/cpu{cpu}/online"), "1");
        }
        for (file, text) in [
            ("physical_package_id", &*socket.to_string()),
            ("die_id", "0"),
            ("cluster_id", "65535"),
            ("core_id", &*(cpu % 4).to_string()),
            ("thread_siblings", &*mask),
            ("thread_siblings_list", &*alone),
            ("core_cpus", &*mask),
            ("core_cpus_list", &*alone),
            ("core_siblings", &*mates_mask),
            ("core_siblings_list", &*mates),
            ("package_cpus_list", &*mates),
        ] {
            put(format!("cpu/cpu{cpu}/topology/{file}"), text);
        }
        let caches = [("1", "Data", "32K"), ("1", "Instruction", "32K"), ("2", "Unified", "1024K")];
        for (i, (level, kind, size)) in caches.into_iter().chain([("3", "Unified", "16384K")]).enumerate() {
            let (id, shared) = if i < 3 { (cpu, &alone) } else { (socket, &mates) };
            for (file, text) in [
                ("level", level),
                ("type", kind),
                ("size", size),
                ("id", &id.to_string()),
                ("shared_cpu_list", shared),
            ] {
                put(format!("cpu/cpu{cpu}/cache/index{i}/{file}"), text);
            }
        }
    }
    for file in ["online", "possible", "has_cpu", "has_memory", "has_normal_memory"] {
        put(format!("node/{file}"), "0-1");
    }
    for node in 0..2 {
        let dir = format!("node/node{node}");
        put(format!("{dir}/cpulist"), ["0-7", "8-15"][node]);
        put(format!("{dir}/cpumap"), ["00ff", "ff00"][node]);
        put(format!("{dir}/distance"), ["10 21", "21 10"][node]);
        let meminfo = [
            ("MemTotal", "33554432 kB"),
            ("MemFree", "5791456 kB"),
            ("MemUsed", "27762976 kB"),
            ("HugePages_Total", "26"),
            ("HugePages_Free", "26"),
            ("HugePages_Surp", "0"),
        ];
        let lines: Vec<String> =
            meminfo.iter().map(|(key, value)| format!("Node {node} {key}: {value}")).collect();
        put(format!("{dir}/meminfo"), &lines.join("\n"));
        for (size, count) in [(2048, "0"), (1 << 20, "26")] {
            for (file, text) in
                [("nr_hugepages", count), ("free_hugepages", count), ("surplus_hugepages", "0")]
            {
                put(format!("{dir}/hugepages/hugepages-{size}kB/{file}"), text);
            }
        }
        for cpu in node * 8..node * 8 + 8 {
            symlink(format!("../../cpu/cpu{cpu}"), root.join(format!("{dir}/cpu{cpu}"))).expect("a link");
        }
    }
}
