//! The guest's devices and clocks.

use super::subject::{all, attribute, tag};
use super::{Found, Rule};

pub(super) const RULES: &[Rule] = &[BALLOON, USB, HPET, SCREEN, DISK, IO_THREAD];

const ADDED: &str = "seen with libvirt 9.0, which adds the device where the element is missing";

const BALLOON: Rule = Rule {
    id: "devices.balloon",
    what: "A memory balloon",
    why: "libvirt adds one where none is named. It takes memory from the guest, and asks it for figures.",
    source: ADDED,
    fatal: false,
    check: |guest| match guest.one("devices/memballoon") {
        Some(balloon) if balloon.attribute("model") == Some("none") => Vec::new(),
        Some(balloon) => {
            vec![Found::new(tag(balloon), "the guest has a balloon", "write <memballoon model='none'/>")]
        }
        None => {
            let help = "add <memballoon model='none'/> to <devices>";
            vec![Found::new(guest.place("devices"), "libvirt adds a balloon", help)]
        }
    },
};

const USB: Rule = Rule {
    id: "devices.usb",
    what: "A USB controller",
    why: "libvirt adds one where none is named. Its emulation polls, and wakes the guest.",
    source: ADDED,
    fatal: false,
    check: |guest| {
        let usb = |element: &super::subject::Element| element.attribute("type") == Some("usb");
        let mut controllers = all(guest.root, "devices/controller").filter(usb).peekable();
        if controllers.peek().is_none() {
            let help = "add <controller type='usb' model='none'/> to <devices>";
            return vec![Found::new(guest.place("devices"), "libvirt adds a USB controller", help)];
        }
        let real = controllers.filter(|controller| controller.attribute("model") != Some("none"));
        let help = "write <controller type='usb' model='none'/> instead";
        real.map(|controller| Found::new(tag(controller), "the guest has a USB controller", help)).collect()
    },
};

const HPET: Rule = Rule {
    id: "devices.hpet",
    what: "An HPET",
    why: "QEMU emulates one where it is not taken out. It is slow to read, and the kernel of the guest may choose it.",
    source: "libvirt formatdomain (Time keeping); seen with libvirt 9.0",
    fatal: false,
    check: |guest| {
        if !guest.is_x86() {
            return Vec::new();
        }
        let help = "add <timer name='hpet' present='no'/> to <clock>";
        match all(guest.root, "clock/timer").find(|timer| timer.attribute("name") == Some("hpet")) {
            Some(timer) if timer.attribute("present") == Some("no") => Vec::new(),
            Some(timer) => vec![Found::new(tag(timer), "the guest has an HPET", "write present='no'")],
            None => vec![Found::new(guest.place("clock"), "QEMU adds an HPET", help)],
        }
    },
};

const SCREEN: Rule = Rule {
    id: "devices.screen",
    what: "A screen, a sound card or a tablet",
    why: "QEMU draws and polls for it, and a screen brings a video card with it.",
    source: "libvirt, KVM Real Time Guest Config; libvirt formatdomain (Graphical framebuffers)",
    fatal: false,
    check: |guest| {
        let mut found = Vec::new();
        for name in ["graphics", "video", "sound", "input"] {
            for element in all(guest.root, &format!("devices/{name}")) {
                let harmless = match name {
                    "video" => all(element, "model")
                        .next()
                        .is_some_and(|model| model.attribute("type") == Some("none")),
                    // libvirt adds a mouse and a keyboard to every x86 guest.
                    "input" => element.attribute("bus") == Some("ps2"),
                    _ => false,
                };
                if !harmless {
                    let message = format!("the guest has <{name}>");
                    found.push(Found::new(tag(element), message, "take it out; a serial console is enough"));
                }
            }
        }
        found
    },
};

const DISK: Rule = Rule {
    id: "devices.disk-cache",
    what: "A disk through the host's page cache",
    why: "The host's writeback then decides when a write takes long. With io='native' libvirt refuses the definition.",
    source: "libvirt formatdomain (Hard drives); seen with libvirt 9.0",
    fatal: false,
    check: |guest| {
        let mut found = Vec::new();
        for disk in all(guest.root, "devices/disk") {
            // What is only read, and rarely: a CD-ROM, a seed.
            let read_only = all(disk, "readonly").next().is_some();
            if read_only || disk.attribute("device").is_some_and(|device| device != "disk") {
                continue;
            }
            let driver = all(disk, "driver").next();
            let cache = driver.and_then(|driver| driver.attribute("cache"));
            if !cache.is_some_and(|cache| ["none", "directsync"].contains(&cache)) {
                let at = driver.map_or_else(|| tag(disk), |driver| attribute(driver, "cache"));
                let message = format!("cache mode {} uses the host's page cache", cache.unwrap_or("default"));
                found.push(Found::new(at, message, "write cache='none' in <driver>"));
            }
        }
        found
    },
};

const IO_THREAD: Rule = Rule {
    id: "devices.iothread",
    what: "A disk on an I/O thread that the guest does not have",
    why: "libvirt refuses the definition: Disk iothread '1' not defined in iothreadid.",
    source: "seen with libvirt 9.0",
    fatal: true,
    check: |guest| {
        let count =
            guest.one("iothreads").and_then(|count| super::subject::text(count).parse().ok()).unwrap_or(0u32);
        let ids: Vec<u32> = all(guest.root, "iothreadids/iothread")
            .filter_map(|thread| thread.attribute("id")?.parse().ok())
            .collect();
        let known = |thread: u32| ids.contains(&thread) || (1..=count).contains(&thread);
        let wrong = all(guest.root, "devices/disk/driver").filter(|driver| {
            driver.attribute("iothread").is_some_and(|thread| !thread.parse().is_ok_and(known))
        });
        let help = "add <iothreads> with enough of them";
        wrong
            .map(|driver| Found::new(attribute(driver, "iothread"), "there is no such I/O thread", help))
            .collect()
    },
};
