//! Trees whose links point out of them: nothing outside is read or written.

use super::support::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

/// A directory that is not part of the machine, as its owner left it.
struct Outside {
    dir: tempfile::TempDir,
    before: Listing,
}

impl Outside {
    /// With a file, a directory that only its owner may enter, and a template.
    fn new() -> Outside {
        let dir = directory();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).expect("mode");
        fs::write(dir.path().join("file"), "0-15\n").expect("written");
        fs::write(dir.path().join("domain.xml"), "<broken").expect("written");
        let before = list(dir.path());
        Outside { dir, before }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Upwards from the deepest directory, then to it.
    fn dotted(&self) -> PathBuf {
        PathBuf::from("../".repeat(40)).join(self.path().strip_prefix("/").expect("absolute"))
    }

    #[track_caller]
    fn untouched(&self) {
        assert_eq!(list(self.dir.path()), self.before);
    }
}

/// Every directory that apply makes or writes in.
const DIRECTORIES: [&str; 6] = [
    "etc/default/grub.d",
    "etc/rtkvm-tune",
    "etc/systemd",
    "etc/systemd/system",
    "etc/systemd/system/multi-user.target.wants",
    "etc/libvirt/qemu",
];

/// Such a link leads to a directory that the tree does not have.
#[test]
fn a_link_to_a_directory_outside_is_a_dead_end() {
    for directory in DIRECTORIES {
        for dotted in [false, true] {
            let (outside, tree) = (Outside::new(), Tree::reference());
            tree.link(directory, if dotted { outside.dotted() } else { outside.path() });
            let ran = tree.tune(&["apply", REFERENCE]).expect(2);
            outside.untouched();
            let said = format!("{}{}", ran.out, ran.err);
            let line = said.lines().find(|line| line.contains("No such file")).unwrap_or_default();
            assert!(line.contains(&format!(" /{directory}/")), "{directory}: {said}");
        }
    }
}

/// With the same path inside, that is where it leads.
#[test]
fn a_link_is_followed_inside() {
    for directory in DIRECTORIES {
        for dotted in [false, true] {
            let (outside, tree, plain) = (Outside::new(), Tree::reference(), Tree::reference());
            let inside =
                outside.path().strip_prefix("/").expect("absolute").to_str().expect("UTF-8").to_owned();
            fs::create_dir_all(tree.at(&inside)).expect("made");
            tree.link(directory, if dotted { outside.dotted() } else { outside.path() });
            tree.tune(&["apply", REFERENCE]).expect(0);
            plain.tune(&["apply", REFERENCE]).expect(0);
            outside.untouched();
            // The same files, only elsewhere.
            let moved = |path: &String| {
                path.strip_prefix(directory).map_or(path.clone(), |rest| format!("{inside}{rest}"))
            };
            let listing = tree.list();
            for (path, node) in plain.list() {
                if matches!(node, Node::File { .. }) {
                    assert_eq!(listing.get(&moved(&path)), Some(&node), "{path}");
                }
            }
            assert_eq!(
                tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out.matches("\n--- ").count(),
                0
            );
        }
    }
}

/// A link in place of a file that we own is replaced; what it points to stays, and its mode, 0777, is not taken.
#[test]
fn a_link_in_place_of_our_file_is_replaced() {
    for path in [DROP_IN, KEPT_PROFILE, UNIT, GUEST] {
        let (outside, tree) = (Outside::new(), Tree::reference());
        tree.link(path, outside.path().join("file"));
        tree.tune(&["apply", REFERENCE]).expect(0);
        outside.untouched();
        let mode = if path == GUEST { 0o600 } else { 0o644 };
        let listing = tree.list();
        assert!(
            matches!(&listing[path], Node::File { mode: found, .. } if *found == mode),
            "{:?}",
            listing[path]
        );
    }
}

/// The lock of a tree is its root directory: the live machine's lock file is nothing to it.
#[test]
fn a_tree_has_no_lock_file() {
    let (outside, tree) = (Outside::new(), Tree::reference());
    tree.link(LOCK, outside.path().join("file"));
    tree.tune(&["apply", REFERENCE]).expect(0);
    outside.untouched();
    assert!(tree.at(LOCK).is_symlink());
}

/// Neither attributes nor templates nor boot files are read from outside.
#[test]
fn nothing_outside_is_read() {
    let (outside, tree) = (Outside::new(), Tree::reference());
    tree.link("etc/rtkvm-tune/templates", outside.path());
    for path in ["proc/irq/1/smp_affinity_list", "etc/os-release", "proc/cmdline"] {
        fs::remove_file(tree.at(path)).expect("removed");
        symlink(outside.path().join("file"), tree.at(path)).expect("linked");
    }
    let plan = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
    assert!(plan.contains("operating system unknown"), "{plan}");
    assert!(!plan.contains("irq/1/"), "{plan}");
    tree.tune(&["apply", REFERENCE]).expect(0);
    outside.untouched();
}

/// Strange things where files should be: told, and never waited for.
/// Of what is read without a look at what it is.
#[test]
fn a_pipe_or_a_directory_has_no_value() {
    use nix::sys::stat::Mode;
    for path in ["sys/kernel/irq/25/actions", "proc/irq/25/node", "proc/irq/25/effective_affinity_list"] {
        let tree = Tree::reference();
        fs::remove_file(tree.at(path)).expect("there");
        let without = tree.tune(&["inspect"]).expect(0).out;
        nix::unistd::mkfifo(&tree.at(path), Mode::from_bits_truncate(0o644)).expect("a pipe");
        tree.tune(&["inspect"]).expect(0);
        fs::remove_file(tree.at(path)).expect("there");
        fs::create_dir_all(tree.at(path).join("below")).expect("made");
        assert_eq!(tree.tune(&["inspect"]).expect(0).out, without, "{path}");
        tree.tune(&["apply", REFERENCE]).expect(0);
        assert!(tree.at(path).join("below").is_dir());
    }
}

#[test]
fn a_pipe_or_a_directory_is_no_file() {
    use nix::sys::stat::Mode;
    let pages = "sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages";
    for path in ["proc/irq/default_smp_affinity", pages, DROP_IN, UNIT] {
        let tree = Tree::reference();
        let _ = fs::remove_file(tree.at(path));
        fs::create_dir_all(tree.at(path).parent().expect("a parent")).expect("made");
        nix::unistd::mkfifo(&tree.at(path), Mode::from_bits_truncate(0o644)).expect("a pipe");
        tree.tune(&["apply", "--dry-run", REFERENCE]).expect(if path == pages { 2 } else { 0 });
        tree.tune(&["apply", REFERENCE]);
        let tree = Tree::reference();
        let _ = fs::remove_file(tree.at(path));
        fs::create_dir_all(tree.at(path).join("below")).expect("made");
        let ran = tree.tune(&["apply", REFERENCE]);
        assert!(tree.at(path).join("below").is_dir());
        let ran = ran.expect(2);
        match path == pages {
            true => assert!(ran.err.contains("the kernel has no 1GiB pages on node 0"), "{}", ran.err),
            false => {
                assert!(
                    ran.err.contains("nothing was written") && ran.err.contains(path),
                    "{path}: {}",
                    ran.err
                );
                assert!(!tree.at(KEPT_PROFILE).exists());
            }
        }
    }
}
