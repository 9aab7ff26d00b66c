//! Guests in libvirt: whose they are, and what defines and undefines them.

use super::support::*;

/// A guest of somebody else.
const FOREIGN: &str = "<domain type='kvm'>\n  <name>rt0</name>\n  <uuid>3dd5f5a5-0000-4000-8000-123456789abc</uuid>\n  \
    <metadata><o:owner xmlns:o='urn:other'/></metadata>\n  <memory unit='KiB'>1048576</memory>\n</domain>\n";
/// Our mark.
const MARK: &str = "<rtkvm:owner xmlns:rtkvm='urn:rtkvm-tune:owner:1'/>";

fn text() -> String {
    std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable")
}

/// The reference profile without its guest, and with these lines instead.
fn without_guest(tree: &Tree, lines: &str) -> String {
    let text = text();
    let (host, _) = text.split_once("[[guest]]").expect("a guest");
    tree.note("other.toml", format!("{host}{lines}"))
}

#[test]
fn a_guest_of_somebody_else_is_never_touched() {
    let tree = Tree::reference();
    tree.write(GUEST, FOREIGN);
    let first = tree.list();
    let ran = tree.tune(&["apply", REFERENCE]).expect(2);
    for told in ["nothing was written", "a guest rt0 that is not this program's", "`apply --take-over`"] {
        assert!(ran.err.contains(told), "{told}: {}", ran.err);
    }
    assert_eq!(changed(&first, &tree.list()), Vec::<String>::new());
    let absent = without_guest(&tree, "[[guest]]\nname = \"rt0\"\nstate = \"absent\"\n");
    let plan = tree.tune(&["apply", "--dry-run", &absent]).expect(0).out;
    assert!(plan.contains("undefine it by hand, or take it out of the profile"), "{plan}");
    assert!(!plan.contains("+++ /dev/null"), "{plan}");
    tree.tune(&["apply", &absent]).expect(2);
    // Not even when it may take over: what is no longer defined is nobody's.
    tree.tune(&["apply", "--take-over", &absent]).expect(2);
    assert_eq!(changed(&first, &tree.list()), Vec::<String>::new());

    tree.tune(&["apply", "--take-over", REFERENCE]).expect(0);
    let taken = tree.read(GUEST);
    // libvirt knows a guest by its UUID and takes no other for the same name.
    assert!(taken.contains("<uuid>3dd5f5a5-0000-4000-8000-123456789abc</uuid>"), "{taken}");
    assert!(taken.contains(MARK), "{taken}");
    assert!(!tree.tune(&["verify", REFERENCE]).expect(1).out.contains("guest.domain"));
    assert!(!tree.tune(&["apply", REFERENCE]).expect(0).out.contains("rt0"));
    tree.tune(&["revert"]).expect(0);
    assert_eq!(tree.read(GUEST), FOREIGN);
}

/// The mark is that of the whole document: what stands elsewhere in it, or in a comment, is none.
#[test]
fn every_rendered_guest_is_marked() {
    let tree = Tree::reference();
    tree.write(
        "etc/rtkvm-tune/templates/mine.xml",
        "{% extends 'domain.xml' %}{% block devices %}\n    <!-- mine -->{% endblock devices %}",
    );
    let profile = text().replace("[[guest]]\n", "[[guest]]\ntemplate = \"mine.xml\"\n");
    let profile = tree.note("mine.toml", profile);
    let xml = tree.tune(&["render", &profile]).expect(0).out;
    assert_eq!(xml.matches(MARK).count(), 1, "{xml}");
    assert!(xml.contains("<!-- mine -->"), "{xml}");
}

#[test]
fn a_guest_is_undefined_by_name_only() {
    let tree = Tree::reference();
    tree.tune(&["apply", REFERENCE]).expect(0);
    let defined = tree.read(GUEST);

    // Left out, it stays, and it is told.
    let gone = without_guest(&tree, "");
    let ran = tree.tune(&["apply", "--dry-run", &gone]).expect(0);
    assert!(ran.out.contains("guest rt0 is not in the profile and stays defined"), "{}", ran.out);
    tree.tune(&["apply", &gone]).expect(0);
    assert_eq!(tree.read(GUEST), defined);
    assert!(tree.tune(&["verify", &gone]).expect(1).out.contains("state = \"absent\""));

    // By name it goes, once.
    let absent = without_guest(&tree, "[[guest]]\nname = \"rt0\"\nstate = \"absent\"\n");
    assert!(tree.tune(&["verify", &absent]).expect(1).out.contains("guest.domain: guest rt0"));
    let ran = tree.tune(&["apply", &absent]).expect(0);
    assert!(ran.out.contains("done     undefine guest rt0"), "{}", ran.out);
    assert!(!tree.at(GUEST).exists());
    assert!(!tree.tune(&["apply", &absent]).expect(0).out.contains("rt0"));
    tree.tune(&["revert"]).expect(0);
    assert!(!tree.at(GUEST).exists());
}

/// One that was taken over comes back with a revert though it was undefined meanwhile.
#[test]
fn a_guest_of_somebody_else_comes_back() {
    let tree = Tree::reference();
    tree.write(GUEST, FOREIGN);
    tree.tune(&["apply", "--take-over", REFERENCE]).expect(0);
    let absent = without_guest(&tree, "[[guest]]\nname = \"rt0\"\nstate = \"absent\"\n");
    tree.tune(&["apply", &absent]).expect(0);
    assert!(!tree.at(GUEST).exists());
    tree.tune(&["revert"]).expect(0);
    assert_eq!(tree.read(GUEST), FOREIGN);
}

/// What a running guest gets at its next start is told, before and after the apply.
#[test]
fn what_waits_for_a_restart_is_named() {
    let tree = Tree::reference();
    tree.tune(&["apply", REFERENCE]).expect(0);
    super::in_use::run_guest(&tree, "rt0");
    let running = format!("<domstatus state='running' pid='812'>\n{}</domstatus>\n", tree.read(GUEST));
    tree.write("run/libvirt/qemu/rt0.xml", running);
    assert!(!tree.tune(&["verify", REFERENCE]).expect(1).out.contains("until its next start"));

    let profile = tree.note("less.toml", text().replace("memory = \"16GiB\"", "memory = \"8GiB\""));
    let plan = tree.tune(&["apply", "--dry-run", &profile]).expect(0).out;
    let told = "guest rt0 runs: its new definition takes effect at its next start (/domain/memory, /domain/currentMemory)";
    assert!(plan.contains(told), "{plan}");
    let applied = tree.tune(&["apply", &profile]).expect(0).out;
    assert!(applied.contains(&format!("\nGuests that run\n  {told}\n")), "{applied}");
    assert!(!tree.tune(&["apply", &profile]).expect(0).out.contains("Guests that run"));
    let audit = tree.tune(&["verify", &profile]).expect(1).out;
    let told = "guest rt0 runs with an older definition until its next start (/domain/memory, /domain/currentMemory)";
    assert!(audit.contains(told), "{audit}");

    let absent = without_guest(&tree, "[[guest]]\nname = \"rt0\"\nstate = \"absent\"\n");
    let plan = tree.tune(&["apply", "--dry-run", &absent]).expect(0).out;
    assert!(plan.contains("guest rt0 runs on without a definition"), "{plan}");
}

/// A definition of another libvirt is no file of a tree.
#[test]
fn a_tree_has_no_other_libvirt() {
    let tree = Tree::reference();
    let profile = text().replace("[host]\n", "[host]\nlibvirt-uri = \"qemu:///session\"\n");
    let profile = tree.note("session.toml", profile);
    let ran = tree.tune(&["apply", &profile]).expect(1);
    assert!(ran.out.contains("to do    define guest rt0 in qemu:///session in that system"), "{}", ran.out);
    assert!(!tree.at(".libvirt").exists() && !tree.at(GUEST).exists());
    tree.tune(&["revert"]).expect(0);
    let ran = tree.tune(&["verify", "--connect", "qemu:///session", REFERENCE]).expect(2);
    assert!(ran.err.contains("cannot be used with"), "{}", ran.err);
    for (uri, told) in
        [("xen:///system", "QEMU driver"), ("qemu+ext:///system?command=/bin/sh", "transport `ext`")]
    {
        let ran = tune(&["verify", "--connect", uri, REFERENCE]).expect(2);
        assert!(ran.err.contains(told), "{}", ran.err);
    }
}

/// Whatever template made the document: what libvirt or QEMU would refuse is refused, what makes it late is told.
#[test]
fn a_rendered_guest_is_held_against_the_rules_of_lint() {
    let tree = Tree::reference();
    let profile = text().replace("[[guest]]\n", "[[guest]]\ntemplate = \"mine.xml\"\n");
    let profile = tree.note("mine.toml", profile);
    let template = |block: &str, text: &str| {
        let text = format!("{{% extends 'domain.xml' %}}{{% block {block} %}}\n    {text}{{% endblock %}}");
        tree.write("etc/rtkvm-tune/templates/mine.xml", text);
    };
    template("cpu", "<feature policy='require' name='tsc_deadline'/>");
    let first = tree.list();
    let ran = tree.tune(&["apply", &profile]).expect(2);
    for told in
        ["guest rt0: ", "(cpu.feature-name, line ", "name='tsc_deadline'/>)", "template = \"mine.xml\""]
    {
        assert!(ran.err.contains(told), "{told}: {}", ran.err);
    }
    assert_eq!(changed(&first, &tree.list()), Vec::<String>::new());
    template("devices", "<graphics type='vnc'/>");
    let plan = tree.tune(&["apply", "--dry-run", &profile]).expect(0).out;
    assert!(plan.contains("guest rt0: the guest has <graphics> (devices.screen, line "), "{plan}");
    // Neither a file nor the environment.
    for (text, told) in [
        ("{% include '/etc/passwd' %}", "/etc/passwd"),
        ("{{ get_env(name='HOME') }}", "Unknown function `get_env`"),
        ("{{ now() }}", "Unknown function `now`"),
    ] {
        template("devices", text);
        let ran = tree.tune(&["apply", &profile]).expect(2);
        assert!(ran.err.contains("template `mine.xml`") && ran.err.contains(told), "{}", ran.err);
    }
}

/// In a tree no program is run: a disk is named, and left to the system that is there later.
#[test]
fn a_tree_gets_no_disk() {
    let tree = Tree::reference();
    let disk =
        "[[guest.disk]]\nsource = \"/srv/rt0.img\"\nbase-image = \"/srv/base.img\"\n[[guest.network]]\n";
    let profile = tree.note("disk.toml", text().replacen("[[guest.network]]\n", disk, 1));
    let ran = tree.tune(&["apply", "--dry-run", &profile]).expect(2);
    assert!(
        ran.err.contains("base image /srv/base.img cannot be used") && ran.err.contains("it does not exist")
    );
    tree.write("srv/base.img", "a secret. ".repeat(100));
    let plan = tree.tune(&["apply", "--dry-run", &profile]).expect(0).out;
    assert!(plan.contains("raw of 0.00 GiB, copied from /srv/base.img"), "{plan}");
    // Planned from a recording as well, which has nothing of what is in the image.
    let capture = tree.tune(&["capture", &profile]).expect(0).out;
    assert!(capture.contains("/srv/base.img [0600]: length=1000 changed="), "{capture}");
    assert!(!capture.contains("a secret"), "{capture}");
    let capture = tree.note("with.capture", capture);
    let plan = tune(&["apply", "--dry-run", "--root", &capture, &profile]).expect(0).out;
    assert!(plan.contains("raw of 0.00 GiB, copied from /srv/base.img"), "{plan}");
    let ran = tree.tune(&["apply", &profile]).expect(1);
    assert!(ran.out.contains("to do    make disk /srv/rt0.img"), "{}", ran.out);
    assert!(!tree.at("srv/rt0.img").exists());
    tree.tune(&["revert"]).expect(0);
    // Autostart is a link.
    let profile = tree.note("auto.toml", text().replace("[[guest]]\n", "[[guest]]\nautostart = true\n"));
    tree.tune(&["apply", &profile]).expect(0);
    let link = tree.at("etc/libvirt/qemu/autostart/rt0.xml");
    assert_eq!(std::fs::read_link(&link).unwrap().to_str(), Some("/etc/libvirt/qemu/rt0.xml"));
    assert!(!tree.tune(&["verify", &profile]).expect(1).out.contains("guest.autostart"));
    tree.tune(&["revert"]).expect(0);
    assert!(link.symlink_metadata().is_err());
}
