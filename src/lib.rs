//! rtkvm-tune: plans, applies and audits a real-time KVM host, and renders its guests.
//!
//! The layers and their rules are in `ARCHITECTURE.md`.

// What clippy.toml lists has effects: only `host` may.
#![deny(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types)]

pub mod cli;
pub mod engine;
pub mod facts;
pub mod formats;
pub mod guest;
#[expect(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod host;
pub mod journal;
pub mod knobs;
pub mod placement;
pub mod plan;
pub mod profile;
pub mod resources;
