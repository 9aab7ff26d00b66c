//! rtkvm-tune: plans, applies and audits a real-time KVM host, and renders its guests.
//!
//! The layers and their rules are in `ARCHITECTURE.md`.

pub mod cli;
pub mod engine;
pub mod facts;
pub mod formats;
pub mod guest;
pub mod host;
pub mod knobs;
pub mod placement;
pub mod plan;
pub mod profile;
pub mod resources;
