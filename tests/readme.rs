//! The README shows what the program prints.

use std::process::Command;

const README: &str = include_str!("../README.md");
const FIRST: &str = "cargo run --release -- apply --dry-run --root tests/captures/reference.capture profiles/kvm-realtime.toml";

/// To bring the README up to date, paste the output of its first command, without the patch.
#[test]
fn shows_the_real_plan() {
    let (_, arguments) = FIRST.split_once(" -- ").unwrap();
    assert!(README.contains(&format!("\n    {FIRST}\n")), "the README has the command");
    let output = Command::new(env!("CARGO_BIN_EXE_rtkvm-tune"))
        .args(arguments.split(' '))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (plan, _) = text.split_once("\n--- ").expect("a patch follows the plan");
    let shown = README.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    assert_eq!(shown.trim_end(), plan.trim_end());
}

#[test]
fn ci_runs_the_second_command() {
    let ci = include_str!("../.ci/run");
    assert!(README.contains("\n    cargo xtask test\n"));
    assert!(ci.lines().any(|line| line.trim_start_matches("exec ") == "cargo xtask test"), "{ci}");
}
