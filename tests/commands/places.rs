//! Places of guests are remembered in libvirt's definitions: whoever comes and goes, the others stay.

use super::support::*;

fn profile(tree: &Tree, guests: &[(&str, u32)]) -> String {
    let host = "[host]\nhousekeeping-cpus-per-node = 2\nhousekeeping-memory-per-node = \"6GiB\"\n".to_owned();
    let guest = |(name, vcpus): &(&str, u32)| {
        format!("[[guest]]\nname = \"{name}\"\nvcpus = {vcpus}\nmemory = \"2GiB\"\n")
    };
    tree.note("places.toml", host + &guests.iter().map(guest).collect::<String>())
}

fn definition(tree: &Tree, name: &str) -> String {
    tree.read(&format!("etc/libvirt/qemu/{name}.xml"))
}

#[test]
fn guests_come_and_go_and_the_others_stay() {
    let tree = Tree::reference();
    tree.tune(&["apply", &profile(&tree, &[("a", 2), ("b", 4)])]).expect(0);
    let before = ["a", "b"].map(|name| definition(&tree, name));
    // Without what libvirt has, the larger guest would come first and `c` before `b`.
    tree.tune(&["apply", &profile(&tree, &[("c", 4), ("b", 4), ("a", 2)])]).expect(0);
    assert_eq!(["a", "b"].map(|name| definition(&tree, name)), before);
    // Somebody else's guest keeps what it is pinned to.
    let other = "<domain><name>db</name><memory unit='GiB'>4</memory><memoryBacking><hugepages><page size='1' unit='G'/>\
        </hugepages></memoryBacking><vcpu>1</vcpu><cputune><vcpupin vcpu='0' cpuset='10'/></cputune><numatune>\
        <memory mode='strict' nodeset='1'/></numatune></domain>";
    let tree = Tree::reference();
    tree.write("etc/libvirt/qemu/db.xml", other);
    let ran = tree.tune(&["apply", "--dry-run", &profile(&tree, &[("a", 6), ("b", 4)])]).expect(0);
    assert!(
        ran.out.contains("guest db is not of this profile and has CPUs 10, 4 pages of node 1"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("guests use 2, others 4 of 25"), "{}", ran.out);
    assert!(!definition(&tree, "db").is_empty());
    let ran = tree.tune(&["apply", "--dry-run", &profile(&tree, &[("a", 6), ("b", 6)])]).expect(2);
    assert!(ran.err.contains("5 are left: db (not of this profile) has 10"), "{}", ran.err);
}
