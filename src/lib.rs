//! rtkvm-tune: plans, applies and audits a real-time KVM host, and renders its guests.
//!
//! The layers and their rules are in `ARCHITECTURE.md`.

pub mod formats;
pub mod guest;
