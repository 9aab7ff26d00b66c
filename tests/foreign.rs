//! What others wrote is looked at before it is used, and costs no more than its size.

use rtkvm_tune::facts::{Facts, TEMPLATES};
use rtkvm_tune::guest::differences;
use rtkvm_tune::host::Snapshot;
use std::time::{Duration, Instant};

#[test]
fn templates_that_others_can_change_are_known() {
    let read = |lines: &str| {
        let text = format!("rtkvm-tune capture 1\n/sys/devices/system/cpu/online [0444]: 0\n{lines}");
        let facts = Facts::read(&Snapshot::from_capture(&text).expect("a capture")).expect("a machine");
        let names: Vec<_> = facts.templates.into_iter().map(|(name, _)| name).collect();
        (names, facts.untrusted_templates)
    };
    assert_eq!(read(""), (vec![], vec![]));
    let (names, wrong) = read(
        "/etc/rtkvm-tune/templates/: a.xml b.xml c.xml d.xml notes\n\
         /etc/rtkvm-tune/templates/a.xml [0644]: <a/>\n/etc/rtkvm-tune/templates/b.xml [0664]: <b/>\n\
         /etc/rtkvm-tune/templates/c.xml [0602]: <c/>\n/etc/rtkvm-tune/templates/d.xml !EACCES\n\
         /etc/rtkvm-tune/templates/notes [0666]: x\n",
    );
    assert_eq!(names, ["a.xml", "b.xml", "c.xml"]);
    let says = ["b.xml: its mode is 0664", "c.xml: its mode is 0602", "d.xml cannot be read: Permission"];
    assert_eq!(wrong.len(), says.len(), "{wrong:?}");
    for (wrong, said) in wrong.iter().zip(says) {
        assert!(wrong.starts_with(&format!("{TEMPLATES}/{said}")), "{wrong}");
    }
    let (names, wrong) = read("/etc/rtkvm-tune/templates !EACCES\n");
    assert!(
        names.is_empty() && wrong[0].starts_with("/etc/rtkvm-tune/templates cannot be read"),
        "{wrong:?}"
    );
}

#[test]
fn equal_siblings_are_compared_in_one_pass() {
    let domain = |count| format!("<domain>{}</domain>", "<a/>".repeat(count));
    let start = Instant::now();
    let found = differences(&domain(50_000), &domain(50_001)).expect("domains");
    let paths: Vec<_> = found.iter().map(|difference| difference.path.as_str()).collect();
    assert_eq!(paths, ["/domain/a[50001]"]);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
