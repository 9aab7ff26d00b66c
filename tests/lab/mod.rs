//! Tests on a real Debian host, emulated: `cargo xtask lab test [FILTER]`. They are compiled into xtask, so that they
//! cannot rot; `cargo test` runs none of them.

use super::{Host, Test};

mod booted;
mod drift;
mod guest;
mod live;
mod pages;
mod power;
mod revert;
mod state;
mod trial;

/// The profile of most tests.
const PROFILE: &str = "profiles/kvm-realtime.toml";
/// How it divides the guide's machine.
const HOUSEKEEPING: &str = "0-1,8-9";
const ISOLATED: &str = "2-7,10-15";
/// The pages of 1 GiB on each node.
const PAGES: &str = "25";

/// Every test, in the order they start.
pub(super) const TESTS: &[Test] = &[
    ("live::what_is_announced_is_what_changes", live::what_is_announced_is_what_changes),
    ("booted::the_machine_is_as_planned", booted::the_machine_is_as_planned),
    (
        "booted::a_kernel_update_and_a_foreign_drop_in_leave_our_arguments",
        booted::a_kernel_update_and_a_foreign_drop_in_leave_our_arguments,
    ),
    ("booted::outlives_a_panic_and_a_power_cut", booted::outlives_a_panic_and_a_power_cut),
    ("revert::leaves_everything_as_on_the_first_day", revert::leaves_everything_as_on_the_first_day),
    ("power::a_cut_leaves_the_old_host_or_the_new", power::a_cut_leaves_the_old_host_or_the_new),
    ("trial::confirms_itself", trial::confirms_itself),
    ("trial::falls_back_from_a_panic", trial::falls_back_from_a_panic),
    ("trial::falls_back_from_a_hang", trial::falls_back_from_a_hang),
    ("trial::leaves_the_default_after_a_failed_audit", trial::leaves_the_default_after_a_failed_audit),
    ("drift::is_found_and_mended", drift::is_found_and_mended),
    ("guest::runs_where_it_was_placed", guest::runs_where_it_was_placed),
    ("live::libvirt_and_a_capture_agree", live::libvirt_and_a_capture_agree),
    ("pages::too_many_are_reported", pages::too_many_are_reported),
    ("pages::fragmented_memory_is_reported", pages::fragmented_memory_is_reported),
];
