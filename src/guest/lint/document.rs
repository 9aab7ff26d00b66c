//! The document as such: what libvirt refuses or drops without a word.

use super::subject::{tag, whole};
use super::{Found, Rule};

pub(super) const RULES: &[Rule] = &[VALUE, UNKNOWN, UUID];

const VALUE: Rule = Rule {
    id: "document.value",
    what: "A number, list or size that is none",
    why: "libvirt refuses the document, or reads something else than was meant. What cannot be read is not checked \
        further.",
    source: "libvirt formatdomain",
    fatal: true,
    check: |guest| {
        let found = guest.unreadable.iter();
        found.map(|(at, why)| Found::new(at.clone(), why, "write a number, or a list as 0-3,8,^2")).collect()
    },
};

/// The elements whose content is known here, and that content.
const KNOWN: [(&str, &[&str]); 4] = [
    (
        "cputune",
        &[
            "shares",
            "period",
            "quota",
            "global_period",
            "global_quota",
            "emulator_period",
            "emulator_quota",
            "iothread_period",
            "iothread_quota",
            "vcpupin",
            "emulatorpin",
            "iothreadpin",
            "vcpusched",
            "iothreadsched",
            "emulatorsched",
            "cachetune",
            "memorytune",
        ],
    ),
    ("memoryBacking", &["hugepages", "nosharepages", "locked", "source", "access", "allocation", "discard"]),
    ("numatune", &["memory", "memnode"]),
    ("memtune", &["hard_limit", "soft_limit", "swap_hard_limit", "min_guarantee"]),
];

const UNKNOWN: Rule = Rule {
    id: "document.unknown-element",
    what: "An element that libvirt does not know",
    why: "libvirt drops what it does not know without a word, unless it is asked to validate: a misspelt pin is \
        no pin.",
    source: "libvirt formatdomain; virsh(1) (define --validate)",
    fatal: false,
    check: |guest| {
        let mut found = Vec::new();
        for (parent, known) in KNOWN {
            let inside = guest.one(parent).into_iter().flat_map(|parent| parent.children());
            for element in inside.filter(|child| child.is_element()) {
                let name = element.tag_name().name();
                if known.contains(&name) {
                    continue;
                }
                let scores = known.iter().map(|known| (strsim::jaro_winkler(known, name), known));
                let nearest = scores.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.8);
                let help = match nearest {
                    Some((_, nearest)) => format!("did you mean <{nearest}>?"),
                    None => "take it out, or see what the libvirt in use knows".to_owned(),
                };
                let message = format!("libvirt knows no <{name}> in <{parent}> and drops it");
                found.push(Found::new(tag(element), message, help));
            }
        }
        found
    },
};

const UUID: Rule = Rule {
    id: "document.uuid",
    what: "No UUID",
    why: "libvirt gives the guest a new one at each define; a second define of the same name is then refused, for \
        the name belongs to another UUID.",
    source: "libvirt formatdomain (General metadata)",
    fatal: false,
    check: |guest| match guest.one("uuid") {
        Some(_) => Vec::new(),
        None => {
            let at = guest.one("name").map_or_else(|| guest.place(""), whole);
            let help = "add <uuid>, the one of `virsh domuuid` where the guest is defined already";
            vec![Found::new(at, "the guest has no <uuid>", help)]
        }
    },
};
