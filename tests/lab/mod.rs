//! Tests on a real Debian host, emulated: `cargo xtask lab test [FILTER]`. They are compiled into xtask, so that they
//! cannot rot; `cargo test` runs none of them.

use super::{Host, Test};

mod booted;
mod drift;
mod live;
mod state;

/// The profile of most tests.
const PROFILE: &str = "profiles/kvm-realtime.toml";
/// How it divides the guide's machine.
const HOUSEKEEPING: &str = "0-1,8-9";
const ISOLATED: &str = "2-7,10-15";
/// The pages of 1 GiB on each node.
const PAGES: &str = "25";

/// Every test, in the order they run.
pub(super) const TESTS: &[Test] = &[
    ("live::what_is_announced_is_what_changes", live::what_is_announced_is_what_changes),
    ("booted::the_machine_is_as_planned", booted::the_machine_is_as_planned),
    ("live::libvirt_and_a_capture_agree", live::libvirt_and_a_capture_agree),
    ("booted::a_foreign_drop_in_leaves_our_arguments", booted::a_foreign_drop_in_leaves_our_arguments),
    ("drift::is_found_and_mended", drift::is_found_and_mended),
    ("live::pages_that_are_not_granted_are_reported", live::pages_that_are_not_granted_are_reported),
];
