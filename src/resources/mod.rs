//! Layer 5: what can be observed and set on a machine, each kind once. A resource carries the value it should
//! have; observing says what it has now and after the next boot. Nothing here writes.

mod arguments;
mod attribute;
mod follow_up;

pub use arguments::{Arguments, Conflict, Ignored, drop_in, present};
pub use attribute::{Attribute, Value};
pub use follow_up::{
    IRQ_RULES, IRQ_SERVICE, IRQ_TIMER, IRQBALANCE_DROP_IN, IRQBALANCE_LIST, MOUNT_UNIT, follow_ups,
};

use crate::facts::Facts;
use crate::facts::definitions::DEFINITIONS;
use crate::formats::HostPath;
use crate::guest;
use crate::host::{Read, ReadError};
use serde::Serialize;

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
    /// Something that no program can set, as it was found.
    Check {
        /// What there is.
        found: Option<String>,
        /// What there should be.
        wanted: String,
        /// How the two stand.
        state: State,
    },
    /// A guest's definition in libvirt.
    Domain {
        /// The guest's name.
        name: String,
        /// The rendered document.
        xml: String,
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
    /// The running kernel was given it, and did not take it: its own words.
    Rejected(String),
    /// It would disturb guests that run: which, and how to do it all the same.
    Waiting(String),
    /// It cannot be set here: why.
    NotApplicable(String),
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

/// Where libvirt keeps the definitions of the system's guests (<https://libvirt.org/drvqemu.html>).
pub fn definition(name: &str) -> HostPath {
    HostPath::new(format!("{DEFINITIONS}/{name}.xml"))
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
            Resource::Domain { name, xml } => observe_domain(host, name, xml),
        }
    }

    /// Where it is; `None` for kernel arguments, which share a file.
    pub fn path(&self) -> Option<HostPath> {
        match self {
            Resource::Attribute(attribute) => Some(attribute.path.clone()),
            Resource::Arguments(_) | Resource::Check { .. } => None,
            Resource::File(file) => Some(file.path.clone()),
            Resource::Link { path, .. } => Some(path.clone()),
            Resource::Domain { name, .. } => Some(definition(name)),
        }
    }

    /// The value it should have, in one line.
    pub fn wanted(&self) -> String {
        match self {
            Resource::Attribute(attribute) => attribute.want.to_string(),
            Resource::Arguments(arguments) => arguments.to_string(),
            Resource::File(_) | Resource::Domain { .. } => AS_PLANNED.into(),
            Resource::Link { target, .. } => format!("-> {target}"),
            Resource::Check { wanted, .. } => wanted.clone(),
        }
    }
}

/// The value of a document that is as it should be; the diff has its text.
const AS_PLANNED: &str = "as planned";

/// The value of what the description of a machine does not tell.
fn unknown() -> Option<String> {
    Some("unknown".into())
}

/// The text of an owned file or link against the wanted one.
fn observe_text(found: Result<String, ReadError>, wanted: &str) -> Observed {
    let (running, state) = match found {
        Ok(text) if text == wanted => (Some(AS_PLANNED.into()), State::InLine),
        Ok(_) => (Some("other content".into()), State::Differs(None)),
        Err(ReadError::Absent) => (None, State::Missing),
        Err(ReadError::Untold) => (unknown(), State::Missing),
        Err(error) => (None, State::Differs(Some(error.to_string()))),
    };
    Observed { next_boot: running.clone(), running, state }
}

/// By meaning: libvirt rewrites what it is given.
fn observe_domain(host: &dyn Read, name: &str, xml: &str) -> Observed {
    let defined = || Some("defined".to_owned());
    let (running, state) = match host.file(&definition(name)) {
        Err(ReadError::Absent) => (None, State::Missing),
        Err(ReadError::Untold) => (unknown(), State::Missing),
        Err(error) => (None, State::Differs(Some(format!("its definition: {error}")))),
        Ok(file) => match guest::differences(&file.text(), xml) {
            Err(error) => (defined(), State::Differs(Some(error.to_string()))),
            Ok(found) if found.is_empty() => (Some(AS_PLANNED.to_owned()), State::InLine),
            Ok(found) if found.iter().any(|difference| difference.path == "/domain/uuid") => {
                (defined(), State::Differs(Some("another guest has its name, with another UUID".into())))
            }
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
