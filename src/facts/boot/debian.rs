//! GRUB as Debian and Ubuntu set it up: drop-ins in /etc/default/grub.d, all of them sourced in order.

use super::{Boot, DEFAULT_GRUB, Loader};
use crate::facts::text;
pub use crate::formats::grub::GRUB_CFG;
use crate::formats::kernel_args::KernelArgs;
use crate::formats::{HostPath, grub};
use crate::host::Read;

/// Debian's and Ubuntu's directory of further settings.
pub const GRUB_D: &str = "/etc/default/grub.d";

/// Our file among them, which sorts after those of the distributions.
pub const DROP_IN: &str = "/etc/default/grub.d/99-rtkvm-tune.cfg";

/// The drop-in that Canonical's rt-conf generates: all of the kernel arguments, assigned anew.
pub const RT_CONF: &str = "/etc/default/grub.d/60_rt-conf.cfg";

/// What grub-mkconfig reads.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// The text of /etc/default/grub.
    default: String,
    /// Name and text of each file in grub.d but ours.
    others: Vec<(String, String)>,
    /// The text of ours.
    ours: Option<String>,
}

/// `default` is the text of /etc/default/grub.
pub(super) fn read(host: &dyn Read, default: String) -> Boot {
    let dir = HostPath::new(GRUB_D);
    let names = host.list(&dir).unwrap_or_default();
    let texts = names.iter().filter_map(|name| Some((dir.join(name), text(host, &dir.join(name))?)));
    let (ours, others): (Vec<_>, Vec<_>) = texts.partition(|(path, _)| path.as_str() == DROP_IN);
    let name = |path: &HostPath| path.split().1.to_owned();
    let settings = Settings {
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
    Boot { next, next_from, settings: Some(settings), ..Boot::new(Loader::GrubDebian) }
}

impl Settings {
    /// The arguments of every normal entry if our drop-in had this text, or were not there.
    pub(super) fn predicted(&self, ours: Option<&str>) -> Option<KernelArgs> {
        let others = self.others.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let name = DROP_IN.rsplit('/').next().unwrap_or_default();
        let files: Vec<_> = others.chain(ours.map(|text| (name, text))).collect();
        grub::predicted(&self.default, &files)
    }

    /// The file that gives a parameter this value: /etc/default/grub or one in grub.d.
    pub(super) fn setter(&self, name: &str, value: Option<&str>) -> Option<String> {
        let others: Vec<_> = self.others.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let sets = |files: &[(&str, &str)]| {
            grub::predicted(&self.default, files).is_some_and(|line| line.values(name).contains(&value))
        };
        // Each file sees what those before it left.
        let first = (0..=others.len()).find(|count| sets(&others[..*count]))?;
        Some(match first.checked_sub(1) {
            None => DEFAULT_GRUB.into(),
            Some(at) => format!("{GRUB_D}/{}", others[at].0),
        })
    }

    /// rt-conf's drop-in, if it is there.
    pub(super) fn rt_conf(&self) -> Option<&str> {
        let name = RT_CONF.rsplit('/').next();
        self.others.iter().find(|(other, _)| Some(other.as_str()) == name).map(|(_, text)| text.as_str())
    }

    /// As if rt-conf's drop-in were not there.
    pub(super) fn forget_rt_conf(&mut self) {
        let name = RT_CONF.rsplit('/').next();
        self.others.retain(|(other, _)| Some(other.as_str()) != name);
    }
}
