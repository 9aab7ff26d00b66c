//! The division of machines: what each gets, what is refused and in which words, and what holds on any machine.

#[path = "placement/devices.rs"]
mod devices;
#[path = "placement/expected.rs"]
mod expected;
#[path = "placement/injection.rs"]
mod injection;
#[path = "placement/machine.rs"]
mod machine;
#[path = "placement/properties.rs"]
mod properties;
#[path = "placement/refusals.rs"]
mod refusals;
#[path = "placement/remedies.rs"]
mod remedies;
#[path = "placement/together.rs"]
mod together;
