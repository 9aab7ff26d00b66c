//! The command as operators run it: every verb, over recorded machines and in trees made from them.
//!
//! tests/commands/NAME.txt holds what is printed, byte for byte. After a wanted change of the output write them
//! anew with `UPDATE_EXPECT=1 cargo test --test commands`, and review the difference.
//!
//! Needs the packages strace, git and patch, grub-common and grub2-common, busybox-static, util-linux, prometheus,
//! python3-jsonschema, systemd, and cc with binutils, which Rust itself needs to link.

mod audit;
mod bad_input;
mod bad_profile;
mod checks;
mod failure;
mod faults;
mod guests;
mod hostile_tree;
mod in_use;
mod interrupts;
mod kernel_log;
mod knobs;
mod live;
mod live_values;
mod loaders;
mod opt_in;
mod output;
mod owners;
mod patch;
mod places;
mod readonly;
mod sequences;
mod support;
mod threads;
mod transaction;
mod tree;
mod trial;
mod undo;
mod verbs;
