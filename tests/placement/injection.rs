//! Strings of a profile that try to be more than strings: each is refused, or stays what it is in the rendered
//! document.

use crate::machine::*;
use proptest::prelude::*;
use rtkvm_tune::facts::Facts;
use rtkvm_tune::guest::{Domain, Host, Templates, default_template};
use rtkvm_tune::placement::place;
use rtkvm_tune::profile::keys::{KEYS, Kind};
use rtkvm_tune::profile::parse;
use std::sync::OnceLock;

/// A profile with every string that a guest can have. The value of each key is on a line of its own.
const STRINGS: &str = "[host]
housekeeping-cpus-per-node = 2
housekeeping-memory-per-node = '6GiB'
[[guest]]
name = 'rt0'
vcpus = 2
memory = '2GiB'
template = 'domain.xml'
cpu-features = ['x2apic=optional']
[[guest.disk]]
source = '/srv/a'
base-image = '/srv/b'
[[guest.network]]
bridge = 'br0'
mac = '52:54:00:00:00:01'
[[guest.network]]
macvtap = 'eth1'
[[guest.network]]
virtual-function = '0000:81:10.1'
[[guest.network]]
vf-pool = 'pool'
[[guest.network]]
vhost-user = '/run/a.sock'
[[guest.hostdev]]
device = '0000:82:00.0'
";

/// The keys, each with a beginning by which more strings are accepted.
const KEYS_AND_PREFIXES: [(&str, &str); 12] = [
    ("name", "a"),
    ("template", "a"),
    ("cpu-features", "a"),
    ("source", "/srv/"),
    // It reaches no domain: qemu-img gets it as one word, which tests/libvirt/apply.rs tries.
    ("base-image", "/srv/"),
    ("bridge", "a"),
    ("mac", "52:54:00:00:00:0"),
    ("macvtap", "a"),
    ("virtual-function", "0000:81:10."),
    ("vf-pool", "a"),
    ("vhost-user", "/run/"),
    ("device", "0000:82:00."),
];

#[test]
fn every_string_of_a_guest_is_tried() {
    // A list of CPUs and a size are parsed to numbers; a choice is one of its words.
    // Those of the seed reach no domain: tests/cloud_init.rs tries them.
    let of_domain = |section: &str| section.starts_with("guest") && section != "guest.cloud-init";
    let strings = KEYS.iter().filter(|key| of_domain(key.section));
    let strings = strings.filter(|key| matches!(key.kind, Kind::Text | Kind::TextList)).map(|key| key.name);
    let tried = KEYS_AND_PREFIXES.map(|(key, _)| key);
    let missing: Vec<_> = strings.filter(|key| !tried.contains(key)).collect();
    assert_eq!(missing, [""; 0], "add these to the strings above");
}

/// `STRINGS` with this value of a key.
fn with(key: &str, value: &str) -> String {
    let written = toml_string(value);
    let line = match key {
        "cpu-features" => format!("{key} = [{written}]"),
        _ => format!("{key} = {written}"),
    };
    let of_key = |old: &str| old.starts_with(&format!("{key} = "));
    STRINGS.lines().map(|old| format!("{}\n", if of_key(old) { line.as_str() } else { old })).collect()
}

/// A TOML string of any characters.
fn toml_string(value: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    format!("\"{}\"", value.chars().map(escaped).collect::<String>())
}

/// The guest of a profile, rendered; `None` if it is refused.
fn rendered(profile: &str) -> Option<String> {
    static MACHINE: OnceLock<(Facts, Templates)> = OnceLock::new();
    let (facts, templates) = MACHINE.get_or_init(|| (reference(), Templates::new(&[]).expect("valid")));
    let parsed = parse("p.toml", profile.as_bytes()).ok()?;
    let (placement, _) = place(&parsed.profile, facts).ok()?;
    let architecture = facts.kernel.architecture;
    let host = Host { page: placement.page, numa: &facts.numa, architecture, amd: false };
    let guest = &parsed.profile.guests[0];
    let domain = Domain::new(guest, &placement.guests[0], &host);
    let name = guest.template.as_ref().map_or(default_template(host.architecture), |name| &name.value);
    templates.render(name, &domain).ok()
}

/// Elements and attributes of a document, without their values.
fn shape(xml: &str) -> Vec<String> {
    let tree = roxmltree::Document::parse(xml).expect("well-formed");
    let elements = tree.descendants().filter(|node| node.is_element());
    elements
        .map(|node| {
            let names: Vec<_> = node.attributes().map(|a| a.name().to_owned()).collect();
            format!("{} {}", node.tag_name().name(), names.join(" "))
        })
        .collect()
}

/// Whether a value stands in a document as an attribute or a text, whole.
fn has(xml: &str, value: &str) -> bool {
    let tree = roxmltree::Document::parse(xml).expect("well-formed");
    tree.descendants().any(|node| {
        node.attributes().any(|attribute| attribute.value() == value) || node.text() == Some(value)
    })
}

/// What a hostile profile would write.
fn hostile() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "'/><hostdev/><x y='",
        "\"/><hostdev/><x y=\"",
        "</name><devices><hostdev/></devices><name>",
        "&lt;a/&gt;",
        "&xxe;",
        "]]><a/>",
        "<!--",
        "{{ name }}",
        "{% include '/etc/passwd' %}",
        "$(reboot)",
        "`reboot`",
        "a\nb",
        "a\u{0}b",
        "\u{202e}a",
        "..",
        "../../etc/passwd",
        "--",
        "-x",
    ]);
    prop_oneof![known.prop_map(str::to_owned), "[ -~]{0,12}", "[<>&'\"{}%/.:a-f0-9=]{0,10}", ".{0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_string_is_refused_or_stays_a_string(
        (key, prefix) in prop::sample::select(KEYS_AND_PREFIXES.to_vec()), text in hostile(), whole: bool
    ) {
        let value = if whole { text } else { format!("{prefix}{text}") };
        let Some(xml) = rendered(&with(key, &value)) else { return Ok(()) };
        let plain = rendered(STRINGS).expect("accepted");
        // What is in /dev is a block device, and has another attribute for it.
        let normal = |shape: Vec<String>| shape.into_iter().map(|s| s.replace("source dev", "source file")).collect::<Vec<_>>();
        prop_assert_eq!(normal(shape(&xml)), normal(shape(&plain)), "{}", xml);
        match key {
            "name" | "source" | "bridge" | "macvtap" | "vf-pool" | "vhost-user" => {
                prop_assert!(has(&xml, &value), "{value:?} in {xml}")
            }
            _ => {}
        }
    }
}

/// The property above says something only if strings with markup come through.
#[test]
fn markup_in_a_path_is_accepted_and_escaped() {
    for path in ["/srv/'/><hostdev/>.img", "/srv/a&b<c>\"d\".img", "/srv/{{ name }}"] {
        for key in ["source", "vhost-user"] {
            let xml = rendered(&with(key, path)).unwrap_or_else(|| panic!("{path} is refused"));
            assert!(
                has(&xml, path) && shape(&xml).len() == shape(&rendered(STRINGS).unwrap()).len(),
                "{xml}"
            );
        }
    }
}
