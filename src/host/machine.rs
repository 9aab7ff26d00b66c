//! Which machine to work on: the one that runs, or what `--root` names.

use super::{Root, Snapshot, load};
use std::path::{Path, PathBuf};

/// The machine that a command works on.
pub enum Machine {
    /// The running one.
    Live,
    /// A directory tree.
    Tree(PathBuf),
    /// A capture or a capabilities document, from this file: it can be planned for, not applied to.
    Recorded(PathBuf),
}

/// The largest recorded machine that is read, in bytes; 1,024 CPUs with 16,384 interrupts take about 4 MiB.
const MAX_RECORDED: usize = 64 << 20;

impl Machine {
    /// What `--root` names; the running machine without it, and with its own root: that is no tree, there the
    /// kernel and libvirt answer.
    pub fn named(root: Option<&Path>) -> Machine {
        let is_live = |path: &Path| path.canonicalize().is_ok_and(|path| path == Path::new("/"));
        match root {
            None => Machine::Live,
            Some(path) if is_live(path) => Machine::Live,
            Some(path) if path.is_dir() => Machine::Tree(path.into()),
            Some(path) => Machine::Recorded(path.into()),
        }
    }

    /// A fresh view of it, with nothing read yet.
    ///
    /// # Errors
    /// A message that names the file or directory and what is wrong with it.
    pub fn snapshot(&self) -> Result<Snapshot, String> {
        let Machine::Recorded(path) = self else {
            return Ok(Snapshot::of(Box::new(self.root()?)));
        };
        let name = path.display();
        let loaded = load(path, MAX_RECORDED)?;
        let text = String::from_utf8(loaded.bytes);
        let text = text
            .map_err(|_| format!("{name}: neither a capture nor a capabilities document: not UTF-8 text"))?;
        match text.trim_start().starts_with('<') {
            true => Snapshot::from_capabilities(&text),
            false => Snapshot::from_capture(&text),
        }
        .map_err(|error| format!("{name}: {error}"))
    }

    /// The root directory, for writing.
    ///
    /// # Errors
    /// A message; always for a recorded machine.
    pub fn root(&self) -> Result<Root, String> {
        match self {
            Machine::Live => Root::live().map_err(|errno| format!("cannot open /: {}", errno.desc())),
            Machine::Tree(path) => {
                Root::tree(path).map_err(|errno| format!("cannot open {}: {}", path.display(), errno.desc()))
            }
            Machine::Recorded(path) if !path.exists() => Err(format!("{} does not exist", path.display())),
            Machine::Recorded(path) => Err(format!(
                "{} is a recorded machine: it can be planned for, not written to",
                path.display()
            )),
        }
    }
}

/// The machine's name in messages.
impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Machine::Live => f.write_str("this machine"),
            Machine::Tree(path) | Machine::Recorded(path) => write!(f, "{}", path.display()),
        }
    }
}
