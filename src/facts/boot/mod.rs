//! How the machine boots, and with which kernel arguments it will boot next. One file for each kind of boot loader:
//! by what it is known, what the next boot has, and where its arguments are written.

mod debian;
mod entries;
mod loader;
mod suse;

pub use debian::{DROP_IN, GRUB_CFG, GRUB_D, RT_CONF};
pub use loader::Loader;
pub use suse::GRUB2_CFG;

use crate::formats::HostPath;
pub use crate::formats::boot_line::DEFAULT_GRUB;
use crate::formats::boot_line::Form;
use crate::formats::kernel_args::{KernelArg, KernelArgs};
use crate::host::Read;
use serde::Serialize;

/// How the machine boots.
#[derive(Debug, Clone, Serialize)]
pub struct Boot {
    /// The boot loader that was recognised.
    pub loader: Loader,
    /// The command lines of the next boot, one for each normal (not recovery) entry; empty if not known.
    #[serde(serialize_with = "as_texts")]
    pub next: Vec<KernelArgs>,
    /// Where `next` was read.
    pub next_from: &'static str,
    /// Those of the boots after it, where the next one is a trial.
    #[serde(skip)]
    pub later: Option<Vec<KernelArgs>>,
    /// Others' files with a line of kernel arguments that ours are put on; none where we have a file of our own.
    #[serde(skip)]
    pub lines: Vec<Line>,
    /// Why the arguments cannot be written now, each with the remedy.
    #[serde(skip)]
    pub wrong: Vec<String>,
    /// What this program put on lines of others in earlier runs.
    #[serde(skip)]
    pub ours: Vec<KernelArg>,
    #[serde(skip)]
    settings: Option<debian::Settings>,
}

/// A file of somebody else's with a line of kernel arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The file.
    pub path: HostPath,
    /// How it holds the line.
    pub form: Form,
    /// Its text; `None` if it is to be made.
    pub text: Option<String>,
    /// What it is made from.
    pub seed: String,
    /// Its permission bits.
    pub mode: u32,
    /// The line as the kernel gets it, where it gets it from here: variables of the boot loader replaced.
    pub boots: Option<KernelArgs>,
    /// Whether arguments are put on it; else they are at most taken off.
    pub adds: bool,
}

impl Line {
    /// Its text, or what it is made from.
    pub fn now(&self) -> &str {
        self.text.as_deref().unwrap_or(&self.seed)
    }
}

fn as_texts<S: serde::Serializer>(lines: &[KernelArgs], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(lines.iter().map(ToString::to_string))
}

impl Boot {
    /// Reads the boot loader's configuration.
    pub fn read(host: &dyn Read) -> Boot {
        loader::read(host)
    }

    /// A machine of which nothing is known but the boot loader.
    pub fn new(loader: Loader) -> Boot {
        Boot {
            loader,
            next: Vec::new(),
            next_from: "unknown",
            later: None,
            lines: Vec::new(),
            wrong: Vec::new(),
            ours: Vec::new(),
            settings: None,
        }
    }

    /// The same where the next boot is a trial with this command line.
    #[must_use]
    pub fn once(self, trial: Option<&KernelArgs>) -> Boot {
        match trial {
            None => self,
            Some(line) => Boot {
                next: vec![line.clone()],
                next_from: "the trial's entry in /boot/grub/grub.cfg",
                later: Some(self.next),
                ..self
            },
        }
    }

    /// The lines of the next boot without what is ours on them, as far as they are known, each with the file it comes
    /// from.
    pub fn foreign(&self) -> Vec<(KernelArgs, Option<&HostPath>)> {
        if let Some(settings) = &self.settings {
            return settings.predicted(None).into_iter().map(|line| (line, None)).collect();
        }
        let boots = self.lines.iter().filter_map(|line| Some((line.boots.clone()?, Some(&line.path))));
        let without = |(mut line, path): (KernelArgs, _)| {
            line.take_out(&self.ours);
            (line, path)
        };
        boots.map(without).collect()
    }

    /// The file that gives a parameter another value than ours; `on`, where the line with it is.
    pub fn setter(&self, name: &str, value: Option<&str>, on: Option<&HostPath>) -> String {
        let found = self.settings.as_ref().and_then(|settings| settings.setter(name, value));
        let line = || self.lines.iter().find(|line| Some(&line.path) == on);
        let there =
            |line: &Line| line.form.line(line.now()).is_ok_and(|args| args.values(name).contains(&value));
        match (found, line()) {
            (Some(file), _) => file,
            (None, Some(line)) if there(line) => line.path.to_string(),
            (None, Some(line)) => format!("what {} takes from elsewhere", line.path),
            (None, None) => "/etc/default/grub or grub.d".into(),
        }
    }

    /// rt-conf's drop-in, if it is there.
    pub fn rt_conf(&self) -> Option<&str> {
        self.settings.as_ref()?.rt_conf()
    }

    /// The same without rt-conf's drop-in.
    #[must_use]
    pub fn without_rt_conf(mut self) -> Boot {
        if let Some(settings) = &mut self.settings {
            settings.forget_rt_conf();
        }
        self
    }

    /// The arguments that update-grub would give every normal entry if our drop-in had this text, or were not
    /// there. `None` if only a shell can tell, or another boot loader is used.
    pub fn predicted(&self, ours: Option<&str>) -> Option<KernelArgs> {
        self.settings.as_ref()?.predicted(ours)
    }
}
