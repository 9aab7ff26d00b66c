//! The guest templates: the built-in one and the user's own, rendered by Tera.
//!
//! A template sees the fields of [`Domain`] and nothing else: Tera without its `glob_fs` feature reads no
//! file, and its built-in functions (`range`, `throw`) reach neither the environment nor the network.

use std::fmt;
use std::io::Write;

use tera::{Context, Error, ErrorKind, Tera};

use super::check::check;
use super::domain::Domain;
use super::owner::marked;
use crate::facts::Architecture;

/// The template of a guest that names none, on x86_64.
pub const DEFAULT_TEMPLATE: &str = "domain.xml";

/// The same on aarch64.
const AARCH64_TEMPLATE: &str = "domain-aarch64.xml";

/// The templates that come with the program. The names end in `.xml`, by which Tera escapes every value. Those in
/// `builtin/` have everything in them, and no file of a user can have such a name: a user's `domain.xml` can extend
/// `builtin/x86_64.xml`.
const BUILT_IN: [(&str, &str); 4] = [
    ("builtin/x86_64.xml", include_str!("../../templates/builtin/x86_64.xml")),
    ("builtin/aarch64.xml", include_str!("../../templates/builtin/aarch64.xml")),
    (DEFAULT_TEMPLATE, include_str!("../../templates/domain.xml")),
    (AARCH64_TEMPLATE, include_str!("../../templates/domain-aarch64.xml")),
];

/// The template of a guest that names none.
pub fn default_template(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86 => DEFAULT_TEMPLATE,
        Architecture::Aarch64 => AARCH64_TEMPLATE,
    }
}

/// The longest document that a template may give, in bytes; a domain has some thousand.
const MAX_OUTPUT: usize = 1 << 20;

/// Output that fails once it has more than [`MAX_OUTPUT`] bytes.
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(&bytes[..bytes.len().min(MAX_OUTPUT + 1 - self.0.len())]);
        match self.0.len() > MAX_OUTPUT {
            true => Err(std::io::ErrorKind::FileTooLarge.into()),
            false => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Why a template could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// The template.
    pub template: String,
    /// Its line, from 1, where the fault is in one.
    pub line: Option<usize>,
    /// What is wrong and what to do; one line for each fault.
    pub reason: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TemplateError { template, line, reason } = self;
        match line {
            Some(line) => write!(f, "template `{template}`, line {line}: {reason}"),
            None => write!(f, "template `{template}`: {reason}"),
        }
    }
}

impl std::error::Error for TemplateError {}

/// The templates at hand, parsed.
pub struct Templates {
    tera: Tera,
}

impl Templates {
    /// None, where there is nothing to render: to parse them costs as much as a tenth of an audit.
    pub fn none() -> Templates {
        Templates { tera: Tera::new() }
    }

    /// The built-in templates and the user's, given as name and text. A user's template replaces the built-in
    /// one of its name; under another name it can extend or include it.
    ///
    /// # Errors
    /// If a template has a syntax error, names something that does not exist, or a name not ending in `.xml`.
    pub fn new(user: &[(String, String)]) -> Result<Templates, TemplateError> {
        if let Some((name, _)) = user.iter().find(|(name, _)| !name.ends_with(".xml")) {
            let reason = "its name must end in `.xml`: values are escaped by that".to_owned();
            return Err(TemplateError { template: name.clone(), line: None, reason });
        }
        let mut tera = Tera::new();
        let user = user.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        // Later ones replace earlier ones; all at once, so that they can refer to each other.
        tera.add_raw_templates(BUILT_IN.into_iter().chain(user))
            .map_err(|e| TemplateError::from_tera(&e, ""))?;
        Ok(Templates { tera })
    }

    /// The names of all templates, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tera.get_template_names().collect();
        names.sort_unstable();
        names
    }

    /// The domain XML of a guest. The same template and domain give the same bytes.
    ///
    /// # Errors
    /// If there is no such template, it uses something undefined, or its output is not the domain that was
    /// placed (see [`check`]).
    pub fn render(&self, template_name: &str, domain: &Domain) -> Result<String, TemplateError> {
        let fail = |reason| TemplateError { template: template_name.to_owned(), line: None, reason };
        let names = self.names();
        if !names.contains(&template_name) {
            let close = names.iter().max_by(|a, b| {
                strsim::jaro_winkler(a, template_name).total_cmp(&strsim::jaro_winkler(b, template_name))
            });
            let close = close.filter(|name| strsim::jaro_winkler(name, template_name) > 0.7);
            return Err(fail(match close {
                Some(name) => format!("there is no such template: did you mean `{name}`?"),
                None => format!("there is no such template: the templates are {}", names.join(", ")),
            }));
        }
        let context = Context::from_serialize(domain).map_err(|e| fail(e.to_string()))?;
        let mut output = Limited(Vec::new());
        let rendered = self.tera.render_to(template_name, &context, &mut output);
        let Limited(xml) = output;
        rendered.map_err(|e| match xml.len() > MAX_OUTPUT {
            true => fail(format!("it gives more than {MAX_OUTPUT} bytes: is there a loop too long in it?")),
            false => TemplateError::from_tera(&e, template_name),
        })?;
        let xml = String::from_utf8(xml).map_err(|e| fail(e.to_string()))?;
        check(&xml, domain).map_err(|faults| fail(faults.join("\n")))?;
        Ok(marked(&xml))
    }
}

impl TemplateError {
    /// Tera's error with its place; `fallback` names the template where Tera does not.
    fn from_tera(error: &Error, fallback: &str) -> TemplateError {
        let (template, line, reason) = match error.kind() {
            ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => {
                let line = Some(report.span().start_line);
                (report.filename().to_owned(), line, report.message().to_owned())
            }
            ErrorKind::MissingParent { current, parent } => {
                (current.clone(), None, format!("it extends `{parent}`, and there is no such template"))
            }
            ErrorKind::CircularExtend { tpl, .. } => (tpl.clone(), None, "it extends itself".to_owned()),
            ErrorKind::CircularInclude { tpl, .. } => (tpl.clone(), None, "it includes itself".to_owned()),
            // An unknown filter, test, function, block or include comes as a printed report.
            _ => unreport(&error.to_string()).unwrap_or((fallback.to_owned(), None, error.to_string())),
        };
        TemplateError { template, line, reason }
    }
}

/// Template, line and message of the first report in a text: `error: MESSAGE`, then `--> NAME:LINE:COLUMN`.
fn unreport(text: &str) -> Option<(String, Option<usize>, String)> {
    let mut lines = text.lines();
    let message = lines.next()?.strip_prefix("error: ")?;
    let mut place = lines.next()?.trim().strip_prefix("--> ")?.rsplitn(3, ':');
    let line = place.nth(1)?.parse().ok()?;
    Some((place.next()?.to_owned(), Some(line), message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::CpuSet;
    use crate::guest::domain::{Disk, reference};
    use proptest::prelude::*;

    fn user(name: &str, text: &str) -> Result<Templates, TemplateError> {
        Templates::new(&[(name.to_owned(), text.to_owned())])
    }

    #[test]
    fn output_is_pretty_and_stable() {
        let render = |domain: &Domain| Templates::new(&[]).unwrap().render(DEFAULT_TEMPLATE, domain).unwrap();
        let bare = Domain {
            nodes: CpuSet::new(),
            disks: vec![],
            networks: vec![],
            fifo_vcpus: Default::default(),
            ..reference()
        };
        for domain in [reference(), bare, Domain { nodes: [0].into_iter().collect(), ..reference() }] {
            let xml = render(&domain);
            assert_eq!(xml, render(&domain));
            assert!(xml.starts_with("<domain") && xml.ends_with("</domain>\n"), "{xml}");
            assert!(xml.lines().all(|line| !line.trim().is_empty() && line == line.trim_end()), "{xml}");
            assert_eq!(xml.contains("<numatune>"), !domain.nodes.is_empty());
            assert_eq!(xml.contains("<vcpusched"), !domain.fifo_vcpus.is_empty());
        }
    }

    #[test]
    fn faults_name_template_and_line() {
        for (text, line, word) in [
            ("<a>\n{{ name", Some(2), "end"),
            ("<a>\n\n{{ name | shout }}", Some(3), "Unknown filter `shout`"),
            ("{{ get_env(name='HOME') }}", Some(1), "Unknown function `get_env`"),
            ("{% include 'etc.xml' %}", Some(1), "Unknown template `etc.xml`"),
            ("{% extends 'etc.xml' %}", None, "extends `etc.xml`"),
            ("{% extends 'mine.xml' %}", None, "extends itself"),
            (
                "{% extends 'domain.xml' %}\n{% block nic %}{% endblock %}",
                Some(2),
                "Block `nic` is not defined",
            ),
        ] {
            let error = user("mine.xml", text).err().unwrap_or_else(|| panic!("{text} is accepted"));
            assert_eq!((&*error.template, error.line), ("mine.xml", line), "{text}: {error}");
            assert!(error.reason.contains(word), "{text}: {error}");
        }
        for (text, word) in [
            ("<a>\n{{ nmae }}</a>", "`nmae` is not defined"),
            ("<a>\n{{ page.colour }}</a>", "`colour` is not defined"),
            ("<a>\n{{ throw(message='no such thing') }}</a>", "no such thing"),
        ] {
            let error = user("mine.xml", text).unwrap().render("mine.xml", &reference()).unwrap_err();
            assert_eq!((&*error.template, error.line), ("mine.xml", Some(2)), "{text}: {error}");
            assert!(error.reason.contains(word), "{text}: {error}");
        }
    }

    /// A template sees its variables and nothing of the machine: no environment, no file, no network, no clock.
    #[test]
    fn a_template_reaches_nothing_outside() {
        let functions = [
            "get_env",
            "env",
            "now",
            "get_random",
            "random",
            "load_data",
            "read_file",
            "file",
            "glob",
            "include_file",
            "http_get",
            "get_url",
            "exec",
            "shell",
            "system",
        ];
        for function in functions {
            let text =
                format!("{{{{ {function}(name='HOME', path='/etc/passwd', url='http://localhost') }}}}");
            let error = user("mine.xml", &text).err().unwrap_or_else(|| panic!("{function} is there"));
            assert!(error.reason.contains(&format!("Unknown function `{function}`")), "{error}");
        }
        for filter in ["env", "load", "read", "shell", "markdown"] {
            let error = user("mine.xml", &format!("{{{{ name | {filter} }}}}")).err().unwrap();
            assert!(error.reason.contains("Unknown filter"), "{error}");
        }
        for path in [
            "/etc/passwd",
            "../../../etc/passwd",
            "file:///etc/passwd",
            "templates/domain.xml",
            "./domain.xml",
        ] {
            for tag in ["include", "extends"] {
                let error = user("mine.xml", &format!("{{% {tag} '{path}' %}}")).err().unwrap();
                assert!(error.to_string().contains(path), "{error}");
            }
        }
    }

    /// A file of a user named like the default template extends what it replaces.
    #[test]
    fn the_default_template_can_be_extended_for_every_guest() {
        for (name, base) in
            [(DEFAULT_TEMPLATE, "builtin/x86_64.xml"), (AARCH64_TEMPLATE, "builtin/aarch64.xml")]
        {
            let text = format!(
                "{{% extends '{base}' %}}{{% block cputune %}}\n    <emulatorsched scheduler='fifo' priority='1'/>{{% endblock %}}"
            );
            let xml = user(name, &text).unwrap().render(name, &reference()).unwrap();
            assert!(
                xml.contains("    <emulatorsched scheduler='fifo' priority='1'/>\n  </cputune>"),
                "{xml}"
            );
        }
        // Every empty block is a place to add to, in whatever built-in template.
        for base in ["builtin/x86_64.xml", "builtin/aarch64.xml"] {
            for block in ["metadata", "memory", "cputune", "features", "cpu", "clock", "devices", "domain"] {
                let text =
                    format!("{{% extends '{base}' %}}{{% block {block} %}}<!-- {block} -->{{% endblock %}}");
                let xml = user("mine.xml", &text).unwrap().render("mine.xml", &reference()).unwrap();
                assert!(xml.contains(&format!("<!-- {block} -->")), "{base} {block}: {xml}");
            }
        }
    }

    #[test]
    fn output_has_a_limit() {
        let text = "<domain>{% for i in range(end=100000) %}{% for j in range(end=10000) %}long line{% endfor %}{% endfor %}";
        let error = user("mine.xml", text).unwrap().render("mine.xml", &reference()).unwrap_err();
        assert!(error.reason.contains("more than 1048576 bytes"), "{error}");
    }

    #[test]
    fn an_unknown_template_is_guessed() {
        let templates = user("router.xml", "<domain/>").unwrap();
        let names =
            ["builtin/aarch64.xml", "builtin/x86_64.xml", "domain-aarch64.xml", "domain.xml", "router.xml"];
        assert_eq!(templates.names(), names);
        let reason = |name| templates.render(name, &reference()).unwrap_err().reason;
        assert!(reason("domian.xml").ends_with("did you mean `domain.xml`?"));
        assert!(reason("zzz").contains("the templates are builtin/aarch64.xml, "));
        let error = user("plain.txt", "").err().unwrap();
        assert!(error.to_string().contains("must end in `.xml`"), "{error}");
    }

    #[test]
    fn a_template_that_leaves_the_placement_is_refused() {
        let text = BUILT_IN[0].1.replace("<emulatorpin cpuset='{{ emulator_cpus }}'/>", "");
        let error = user("domain.xml", &text).unwrap().render("domain.xml", &reference()).unwrap_err();
        assert!(error.reason.contains("/domain/cputune/emulatorpin/@cpuset is missing"), "{error}");
        let error = user("empty.xml", "").unwrap().render("empty.xml", &reference()).unwrap_err();
        assert!(error.reason.contains("not well-formed"), "{error}");
    }

    #[test]
    fn a_template_can_extend_the_built_in_one() {
        let text = "{% extends 'domain.xml' %}{% block devices %}\n    <rng model='virtio'/>{% endblock %}";
        let xml = user("rng.xml", text).unwrap().render("rng.xml", &reference()).unwrap();
        assert!(xml.contains("<memballoon model='none'/>\n    <rng model='virtio'/>\n  </devices>"), "{xml}");
    }

    proptest! {
        #[test]
        fn any_source_comes_back_equal(source in "/[ -~äß&<>'\"]{1,30}") {
            let disk = |target: &str, block| Disk {
                source: source.clone(), block, format: "raw", target: target.to_owned(), bus: "virtio",
            };
            let domain = Domain { disks: vec![disk("vda", true), disk("vdb", false)], ..reference() };
            let xml = Templates::new(&[]).unwrap().render(DEFAULT_TEMPLATE, &domain).unwrap();
            let tree = roxmltree::Document::parse(&xml).unwrap();
            let sources = tree.descendants().filter(|n| n.has_tag_name("source"));
            let sources: Vec<_> = sources.filter_map(|n| n.attribute("dev").or(n.attribute("file"))).collect();
            prop_assert_eq!(sources, [&source, &source]);
        }

        #[test]
        fn no_template_panics(text in "(\\{\\{|\\}\\}|\\{%|%\\}|[ -~]){0,40}") {
            if let Ok(templates) = user("mine.xml", &text) {
                let _ = templates.render("mine.xml", &reference());
            }
        }
    }
}
