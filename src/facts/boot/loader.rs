//! Which boot loader it is, and what to do by hand where this program does not write its configuration.

use super::{Boot, DEFAULT_GRUB, debian, entries, suse};
use crate::facts::text;
use crate::formats::{HostPath, shell_vars};
use crate::host::Read;
use serde::Serialize;

/// A boot loader and its configuration tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    /// GRUB as Debian and Ubuntu set it up, with drop-ins in /etc/default/grub.d.
    GrubDebian,
    /// GRUB with boot loader entries, as Red Hat and Fedora set it up.
    GrubEntries,
    /// GRUB as SUSE sets it up, with /etc/default/grub alone.
    GrubSuse,
    /// systemd-boot, or another loader of entries that kernel-install makes.
    SystemdBoot,
    /// Entries that ostree makes, for rpm-ostree and bootc.
    Ostree,
    /// Unified kernel images, which have their command line in them.
    UnifiedImages,
    /// SUSE with a read-only system, each change of which is a snapshot.
    Transactional,
    /// zipl of s390x, which writes the entries to the disk itself.
    Zipl,
    /// extlinux, or U-Boot that reads its configuration.
    Extlinux,
    /// The Raspberry Pi's firmware.
    CmdlineTxt,
    /// Ubuntu Core.
    UbuntuCore,
    /// None that is known here.
    Unknown,
}

impl Loader {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Loader::GrubDebian => "GRUB (Debian)",
            Loader::GrubEntries => "GRUB (boot loader entries)",
            Loader::GrubSuse => "GRUB (SUSE)",
            Loader::SystemdBoot => "systemd-boot",
            Loader::Ostree => "ostree",
            Loader::UnifiedImages => "unified kernel images",
            Loader::Transactional => "GRUB (SUSE, transactional)",
            Loader::Zipl => "zipl",
            Loader::Extlinux => "extlinux",
            Loader::CmdlineTxt => "Raspberry Pi firmware",
            Loader::UbuntuCore => "Ubuntu Core",
            Loader::Unknown => "boot loader unknown",
        }
    }

    /// What to do with the arguments by hand; `None` where this program writes them.
    pub fn by_hand(self) -> Option<&'static str> {
        Some(match self {
            Loader::GrubDebian
            | Loader::GrubEntries
            | Loader::GrubSuse
            | Loader::SystemdBoot
            | Loader::Ostree => return None,
            Loader::UnifiedImages => {
                "the command line is in the signed kernel image: put them into /etc/kernel/cmdline and have the image \
                 built anew (`kernel-install add-all`, `dracut --force --uefi` or `mkinitcpio -P`), or put a signed addon \
                 beside it; with Secure Boot nothing else reaches the kernel"
            }
            Loader::Transactional => {
                "put them into GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, then run `transactional-update grub.cfg` \
                 and boot the new snapshot"
            }
            Loader::Zipl => {
                "run `grubby --update-kernel=ALL --args=...`, which runs zipl too: without it the disk keeps the old ones"
            }
            Loader::Extlinux => {
                "put them on the APPEND line of each LABEL in /boot/extlinux/extlinux.conf; on Debian into U_BOOT_PARAMETERS \
                 of /etc/default/u-boot, then run `u-boot-update`"
            }
            Loader::CmdlineTxt => {
                "put them on the one line of /boot/firmware/cmdline.txt (older: /boot/cmdline.txt)"
            }
            Loader::UbuntuCore => {
                "run `snap set system system.kernel.append=\"...\"` (or dangerous-cmdline-append)"
            }
            Loader::Unknown => {
                "known are GRUB of Debian, Red Hat and SUSE, systemd-boot and ostree, by their files in /etc/default, \
                 /boot and the EFI partition (is that mounted?)"
            }
        })
    }
}

/// What systemd-boot and GRUB since 2.12 tell of themselves: attributes, then UTF-16 (systemd's boot loader
/// interface).
const LOADER_INFO: &str = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

pub(super) fn read(host: &dyn Read) -> Boot {
    let is_file = |path: &str| host.head(&HostPath::new(path), 0).is_ok();
    let default = text(host, &HostPath::new(DEFAULT_GRUB));
    let debian = host.file(&HostPath::new("/etc/debian_version")).is_ok();
    let systemd_boot = is_systemd_boot(host);
    // Other distributions have /etc/default/grub too, but their grub-mkconfig reads no grub.d.
    if let Some(default) = default.clone().filter(|_| debian && !systemd_boot) {
        let found = debian::read(host, default);
        // GRUB's settings may be left of a machine that boots otherwise by now.
        return match found.next_from == debian::GRUB_CFG {
            true => found,
            false => entries::systemd_boot(host).unwrap_or(found),
        };
    }
    let release = ["/etc/os-release", "/usr/lib/os-release"];
    let release = release.into_iter().find_map(|path| text(host, &HostPath::new(path)));
    let release = shell_vars::parse(&release.unwrap_or_default());
    let is_like = |name: &str| {
        let ids = ["ID", "ID_LIKE"].map(|key| release.text(key).unwrap_or_default().to_owned());
        ids.iter().flat_map(|ids| ids.split_whitespace()).any(|id| id == name)
    };
    if let Some(boot) = entries::ostree(host) {
        return boot;
    }
    if is_like("ubuntu-core") {
        return Boot::new(Loader::UbuntuCore);
    }
    if is_file("/etc/zipl.conf") {
        return Boot::new(Loader::Zipl);
    }
    if !systemd_boot && let Some(boot) = entries::grub(host, default.as_deref().unwrap_or_default()) {
        return boot;
    }
    let suse = is_like("suse") || is_like("opensuse");
    if suse && is_file("/usr/sbin/transactional-update") {
        return Boot::new(Loader::Transactional);
    }
    if let Some(boot) = entries::systemd_boot(host) {
        return boot;
    }
    if let Some(default) = default.filter(|_| suse) {
        return suse::read(host, default);
    }
    let others = [
        (Loader::Extlinux, "/boot/extlinux/extlinux.conf"),
        (Loader::CmdlineTxt, "/boot/firmware/cmdline.txt"),
        (Loader::CmdlineTxt, "/boot/cmdline.txt"),
    ];
    let other = others.into_iter().find(|(_, file)| is_file(file)).map(|(loader, _)| loader);
    let images = || entries::has_images(host).then_some(Loader::UnifiedImages);
    Boot::new(other.or_else(images).unwrap_or(Loader::Unknown))
}

fn is_systemd_boot(host: &dyn Read) -> bool {
    let Ok(file) = host.head(&HostPath::new(LOADER_INFO), 256) else { return false };
    let letters = file.bytes.get(4..).unwrap_or_default().chunks_exact(2);
    let text: String = letters.map(|pair| char::from(pair[0])).collect();
    text.starts_with("systemd-boot")
}
