//! Tests on a real Debian host, emulated: `cargo xtask lab test [FILTER]`. They are compiled into xtask, so that they
//! cannot rot; `cargo test` runs none of them.

use anyhow::Result;

use super::{Host, Job, Work};

mod booted;
mod drift;
mod guest;
mod inside;
mod knobs;
mod live;
mod opt_in;
mod pages;
mod power;
mod revert;
mod state;
mod topologies;
mod trial;

/// The profile of most tests.
const PROFILE: &str = "profiles/kvm-realtime.toml";
/// How it divides the guide's machine.
const HOUSEKEEPING: &str = "0-1,8-9";
const ISOLATED: &str = "2-7,10-15";
/// The pages of 1 GiB on each node.
const PAGES: &str = "25";

/// The guide's machine with the program installed, before any apply.
fn installed() -> Result<Host> {
    let host = Host::boot("reference")?;
    host.put_program()?;
    Ok(host)
}

/// Those with the most to say, in the order in which they start: the long ones first.
pub(super) const TESTS: &[Job] = &[
    (
        "applied",
        Work::Shared(
            Host::boot_applied,
            &[
                ("booted::the_machine_is_as_planned", booted::the_machine_is_as_planned),
                ("knobs::take_effect_after_a_boot", knobs::take_effect_after_a_boot),
                ("drift::is_found_and_mended", drift::is_found_and_mended),
                ("guest::runs_where_it_was_placed", guest::runs_where_it_was_placed),
            ],
        ),
    ),
    ("live::what_is_announced_is_what_changes", Work::Alone(live::what_is_announced_is_what_changes)),
    (
        "booted::a_kernel_update_and_a_foreign_drop_in_leave_our_arguments",
        Work::Alone(booted::a_kernel_update_and_a_foreign_drop_in_leave_our_arguments),
    ),
    (
        "revert::leaves_everything_as_on_the_first_day",
        Work::Alone(revert::leaves_everything_as_on_the_first_day),
    ),
    (
        "installed",
        Work::Shared(
            installed,
            &[
                ("live::libvirt_and_a_capture_agree", live::libvirt_and_a_capture_agree),
                ("pages::too_many_are_reported", pages::too_many_are_reported),
            ],
        ),
    ),
    ("pages::fragmented_memory_is_reported", Work::Alone(pages::fragmented_memory_is_reported)),
];

/// They run with `--all`, and by name.
pub(super) const MORE: &[Job] = &[
    ("inside::a_guest_tunes_itself_by_its_seed", Work::Alone(inside::a_guest_tunes_itself_by_its_seed)),
    ("opt_in::all_take_effect_after_a_boot", Work::Alone(opt_in::all_take_effect_after_a_boot)),
    // One random moment finds little: LAB_CUTS gives more. A kill at every call of an apply is tried outside of the lab.
    ("power::a_cut_leaves_the_old_host_or_the_new", Work::Alone(power::a_cut_leaves_the_old_host_or_the_new)),
    ("trial::confirms_itself", Work::Alone(trial::confirms_itself)),
    (
        "trial::leaves_the_default_after_a_failed_audit",
        Work::Alone(trial::leaves_the_default_after_a_failed_audit),
    ),
    ("trial::falls_back_from_a_hang", Work::Alone(trial::falls_back_from_a_hang)),
    ("trial::falls_back_from_a_panic", Work::Alone(trial::falls_back_from_a_panic)),
    ("booted::outlives_a_panic_and_a_power_cut", Work::Alone(booted::outlives_a_panic_and_a_power_cut)),
    ("topologies::interleaved", Work::Alone(topologies::interleaved)),
    ("topologies::smt", Work::Alone(topologies::smt)),
    ("topologies::memory_only", Work::Alone(topologies::memory_only)),
];

/// Tests that run only when their whole name is given: each takes longer than all the others.
pub(super) const LONG: &[Job] = &[
    ("topologies::dies", Work::Alone(topologies::dies)),
    ("topologies::large", Work::Alone(topologies::large)),
];
