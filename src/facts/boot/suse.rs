//! GRUB as SUSE sets it up: no directory of drop-ins, so that the arguments go into /etc/default/grub itself.
//!
//! Source: SUSE's administration guide, "The boot loader GRUB 2".

use super::{Boot, DEFAULT_GRUB, Form, Line, Loader};
use crate::facts::text;
pub use crate::formats::grub::GRUB2_CFG;
use crate::formats::{HostPath, grub};
use crate::host::Read;

/// `default` is the text of /etc/default/grub.
pub(super) fn read(host: &dyn Read, default: String) -> Boot {
    let mut boot = Boot::new(Loader::GrubSuse);
    let generated = text(host, &HostPath::new(GRUB2_CFG)).map(|text| grub::entries(&text));
    let normal = generated.into_iter().flatten().filter(|entry| !entry.recovery);
    boot.next = normal.map(|entry| entry.args).collect();
    boot.next_from = GRUB2_CFG;
    let predicted = grub::predicted(&default, &[]);
    if boot.next.is_empty() {
        boot.next = predicted.clone().into_iter().collect();
        boot.next_from = "/etc/default/grub, before grub2-mkconfig";
    }
    let path = HostPath::new(DEFAULT_GRUB);
    let mode = host.file(&path).map_or(0o644, |file| file.mode);
    let line = Line {
        path,
        form: Form::Assignment,
        text: Some(default),
        seed: String::new(),
        mode,
        boots: predicted,
        adds: true,
    };
    boot.lines.push(line);
    boot
}
