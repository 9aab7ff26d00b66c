//! What goes back to how it was, and what must not.

use rtkvm_tune::formats::HostPath;
use rtkvm_tune::host::{Entry as Found, File, Snapshot};
use rtkvm_tune::journal::{Change, Entry};
use rtkvm_tune::plan::Step;
use rtkvm_tune::plan::restore::{How, Programs, Restored};
use rtkvm_tune::resources::Value;

const POOL: &str = "/sys/devices/system/node/node0/hugepages/hugepages-1048576kB";

/// A machine with 25 pages, so many of them free, and one reserved on some node.
fn restored(free: u64, live: bool) -> (Vec<Step>, Vec<HostPath>, usize) {
    let file = |path: String, text: String| {
        let file = File { bytes: text.into_bytes(), mode: 0o644 };
        (HostPath::new(path), Found::File(std::rc::Rc::new(file)))
    };
    let all = "/sys/kernel/mm/hugepages/hugepages-1048576kB/resv_hugepages";
    let host = Snapshot::recorded([
        file(format!("{POOL}/nr_hugepages"), "25\n".into()),
        file(format!("{POOL}/free_hugepages"), format!("{free}\n")),
        file(all.into(), "1\n".into()),
    ]);
    let entry = Entry {
        knob: "memory.hugepages".into(),
        label: "node 0".into(),
        path: HostPath::new(format!("{POOL}/nr_hugepages")),
        change: Change::Attribute { before: "4\n".into(), ours: Value::Count(25) },
        arguments: Vec::new(),
        boot_id: None,
        directories: Vec::new(),
    };
    let how = How { live, ..How::default() };
    let restored = Restored::plan(&host, [&entry].into_iter(), how);
    (restored.steps(&Programs::default()), restored.finished, restored.notes.len())
}

#[test]
fn pages_in_use_are_not_taken() {
    let to = |count, exact: Option<&str>| Step::Attribute {
        path: HostPath::new(format!("{POOL}/nr_hugepages")),
        before: "25\n".into(),
        after: Value::Count(count),
        exact: exact.map(str::to_owned),
    };
    let path = HostPath::new(format!("{POOL}/nr_hugepages"));
    assert_eq!(restored(25, true), (vec![to(4, Some("4\n"))], vec![path.clone()], 0));
    // 16 in use and one reserved stay, and are still ours to take back.
    assert_eq!(restored(9, true), (vec![to(17, None)], Vec::new(), 1));
    assert_eq!(restored(0, true), (Vec::new(), Vec::new(), 1));
    // In a tree nothing is in use, whatever its files say.
    assert_eq!(restored(0, false), (vec![to(4, Some("4\n"))], vec![path], 0));
}
