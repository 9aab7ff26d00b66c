//! Machines, templates and words of the command line that cannot be used.

use super::support::*;

/// Ends in 2 with these words on standard error, and prints nothing.
#[track_caller]
fn refused(ran: Ran, said: &[&str]) {
    assert_eq!((ran.status, ran.out.as_str()), (Some(2), ""), "{}", ran.err);
    for part in said {
        assert!(ran.err.contains(part), "no `{part}` in\n{}", ran.err);
    }
    assert!(ran.err.starts_with("error: ") && !ran.err.contains("panicked"), "{}", ran.err);
}

/// Every verb that takes a machine.
const VERBS: [&[&str]; 5] = [
    &["apply", "--dry-run", REFERENCE],
    &["verify", REFERENCE],
    &["render", REFERENCE],
    &["inspect"],
    &["capture"],
];

#[test]
fn machines_that_are_none() {
    let tree = Tree::empty();
    let capture = |text: &str| format!("rtkvm-tune capture 1\n{text}");
    let cases: &[(&str, Vec<u8>, &[&str])] = &[
        (
            "broken.capture",
            capture("/a [0444]: 1\nnonsense\n").into(),
            &["broken.capture: line 3: no value: `nonsense`"],
        ),
        ("cut.capture", capture("/a [0444]|\n  x\n").into(), &["cut.capture: line 3: not a `  | ` line"]),
        ("escape.capture", capture("/a [0444]: \\q\n").into(), &["escape.capture: line 2: bad escape"]),
        (
            "up.capture",
            capture("/../etc/passwd [0444]: 1\n").into(),
            &["up.capture: line 2: not a plain absolute path"],
        ),
        (
            "new.capture",
            "rtkvm-tune capture 2\n".into(),
            &["new.capture: `rtkvm-tune capture 2`", "use a newer rtkvm-tune"],
        ),
        (
            "no-cpus.capture",
            capture("/a [0444]: 1\n").into(),
            &["no-cpus.capture: ", "/sys/devices/system/cpu/online"],
        ),
        ("text", "hello\n".into(), &["text: not a capture: the first line must be `rtkvm-tune capture 1`"]),
        ("empty", "".into(), &["empty: not a capture"]),
        (
            "binary",
            b"\x7fELF\xff\xfe".to_vec(),
            &["binary: neither a capture nor a capabilities document: not UTF-8"],
        ),
        ("domain.xml", "<domain/>".into(), &["domain.xml: no <topology><cells> in it", "virsh capabilities"]),
        ("broken.xml", "<capabilities>".into(), &["broken.xml: not an XML document: "]),
        ("cells.xml", "<topology><cells><cell id='x'/></cells></topology>".into(), &["cells.xml: ", "id"]),
        ("no-cpus.xml", "<topology><cells/></topology>".into(), &["no-cpus.xml: its cells have no CPUs"]),
        (
            "bomb.xml",
            "<!DOCTYPE a [<!ENTITY b 'bbbbbbbb'><!ENTITY c '&b;&b;&b;'>]><a>&c;</a>".into(),
            &["bomb.xml: not an XML document: "],
        ),
    ];
    for (name, text, said) in cases {
        let machine = tree.note(name, text);
        for verb in VERBS {
            refused(tune(&[verb, &["--root", &machine]].concat()), said);
        }
    }
    for verb in VERBS {
        refused(tree.tune(verb), &[&format!("{}: ", tree.name()), "/sys/devices/system/cpu/online"]);
        refused(tune(&[verb, &["--root", "/nowhere"]].concat()), &["/nowhere", "No such file or directory"]);
    }
    assert_eq!(tree.list().len(), 1);
}

#[test]
fn apply_needs_a_machine_that_can_be_written() {
    let recorded = "tests/captures/reference.capture";
    let before = std::fs::read(format!("{SOURCES}/{recorded}")).expect("readable");
    refused(
        tune(&["apply", REFERENCE, "--root", recorded]),
        &[recorded, "it can be planned for, not written to"],
    );
    assert_eq!(std::fs::read(format!("{SOURCES}/{recorded}")).expect("readable"), before);
    refused(tune(&["apply", REFERENCE, "--root", "/nowhere"]), &["/nowhere does not exist"]);
    // An empty directory is no machine: nothing is made in it but the lock.
    let tree = Tree::empty();
    refused(tree.tune(&["apply", REFERENCE]), &[tree.name(), "/sys/devices/system/cpu/online"]);
    assert!(tree.list().keys().all(|path| path.is_empty()), "{:?}", tree.list());
}

#[test]
fn an_unknown_boot_loader_is_refused_before_anything_is_written() {
    for missing in ["etc/default/grub", "etc/debian_version"] {
        let tree = Tree::reference();
        std::fs::remove_file(tree.at(missing)).expect("removed");
        let before = tree.list();
        let ran = tree.tune(&["apply", REFERENCE]);
        refused(
            ran,
            &["nothing was written", "the boot loader is not known here", "boot-loader = \"manual\""],
        );
        let paths = changed(&before, &tree.list());
        assert!(paths.is_empty(), "{paths:?}");
        let plan = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
        assert!(
            plan.contains("! cpu.isolcpus") && plan.contains("the boot loader is not known here"),
            "{plan}"
        );
        // What a reboot forgets needs no boot loader.
        tree.tune(&["apply", "--runtime", REFERENCE]).expect(0);
    }
}

#[test]
fn templates_that_are_wrong() {
    let built_in =
        std::fs::read_to_string(format!("{SOURCES}/templates/builtin/x86_64.xml")).expect("readable");
    let pin = "    <emulatorpin cpuset='{{ emulator_cpus }}'/>\n";
    assert!(built_in.contains(pin));
    let cases: &[(&str, String, &[&str])] = &[
        (
            "domain.xml",
            "<domain>\n{{ nam }}\n</domain>\n".into(),
            &["template `domain.xml`, line 2: ", "nam"],
        ),
        ("domain.xml", "<domain>\n\n{% if %}\n".into(), &["template `domain.xml`, line 3: "]),
        ("domain.xml", "{{ name }}\n".into(), &["template `domain.xml`"]),
        (
            "domain.xml",
            built_in.replace(pin, ""),
            &[
                "template `domain.xml`: ",
                "/domain/cputune/emulatorpin/@cpuset is missing, the placement says `8-9`",
            ],
        ),
        (
            "domain.xml",
            built_in.replace("mode='strict'", "mode='preferred'"),
            &["/domain/numatune/memory/@mode is `preferred`, the placement says `strict`"],
        ),
        // Not used, and still a fault: it would be found when it is needed.
        ("other.xml", "{% block a %}".into(), &["template `other.xml`, line 1: "]),
        ("other.xml", "{{ get_env(name='HOME') }}".into(), &["template `other.xml`, line 1: ", "get_env"]),
        ("other.xml", "{% include \"/etc/passwd\" %}".into(), &["template `other.xml`", "/etc/passwd"]),
    ];
    for (name, text, said) in cases {
        let tree = Tree::reference();
        tree.write(&format!("etc/rtkvm-tune/templates/{name}"), text);
        let before = tree.list();
        for verb in [&["apply", REFERENCE][..], &["apply", "--dry-run", REFERENCE], &["render", REFERENCE]] {
            refused(tree.tune(verb), said);
        }
        let paths = changed(&before, &tree.list());
        assert!(paths.is_empty(), "{paths:?}");
    }
}

/// An operator's own template is used, and what it renders is planned, applied and compared.
#[test]
fn a_template_of_the_operator_is_used() {
    let tree = Tree::reference();
    let text = "{% extends \"domain.xml\" %}\n{% block devices %}<!-- mine -->{% endblock devices %}\n";
    tree.write("etc/rtkvm-tune/templates/mine.xml", text);
    let profile = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let profile =
        tree.note("p.toml", profile.replace("os = \"linux\"", "os = \"linux\"\ntemplate = \"mine.xml\""));
    tree.tune(&["apply", &profile]).expect(0);
    let xml = tree.read(GUEST);
    assert!(xml.contains("<!-- mine -->"), "{xml}");
}

/// A template decides what a guest of root's may reach.
#[test]
fn a_template_that_others_can_change_is_refused() {
    let tree = Tree::reference();
    let template = "etc/rtkvm-tune/templates/mine.xml";
    tree.write(template, "{% extends \"domain.xml\" %}\n");
    tree.chmod(template, 0o666);
    let before = tree.list();
    let ran = tree.tune(&["apply", REFERENCE]).expect(2);
    assert!(
        ran.err.contains("nothing was written") && ran.err.contains("mine.xml: its mode is 0666"),
        "{}",
        ran.err
    );
    assert_eq!(tree.list(), before);
    tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0);
}

#[test]
fn words_of_the_command_line() {
    let machine = "tests/captures/reference.capture";
    for (words, said) in [
        (&["aply", REFERENCE][..], "apply"),
        (&["apply"], "<PROFILE>"),
        (&["apply", REFERENCE, "--root"], "--root"),
        (&["apply", REFERENCE, "--exit-code", "--root", machine], "--dry-run"),
        (&["verify", REFERENCE, "--format", "yaml", "--root", machine], "yaml"),
        (&["verify", REFERENCE, "--dry-run", "--root", machine], "--dry-run"),
        (
            &["render", REFERENCE, "--guest", "rt9", "--root", machine],
            "there is no guest `rt9`; guests are: rt0",
        ),
        (
            &["render", REFERENCE, "--output-dir", "/nowhere", "--root", machine],
            "cannot write /nowhere/rt0.xml",
        ),
        (&["capture", "--root", machine, "-o", "/nowhere/a"], "cannot write /nowhere/a"),
        (&["explain", "no.such.knob"], "there is no knob `no.such.knob`"),
    ] {
        refused(tune(words), &[said]);
    }
    // Without a verb the help goes to standard error, as usage errors do.
    let ran = tune(&[]).expect(2);
    assert!(ran.out.is_empty() && ran.err.contains("Usage: rtkvm-tune"), "{ran:?}");
    for words in [&["--help"][..], &["apply", "--help"], &["--version"]] {
        let ran = tune(words).expect(0);
        assert!(ran.err.is_empty() && ran.out.contains("rtkvm-tune"), "{ran:?}");
        assert!(ran.out.lines().all(|line| line.chars().count() <= 100), "{}", ran.out);
    }
    assert!(tune(&["--help"]).out.contains("Exit status: 0 in line"));
}
