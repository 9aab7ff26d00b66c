//! Running the command, trees made from captures, and what strace saw of it.

use rtkvm_tune::host::{Entry, ReadError, Snapshot};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The profile that is shipped, which fits the reference machine.
pub(crate) const REFERENCE: &str = "profiles/kvm-realtime.toml";
/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_rtkvm-tune");
/// The directory of the sources, where every command is started.
pub(crate) const SOURCES: &str = env!("CARGO_MANIFEST_DIR");
/// The lock of the live machine; that of a tree is its root directory.
pub(crate) const LOCK: &str = "run/rtkvm-tune.lock";

/// What can be read where the kernel accounts for pressure stalls.
pub(crate) const PRESSURE: &str = "proc/pressure/cpu";

/// Where the records of earlier runs are.
pub(crate) const STATE_DIR: &str = "var/lib/rtkvm-tune";
pub(crate) const STATE: &str = "var/lib/rtkvm-tune/state.json";
pub(crate) const JOURNAL: &str = "var/lib/rtkvm-tune/journal.json";

/// The files of the boot configuration, the boot unit and the guest, as apply makes them.
pub(crate) const DROP_IN: &str = "etc/default/grub.d/99-rtkvm-tune.cfg";
pub(crate) const KEPT_PROFILE: &str = "etc/rtkvm-tune/profile.toml";
pub(crate) const UNIT: &str = "etc/systemd/system/rtkvm-tune.service";
pub(crate) const WANTS: &str = "etc/systemd/system/multi-user.target.wants/rtkvm-tune.service";
pub(crate) const GUEST: &str = "etc/libvirt/qemu/rt0.xml";

/// Every recorded machine, with a profile that fits it.
pub(crate) const MACHINES: &[(&str, &str)] = &[
    ("tests/captures/reference.capture", REFERENCE),
    ("tests/captures/reference-tuned.capture", REFERENCE),
    ("tests/captures/interleaved.capture", REFERENCE),
    ("tests/captures/memory-only.capture", REFERENCE),
    ("tests/captures/offline.capture", REFERENCE),
    ("tests/captures/dies.capture", REFERENCE),
    ("tests/captures/large.capture", REFERENCE),
    ("tests/captures/no-numa.capture", "tests/commands/profiles/any-node.toml"),
    ("tests/captures/smt.capture", "tests/commands/profiles/threads.toml"),
    ("tests/captures/sub-numa.capture", "tests/commands/profiles/small-nodes.toml"),
    ("tests/capabilities/guide.xml", REFERENCE),
    ("tests/capabilities/reference.xml", REFERENCE),
];

/// What a command ended in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ran { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Fails unless the exit status is `status`.
    #[track_caller]
    pub(crate) fn expect(self, status: i32) -> Ran {
        assert_eq!(self.status, Some(status), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

/// The program with these words, from the sources' directory.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(words).current_dir(SOURCES).env_remove("NO_COLOR");
    command
}

/// Runs the program.
pub(crate) fn tune(words: &[&str]) -> Ran {
    Ran::of(command(words).output().expect("the program starts"))
}

/// Runs a tool of the operating system.
pub(crate) fn tool(command: &mut Command, package: &str) -> Ran {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output();
    Ran::of(output.unwrap_or_else(|error| panic!("cannot run {name}: {error}; install package {package}")))
}

/// A new directory, in memory where that is to be had: every apply waits for the disk a dozen times.
pub(crate) fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// One thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Dir { mode: u32 },
    File { mode: u32, text: String },
    Link { target: String },
}

/// Everything in a tree, by path.
pub(crate) type Listing = BTreeMap<String, Node>;

/// A directory tree as the root of a machine, in a directory that holds nothing else.
pub(crate) struct Tree {
    around: tempfile::TempDir,
    pub(crate) root: PathBuf,
}

impl Tree {
    /// An empty directory.
    pub(crate) fn empty() -> Tree {
        let around = directory();
        let root = around.path().join("root");
        fs::create_dir(&root).expect("made");
        Tree { around, root }
    }

    /// The machine of a capture, file by file, with its modes and links.
    pub(crate) fn of(capture: &str) -> Tree {
        let tree = Tree::empty();
        // Every machine has one.
        fs::create_dir_all(tree.at("var/lib")).expect("made");
        let text = fs::read_to_string(Path::new(SOURCES).join(capture)).expect("readable");
        for (path, entry) in Snapshot::from_capture(&text).expect("a capture").entries() {
            match entry {
                Entry::File(file) => {
                    tree.write(path.relative(), &file.bytes);
                    // Of a thread it is set by a system call, and here by writing.
                    let thread = path.as_str().starts_with("/proc/") && path.as_str().ends_with("/stat");
                    tree.chmod(path.relative(), file.mode | if thread { 0o200 } else { 0 });
                }
                Entry::Link(target) => tree.link(path.relative(), &*target),
                // What is listed and was not read is a directory, which has nothing to read either.
                Entry::List(names) => {
                    let made = names.iter().map(|name| tree.at(path.relative()).join(name));
                    made.filter(|at| !at.exists()).for_each(|at| fs::create_dir_all(at).expect("made"));
                    fs::create_dir_all(tree.at(path.relative())).expect("made");
                }
                // It was asked whether this is a link, and it is none.
                Entry::Error(ReadError::Unsuitable) => {}
                Entry::Error(error) => panic!("{path}: {error}: no tree has that"),
            }
        }
        tree
    }

    pub(crate) fn reference() -> Tree {
        Tree::of("tests/captures/reference.capture")
    }

    /// The tree's root as an argument.
    pub(crate) fn name(&self) -> &str {
        self.root.to_str().expect("UTF-8")
    }

    /// The directory around the root: for profiles, outputs, and what must stay untouched.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.around.path().join(name)
    }

    /// A file beside the root with this text; its name as an argument.
    pub(crate) fn note(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.beside(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("mode");
        path.to_str().expect("UTF-8").to_owned()
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let at = self.at(path);
        // A placeholder that a listing left.
        let _ = fs::remove_dir(&at);
        fs::create_dir_all(at.parent().expect("a parent")).expect("made");
        fs::write(at, text).expect("written");
    }

    /// The kernel's line after a boot, and /proc/pressure as the kernel has it then.
    pub(crate) fn start(&self, line: &str) {
        self.write("proc/cmdline", line);
        match line.split_whitespace().any(|word| word == "psi=0") {
            true => fs::remove_file(self.at(PRESSURE)).unwrap_or_default(),
            false => {
                self.write(PRESSURE, "");
                self.chmod(PRESSURE, 0o666);
            }
        }
    }

    pub(crate) fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), PermissionsExt::from_mode(mode)).expect("mode");
    }

    pub(crate) fn link(&self, path: &str, target: impl AsRef<Path>) {
        let at = self.at(path);
        // A folder that a listing left.
        let _ = fs::remove_dir(&at);
        fs::create_dir_all(at.parent().expect("a parent")).expect("made");
        symlink(target, at).expect("linked");
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Everything but what is kept of earlier runs, whose records are of the tests that speak of them.
    pub(crate) fn list(&self) -> Listing {
        let kept = |path: &String| [STATE_DIR, STATE, JOURNAL].contains(&path.as_str());
        list(&self.root).into_iter().filter(|(path, _)| !kept(path)).collect()
    }

    /// Runs `verb` with the words on this tree.
    pub(crate) fn tune(&self, words: &[&str]) -> Ran {
        tune(&[words, &["--root", self.name()]].concat())
    }

    /// A copy with modes and links.
    pub(crate) fn copy(&self) -> Tree {
        let around = directory();
        let root = around.path().join("root");
        tool(Command::new("cp").arg("-a").arg(&self.root).arg(&root), "coreutils").expect(0);
        Tree { around, root }
    }
}

/// Everything below a directory, the directory itself as the empty path.
pub(crate) fn list(root: &Path) -> Listing {
    let mut found = Listing::new();
    let mut open = vec![(String::new(), root.to_owned())];
    while let Some((name, path)) = open.pop() {
        let meta = fs::symlink_metadata(&path).expect("there");
        let mode = meta.mode() & 0o7777;
        let node = if meta.is_symlink() {
            Node::Link { target: fs::read_link(&path).expect("a link").to_str().expect("UTF-8").into() }
        } else if meta.is_dir() {
            for entry in fs::read_dir(&path).expect("readable") {
                let entry = entry.expect("readable").file_name();
                let entry = entry.to_str().expect("UTF-8");
                let below = if name.is_empty() { entry.to_owned() } else { format!("{name}/{entry}") };
                open.push((below, path.join(entry)));
            }
            Node::Dir { mode }
        } else {
            let bytes = fs::read(&path).expect("readable");
            Node::File { mode, text: String::from_utf8_lossy(&bytes).into_owned() }
        };
        found.insert(name, node);
    }
    found
}

/// What time, size and inode say of everything below a directory.
pub(crate) fn stamps(root: &Path) -> BTreeMap<String, (u64, u64, i64, i64, u32)> {
    let stamp = |name: &String| {
        let meta = fs::symlink_metadata(root.join(name)).expect("there");
        (
            meta.ino(),
            meta.size(),
            meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
            meta.ctime_nsec(),
            meta.mode(),
        )
    };
    list(root).keys().map(|name| (name.clone(), stamp(name))).collect()
}

/// The paths that differ between two listings.
pub(crate) fn changed(before: &Listing, after: &Listing) -> Vec<String> {
    let all: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    all.into_iter().filter(|path| before.get(*path) != after.get(*path)).cloned().collect()
}

/// One system call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Call {
    /// The first quoted word: the path of most calls.
    pub(crate) fn path(&self) -> &str {
        self.text.split('"').nth(1).unwrap_or_default()
    }

    /// Whether it opens for writing or makes a file.
    pub(crate) fn opens_to_write(&self) -> bool {
        let flags = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND", "O_TMPFILE"];
        self.name.starts_with("open") && flags.iter().any(|flag| self.text.contains(flag))
    }
}

/// Runs the program under strace with these options and returns what it did.
pub(crate) fn strace(options: &[&str], words: &[&str]) -> (Ran, Vec<Call>) {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-s", "4096", "-o"]).arg(log.path()).args(options);
    command.arg(PROGRAM).args(words).current_dir(SOURCES);
    let ran = tool(&mut command, "strace");
    let text = fs::read_to_string(log.path()).expect("UTF-8");
    assert!(!text.is_empty(), "strace saw nothing: may this user trace processes?\n{}", ran.err);
    let call = |line: &str| {
        let line = line.split_once(' ')?.1.trim_start();
        let name = line.split_once('(')?.0;
        Some(Call { name: name.to_owned(), text: line.to_owned() })
    };
    (ran, text.lines().filter_map(call).collect())
}

/// Says how many points a test tried, past the capture of what tests print, so that every run of the tests reports it.
#[track_caller]
pub(crate) fn report(what: &str, points: usize, least: usize) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "  {what}: {points} points tried");
    assert!(points >= least, "{what}: only {points} points, {least} were expected: were they found?");
}

/// The reference profile with these lines under [knobs].
pub(crate) fn with_knobs(tree: &Tree, lines: &str) -> String {
    let profile = std::fs::read_to_string(REFERENCE).expect("the reference profile");
    tree.note("knobs.toml", format!("{profile}\n[knobs]\n{lines}\n"))
}

/// State and wanted value of the items of one knob under these lines of [knobs].
pub(crate) fn states(tree: &Tree, lines: &str, knob: &str) -> Vec<(String, String)> {
    use serde_json::Value;
    let profile = with_knobs(tree, lines);
    let out = tree.tune(&["apply", "--dry-run", &profile, "--format", "json"]).expect(0).out;
    let plan: Value = serde_json::from_str(&out).expect("JSON");
    let items = plan["plan"]["items"].as_array().expect("items").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    items
        .filter(|item| item["knob"] == knob)
        .map(|item| (text(&item["state"]), text(&item["wanted"])))
        .collect()
}

/// A pair as [`states`] has it.
pub(crate) fn pair(state: &str, wanted: &str) -> (String, String) {
    (state.into(), wanted.into())
}
