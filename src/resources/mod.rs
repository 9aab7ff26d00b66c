//! Layer 5: what can be observed and set on a machine, each kind once. A resource carries the value it should
//! have; observing says what it has now and after the next boot. Nothing here writes.

mod arguments;
mod attribute;
mod follow_up;

pub use arguments::{Arguments, Conflict, Ignored, drop_in, present};
pub use attribute::{Attribute, Value};
pub use follow_up::{
    IRQ_RULES, IRQ_SERVICE, IRQ_TIMER, IRQBALANCE_DROP_IN, IRQBALANCE_LIST, MOUNT_UNIT, WAKE_UP_UNIT,
    follow_ups,
};

use crate::facts::Facts;
use crate::formats::{HostPath, ImageCopy, Size};
use crate::guest;
use crate::host::{Read, ReadError};
use serde::Serialize;
use std::fmt;

/// One thing on the machine with the value it should have.
#[derive(Debug, Clone)]
pub enum Resource {
    /// A value in sysfs or procfs: in force now, gone at the next boot.
    Attribute(Attribute),
    /// Kernel arguments: from the next boot on.
    Arguments(Arguments),
    /// A whole file that we own.
    File(OwnedFile),
    /// A symbolic link that we own.
    Link {
        /// Where it is.
        path: HostPath,
        /// Where it points.
        target: String,
    },
    /// Something that cannot be written, as it was found.
    Check {
        /// What there is.
        found: Option<String>,
        /// What there should be.
        wanted: String,
        /// How the two stand.
        state: State,
        /// The unit that keeps it so, where one does: where it is not so the unit starts anew.
        kept_by: Option<&'static str>,
    },
    /// A disk of a guest: there, or to be made.
    Disk {
        /// The guest's name.
        guest: String,
        /// Where it is.
        path: HostPath,
        /// What makes it; `None` where the image is not known, as it need not be for a disk that is there.
        copy: Option<ImageCopy>,
    },
    /// Whether libvirt starts a guest with the host.
    Autostart {
        /// Where that is (see [`crate::formats::Connection::autostart`]).
        path: HostPath,
        /// The guest's definition, to which libvirt puts a link there.
        definition: HostPath,
        /// Whether it does.
        on: bool,
    },
    /// A guest's definition in libvirt.
    Domain {
        /// The guest's name.
        name: String,
        /// Where libvirt has it (see [`crate::formats::Connection::definition`]).
        path: HostPath,
        /// The rendered document; `None`: it must not be defined.
        xml: Option<String>,
    },
    /// Something that this machine has not got, or that would be wrong here: nothing is written.
    Unfit {
        /// The value it would have.
        wanted: String,
        /// Why it cannot be set.
        reason: String,
    },
}

/// A whole file that we own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedFile {
    /// Where it is.
    pub path: HostPath,
    /// What it should say.
    pub content: String,
    /// Its permission bits.
    pub mode: u32,
}

/// How a resource stands to the value it should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "reason")]
pub enum State {
    /// As it should be.
    InLine,
    /// Not there yet.
    Missing,
    /// There, with another value; the reason where the values alone do not say it.
    Differs(Option<String>),
    /// Set for the next boot, not yet running.
    RebootPending,
    /// Set, and taken by the kernel at an event that it does not choose: which, and what is until then.
    Pending(String),
    /// The running kernel was given it, and did not take it: its own words.
    Rejected(String),
    /// It would disturb guests that run: which, and how to do it all the same.
    Waiting(String),
    /// It cannot be set here: why.
    NotApplicable(String),
    /// Somebody else sets it: who, and to what.
    Foreign(String),
    /// Whether it is in force cannot be told: why.
    Unverifiable(String),
    /// It has to be done by hand: what.
    ByHand(String),
    /// We set it once, and nothing asks for it any more.
    Obsolete,
}

/// What was found of a resource.
#[derive(Debug, Clone, Serialize)]
pub struct Observed {
    /// The value in force; `None` if there is none.
    pub running: Option<String>,
    /// The value after the next boot; `None` if there is none or it cannot be known.
    pub next_boot: Option<String>,
    /// The comparison.
    #[serde(flatten)]
    pub state: State,
}

impl Resource {
    /// Compares it with the machine.
    pub fn observe(&self, host: &dyn Read, facts: &Facts) -> Observed {
        match self {
            Resource::Attribute(attribute) => attribute.observe(host),
            Resource::Arguments(arguments) => arguments.observe(facts),
            Resource::File(file) => {
                observe_text(host.file(&file.path).map(|f| f.text().into_owned()), &file.content)
            }
            Resource::Link { path, target } => {
                observe_text(host.link(path).map(|link| link.to_string()), target)
            }
            Resource::Check { found, state, .. } => {
                Observed { running: found.clone(), next_boot: None, state: state.clone() }
            }
            Resource::Disk { path, .. } => observe_disk(host, path),
            Resource::Autostart { path, on, .. } => observe_autostart(host, path, *on),
            Resource::Domain { path, xml, .. } => observe_domain(host, path, xml.as_deref()),
            Resource::Unfit { reason, .. } => {
                Observed { running: None, next_boot: None, state: State::NotApplicable(reason.clone()) }
            }
        }
    }

    /// Where it is; `None` for kernel arguments, which share a file, and for what is not there.
    pub fn path(&self) -> Option<&HostPath> {
        match self {
            Resource::Attribute(attribute) => Some(&attribute.path),
            Resource::Arguments(_) | Resource::Check { .. } | Resource::Unfit { .. } => None,
            Resource::File(file) => Some(&file.path),
            Resource::Link { path, .. }
            | Resource::Disk { path, .. }
            | Resource::Autostart { path, .. }
            | Resource::Domain { path, .. } => Some(path),
        }
    }

    /// The value it should have, in one line.
    pub fn wanted(&self) -> String {
        match self {
            Resource::Attribute(attribute) => attribute.want.to_string(),
            Resource::Arguments(arguments) => arguments.to_string(),
            Resource::Domain { xml: None, .. } => "not defined".into(),
            Resource::File(_) | Resource::Domain { .. } => AS_PLANNED.into(),
            Resource::Link { target, .. } => format!("-> {target}"),
            Resource::Disk { copy: None, .. } => THERE.into(),
            Resource::Disk { copy: Some(ImageCopy { base, format, bytes, .. }), .. } => {
                format!("{} of {}, copied from {base}", format.name(), Size(*bytes).gib())
            }
            Resource::Autostart { on, .. } => on_off(*on).into(),
            Resource::Check { wanted, .. } | Resource::Unfit { wanted, .. } => wanted.clone(),
        }
    }
}

/// Why a definition is not touched.
const FOREIGN: &str = "a guest of this name is there already, and is not this program's";

/// The value of a document that is as it should be; the diff has its text.
const AS_PLANNED: &str = "as planned";

/// The value of a disk that is there: what is in it is the guest's.
const THERE: &str = "there";

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// The value of what the description of a machine does not tell.
fn unknown() -> Option<String> {
    Some("unknown".into())
}

/// How a value of the kernel's stands that could not be read: one that it has not got cannot be set either.
pub fn untold(path: &HostPath, error: ReadError) -> State {
    match error {
        ReadError::Absent => State::NotApplicable(format!("the kernel has no {path}")),
        ReadError::Untold => State::NotApplicable(format!("{path} {error}")),
        ReadError::NoEthtool => State::ByHand(format!("{path} {error}")),
        error => unread(path, error),
    }
}

/// How something stands that could not be read.
fn unread(what: impl fmt::Display, error: ReadError) -> State {
    match error.forbidden() {
        Some(why) => State::Unverifiable(format!("{what}: {error}; {why}")),
        None => State::Differs(Some(format!("{what}: {error}"))),
    }
}

/// The text of an owned file or link against the wanted one.
fn observe_text(found: Result<String, ReadError>, wanted: &str) -> Observed {
    let (running, state) = match found {
        Ok(text) if text == wanted => (Some(AS_PLANNED.into()), State::InLine),
        Ok(_) => (Some("other content".into()), State::Differs(None)),
        Err(ReadError::Absent) => (None, State::Missing),
        Err(ReadError::Untold) => (unknown(), State::Missing),
        Err(error) => (None, unread("the file", error)),
    };
    Observed { next_boot: running.clone(), running, state }
}

/// Whatever is there is the disk.
fn observe_disk(host: &dyn Read, path: &HostPath) -> Observed {
    let (running, state) = match host.image(path) {
        Ok(_) => (Some(THERE.into()), State::InLine),
        Err(ReadError::Absent) => (None, State::Missing),
        Err(ReadError::Untold) => (unknown(), State::Missing),
        Err(error) => (None, unread("the disk", error)),
    };
    Observed { next_boot: running.clone(), running, state }
}

fn observe_autostart(host: &dyn Read, path: &HostPath, on: bool) -> Observed {
    let (running, state) = match host.link(path) {
        Err(ReadError::Untold) => (unknown(), State::Missing),
        Err(error) if error != ReadError::Absent => (None, unread("the link", error)),
        found if found.is_ok() == on => (Some(on_off(on).into()), State::InLine),
        // A guest that is not defined yet is not started either.
        _ if on => (None, State::Missing),
        _ => (Some(on_off(true).into()), State::Differs(None)),
    };
    Observed { next_boot: running.clone(), running, state }
}

/// By meaning: libvirt rewrites what it is given.
fn observe_domain(host: &dyn Read, path: &HostPath, xml: Option<&str>) -> Observed {
    let defined = || Some("defined".to_owned());
    let found = host.file(path);
    let Some(xml) = xml else {
        let state = match &found {
            Err(ReadError::Absent | ReadError::Untold) => State::InLine,
            Err(error) => State::Differs(Some(format!("its definition: {error}"))),
            Ok(file) if guest::is_ours(&file.text()) => State::Differs(None),
            Ok(_) => State::Differs(Some(FOREIGN.into())),
        };
        let running = if state == State::InLine { None } else { defined() };
        return Observed { next_boot: running.clone(), running, state };
    };
    let (running, state) = match found {
        Err(ReadError::Absent) => (None, State::Missing),
        Err(ReadError::Untold) => (unknown(), State::Missing),
        Err(error) => (None, unread("its definition", error)),
        Ok(file) => match guest::differences(&file.text(), xml) {
            Err(error) => (defined(), State::Differs(Some(error.to_string()))),
            Ok(found) if found.is_empty() => (Some(AS_PLANNED.to_owned()), State::InLine),
            Ok(_) if !guest::is_ours(&file.text()) => (defined(), State::Differs(Some(FOREIGN.into()))),
            Ok(found) => {
                let paths: Vec<_> = found.iter().take(3).map(|difference| difference.path.clone()).collect();
                let more =
                    if found.len() > 3 { format!(" and {} more", found.len() - 3) } else { String::new() };
                (defined(), State::Differs(Some(format!("{}{more}", paths.join(", ")))))
            }
        },
    };
    Observed { next_boot: running.clone(), running, state }
}
