//! All arguments in a file of our own, which GRUB of Debian and Ubuntu is configured with.

use super::Step;
use crate::facts::Facts;
use crate::formats::kernel_args::KernelArg;
use crate::formats::{HostPath, grub};
use crate::host::Read;
use crate::journal::{self, Change, Entry};
use crate::resources::{self, OwnedFile};

/// What becomes of our drop-in.
pub(in crate::plan) struct DropIn {
    /// Its text now; `None` if it does not exist.
    before: Option<String>,
    /// The arguments in it now.
    pub(super) replaced: Vec<KernelArg>,
    /// Whether it has something else.
    foreign: bool,
    /// What was there before our first touch.
    first: Option<Entry>,
    /// Its text after; `None` if no argument is left.
    after: Option<String>,
    file: OwnedFile,
}

impl DropIn {
    /// All of it is ours.
    pub(super) fn plan(host: &dyn Read, arguments: &[KernelArg], state: &journal::State) -> DropIn {
        let file = resources::drop_in(arguments);
        let before = host.file(&file.path).ok().map(|file| file.text().into_owned());
        let there = before.as_deref().and_then(grub::drop_in_args);
        let (foreign, replaced) = (before.is_some() && there.is_none(), there.unwrap_or_default());
        let first = state.entry(&file.path).cloned();
        let after = (!arguments.is_empty()).then(|| file.content.clone());
        DropIn { before, replaced, foreign, first, after, file }
    }

    /// The arguments that are in it now, as they stand on the kernel's line.
    pub(in crate::plan) fn replaced(&self) -> String {
        self.replaced.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    /// Whether it has something that this program does not write.
    pub(in crate::plan) fn is_foreign(&self) -> bool {
        self.foreign
    }

    pub(super) fn step(&self) -> Option<Step> {
        let (path, before, after) = (self.file.path.clone(), self.before.clone(), self.after.clone());
        (before != after).then_some(Step::File { path, before, after, mode: self.file.mode, metadata: None })
    }

    /// The directories that were made for it, where it is no longer ours.
    pub(super) fn directories(&self) -> impl Iterator<Item = Step> {
        let directories = self.done_with().into_iter().flat_map(|entry| entry.directories.iter().rev());
        directories.map(|path| Step::Directory { path: path.clone() })
    }

    /// The drop-in, where it is no longer ours.
    pub(super) fn finished(&self) -> Option<HostPath> {
        self.done_with().map(|entry| entry.path.clone())
    }

    /// With no argument left the drop-in goes, and where there was none before us nothing is left to put back.
    fn done_with(&self) -> Option<&Entry> {
        let first = self.first.as_ref().filter(|_| self.after.is_none());
        first.filter(|entry| matches!(entry.change, Change::File { before: None, .. }))
    }

    /// Why it would not reach the kernel's command line, as far as its neighbours tell.
    pub(super) fn obstacle(&self, facts: &Facts, arguments: &[KernelArg]) -> Option<String> {
        let line = facts.boot.predicted(Some(&self.file.content))?;
        let mut lost =
            arguments.iter().filter(|argument| !line.values(argument.name()).contains(&argument.value()));
        let first = lost.next()?;
        Some(format!(
            "{first} would not reach the kernel from {}: /etc/default/grub has `--` in its arguments, or a later file \
             in /etc/default/grub.d assigns GRUB_CMDLINE_LINUX_DEFAULT. Take that out first",
            self.file.path
        ))
    }
}
