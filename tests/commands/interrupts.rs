//! Many interrupts, and those of devices that come up later.

use super::support::*;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

/// An x86 CPU has about 200 vectors: the plan says what does not fit, and stays with what it said.
#[test]
fn vectors_run_out_before_the_kernel_says_so() {
    let tree = Tree::reference();
    for number in 1000..2000 {
        tree.write(&format!("sys/kernel/irq/{number}/actions"), format!("eth0-rx-{number}\n"));
        tree.write(&format!("proc/irq/{number}/smp_affinity_list"), "2-7\n");
        tree.write(&format!("proc/irq/{number}/node"), "0\n");
    }
    // These stay where they are, on the CPUs of no node in particular.
    for number in 2000..2050 {
        tree.write(&format!("sys/kernel/irq/{number}/actions"), format!("eth1-rx-{number}\n"));
        tree.write(&format!("proc/irq/{number}/smp_affinity_list"), "0-1,8-9\n");
    }
    let plan = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
    let told =
        "CPUs 0-1,8-9 have about 200 interrupt vectors each, and all are taken: use more housekeeping CPUs";
    assert!(plan.contains(told), "{plan}");
    tree.tune(&["apply", REFERENCE]).expect(0);
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for number in 1000..2000 {
        *places.entry(tree.read(&format!("proc/irq/{number}/smp_affinity_list"))).or_default() += 1;
    }
    // Near its device as long as those CPUs have vectors, then on any housekeeping CPU.
    let [near, any, left] = ["0-1\n", "0-1,8-9\n", "2-7\n"].map(|place| places[place]);
    assert_eq!(near + any + left, 1000, "{places:?}");
    assert!((380..400).contains(&near) && (330..350).contains(&any), "{places:?}");

    let stands = tree.list();
    tree.tune(&["apply", REFERENCE]).expect(0);
    let again: Vec<_> =
        changed(&stands, &tree.list()).into_iter().filter(|path| path.starts_with("proc/")).collect();
    assert_eq!(again, Vec::<String>::new());
    let audit = tree.tune(&["verify", REFERENCE]).expect(1).out;
    assert!(audit.contains(told), "{audit}");
}

#[test]
fn hooks_are_put_where_interfaces_are_set_up() {
    let tree = Tree::reference();
    std::fs::create_dir_all(tree.at("etc/network/if-up.d")).expect("made");
    tree.tune(&["apply", REFERENCE]).expect(0);
    let hook = "etc/network/if-up.d/90-rtkvm-tune";
    let mode = std::fs::metadata(tree.at(hook)).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    let command = "/usr/bin/systemctl --no-block restart rtkvm-tune-irq.timer";
    assert!(tree.read(hook).ends_with(&format!("\nexec {command}\n")));
    let rules = tree.read("etc/udev/rules.d/90-rtkvm-tune.rules");
    assert_eq!(rules.matches(&format!("RUN+=\"{command}\"\n")).count(), 2, "{rules}");
    assert!(!tree.at("etc/NetworkManager").exists());
    // run-parts takes it: no dot in the name.
    let mut parts = std::process::Command::new("run-parts");
    let listed =
        tool(parts.args(["--list", &tree.at("etc/network/if-up.d").to_string_lossy()]), "debianutils");
    assert!(listed.expect(0).out.contains("90-rtkvm-tune"));
    tree.tune(&["revert"]).expect(0);
    assert!(!tree.at(hook).exists() && tree.at("etc/network/if-up.d").exists());
}
