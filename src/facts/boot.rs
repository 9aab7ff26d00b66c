//! How the machine boots, and with which kernel arguments it will boot next.

use super::text;
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

/// What update-grub generates, and GRUB reads.
pub const GRUB_CFG: &str = "/boot/grub/grub.cfg";
/// The settings of grub-mkconfig.
pub const DEFAULT_GRUB: &str = "/etc/default/grub";
/// Debian's and Ubuntu's directory of further settings.
pub const GRUB_D: &str = "/etc/default/grub.d";

impl Boot {
    /// Reads the boot loader's configuration.
    pub fn read(host: &dyn Read) -> Boot {
        let unknown = Boot { loader: Loader::Unknown, next: Vec::new(), next_from: "unknown" };
        // Other distributions have /etc/default/grub too, but their grub-mkconfig reads no grub.d.
        let debian = host.file(&HostPath::new("/etc/debian_version")).is_ok();
        let Some(default_grub) = text(host, &HostPath::new(DEFAULT_GRUB)).filter(|_| debian) else {
            return unknown;
        };
        let generated = text(host, &HostPath::new(GRUB_CFG)).map(|text| grub::entries(&text));
        let normal = generated.into_iter().flatten().filter(|entry| !entry.recovery);
        let next: Vec<_> = normal.map(|entry| entry.args).collect();
        if !next.is_empty() {
            return Boot { loader: Loader::GrubDebian, next, next_from: GRUB_CFG };
        }
        let dir = HostPath::new(GRUB_D);
        let names = host.list(&dir).unwrap_or_default();
        let texts: Vec<_> =
            names.iter().filter_map(|name| Some((name.as_str(), text(host, &dir.join(name))?))).collect();
        let files: Vec<_> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let next = grub::predicted(&default_grub, &files).into_iter().collect();
        Boot {
            loader: Loader::GrubDebian,
            next,
            next_from: "/etc/default/grub and grub.d, before update-grub",
        }
    }
}
