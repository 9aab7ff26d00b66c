//! Layer 4: a guest's placement as libvirt domain XML, and that XML compared by meaning. No I/O.

mod check;
pub mod cloud_init;
pub mod compare;
pub mod domain;
pub mod lint;
mod owner;
mod reading;
pub mod template;

pub use check::check;
pub use compare::{Difference, differences};
pub use domain::{Domain, Host};
pub use owner::{is_ours, marked, of_status, status, uuid, with_uuid};
pub use reading::XmlError;
pub use template::{DEFAULT_TEMPLATE, TemplateError, Templates, default_template};
