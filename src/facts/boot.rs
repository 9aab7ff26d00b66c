//! How the machine boots, and with which kernel arguments it will boot next.

use super::text;
pub use crate::formats::grub::GRUB_CFG;
use crate::formats::kernel_args::KernelArgs;
use crate::formats::{HostPath, grub};
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
    /// The settings that GRUB's configuration is generated from.
    #[serde(skip)]
    pub settings: Option<GrubSettings>,
}

/// A boot loader and its configuration tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    /// GRUB as Debian and Ubuntu set it up, with drop-ins in /etc/default/grub.d.
    GrubDebian,
    /// None that is known here.
    Unknown,
}

fn as_texts<S: serde::Serializer>(lines: &[KernelArgs], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(lines.iter().map(ToString::to_string))
}

/// The settings of grub-mkconfig.
pub const DEFAULT_GRUB: &str = "/etc/default/grub";
/// Debian's and Ubuntu's directory of further settings.
pub const GRUB_D: &str = "/etc/default/grub.d";

/// Our file among them, which sorts after those of the distributions.
pub const DROP_IN: &str = "/etc/default/grub.d/99-rtkvm-tune.cfg";

/// The drop-in that Canonical's rt-conf generates: all of the kernel arguments, assigned anew.
pub const RT_CONF: &str = "/etc/default/grub.d/60_rt-conf.cfg";

/// What grub-mkconfig reads.
#[derive(Debug, Clone)]
pub struct GrubSettings {
    /// The text of /etc/default/grub.
    default: String,
    /// Name and text of each file in grub.d but ours.
    others: Vec<(String, String)>,
    /// The text of ours.
    ours: Option<String>,
}

impl Boot {
    /// Reads the boot loader's configuration.
    pub fn read(host: &dyn Read) -> Boot {
        // Other distributions have /etc/default/grub too, but their grub-mkconfig reads no grub.d.
        let debian = host.file(&HostPath::new("/etc/debian_version")).is_ok();
        let Some(default) = text(host, &HostPath::new(DEFAULT_GRUB)).filter(|_| debian) else {
            let (loader, next_from) = (Loader::Unknown, "unknown");
            return Boot { loader, next: Vec::new(), next_from, later: None, settings: None };
        };
        let dir = HostPath::new(GRUB_D);
        let names = host.list(&dir).unwrap_or_default();
        let texts = names.iter().filter_map(|name| Some((dir.join(name), text(host, &dir.join(name))?)));
        let (ours, others): (Vec<_>, Vec<_>) = texts.partition(|(path, _)| path.as_str() == DROP_IN);
        let name = |path: &HostPath| path.split().1.to_owned();
        let settings = GrubSettings {
            default,
            others: others.into_iter().map(|(path, text)| (name(&path), text)).collect(),
            ours: ours.into_iter().next().map(|(_, text)| text),
        };
        let generated = text(host, &HostPath::new(GRUB_CFG)).map(|text| grub::entries(&text));
        let normal = generated.into_iter().flatten().filter(|entry| !entry.recovery);
        let mut next: Vec<_> = normal.map(|entry| entry.args).collect();
        let mut next_from = GRUB_CFG;
        if next.is_empty() {
            next = settings.predicted(settings.ours.as_deref()).into_iter().collect();
            next_from = "/etc/default/grub and grub.d, before update-grub";
        }
        Boot { loader: Loader::GrubDebian, next, next_from, later: None, settings: Some(settings) }
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

    /// The file that gives a parameter another value than ours: /etc/default/grub or one in grub.d.
    pub fn setter(&self, name: &str, value: Option<&str>) -> Option<String> {
        let settings = self.settings.as_ref()?;
        let others: Vec<_> =
            settings.others.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let sets = |files: &[(&str, &str)]| {
            grub::predicted(&settings.default, files).is_some_and(|line| line.values(name).contains(&value))
        };
        // Each file sees what those before it left.
        let first = (0..=others.len()).find(|count| sets(&others[..*count]))?;
        Some(match first.checked_sub(1) {
            None => DEFAULT_GRUB.into(),
            Some(at) => format!("{GRUB_D}/{}", others[at].0),
        })
    }

    /// rt-conf's drop-in, if it is there.
    pub fn rt_conf(&self) -> Option<&str> {
        let name = RT_CONF.rsplit('/').next();
        let others = &self.settings.as_ref()?.others;
        others.iter().find(|(other, _)| Some(other.as_str()) == name).map(|(_, text)| text.as_str())
    }

    /// The same without rt-conf's drop-in.
    #[must_use]
    pub fn without_rt_conf(mut self) -> Boot {
        let name = RT_CONF.rsplit('/').next();
        if let Some(settings) = &mut self.settings {
            settings.others.retain(|(other, _)| Some(other.as_str()) != name);
        }
        self
    }

    /// The arguments that update-grub would give every normal entry if our drop-in had this text, or were not
    /// there. `None` if only a shell can tell, or another boot loader is used.
    pub fn predicted(&self, ours: Option<&str>) -> Option<KernelArgs> {
        self.settings.as_ref()?.predicted(ours)
    }
}

impl GrubSettings {
    fn predicted(&self, ours: Option<&str>) -> Option<KernelArgs> {
        let others = self.others.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let name = DROP_IN.rsplit('/').next().unwrap_or_default();
        let files: Vec<_> = others.chain(ours.map(|text| (name, text))).collect();
        grub::predicted(&self.default, &files)
    }
}
