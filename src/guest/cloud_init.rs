//! What a guest is given to set itself up with at its first boot: a NoCloud seed for cloud-init
//! (<https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html>).
//!
//! JSON is YAML, so that a serializer of JSON writes it: nothing of a profile can end a string.

use crate::facts::Architecture;
use crate::formats::{CpuSet, HostPath};
use crate::profile::{Distribution, Kernel, Tuning};
use roxmltree::Document;
use saphyr_parser::{Event, ScalarStyle};
use serde_json::{Value, json};

/// The seed's texts of all guests, a directory for each.
pub const SEEDS: &str = "/etc/rtkvm-tune/guests";

/// What is tuned in one guest.
#[derive(Debug, Clone)]
pub struct Inside<'a> {
    /// The guest's name.
    pub name: &'a str,
    /// Another id has cloud-init set the guest up anew.
    pub instance: &'a str,
    /// What it runs.
    pub distribution: Distribution,
    /// What it runs on.
    pub architecture: Architecture,
    /// Whether its real-time kernel is installed.
    pub kernel: Kernel,
    /// Who sets what isolates.
    pub tuning: Tuning,
    /// How many vCPUs it has.
    pub vcpus: u32,
    /// Those with the FIFO policy.
    pub rt_vcpus: &'a CpuSet,
    /// Public keys for its first user.
    pub ssh_keys: &'a [String],
    /// Further kernel arguments.
    pub kernel_arguments: &'a [String],
    /// The operator's own user-data, with its first line.
    pub own: Option<&'a str>,
}

/// Whether an operator's own user-data is what cloud-init takes: a script, or a `#cloud-config` of keys and values. One
/// that is no YAML it would leave out, and say so in the guest alone.
///
/// # Errors
/// What it is not, with the line.
pub fn check_own(text: &str) -> Result<(), String> {
    let first = text.lines().next().unwrap_or_default().trim_end();
    if first.starts_with("#!") {
        return Ok(());
    }
    if first != "#cloud-config" {
        return Err("its first line is neither `#cloud-config` nor that of a script".into());
    }
    let (mut is_open, mut documents) = (false, 0);
    for event in saphyr_parser::Parser::new_from_str(text) {
        let (event, place) = event.map_err(|error| {
            let (line, column) = (error.marker().line(), error.marker().col() + 1);
            format!("it is no YAML, line {line}, column {column}: {}", error.info())
        })?;
        let line = place.start.line();
        let tag = match &event {
            Event::Scalar(.., tag) | Event::SequenceStart(_, tag) | Event::MappingStart(_, tag) => {
                tag.as_ref()
            }
            _ => None,
        };
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            return Err(format!("line {line}: cloud-init knows no tag `{tag}`"));
        }
        match event {
            Event::DocumentStart(_) if documents > 0 => {
                return Err(format!("line {line}: a second document begins, and cloud-init takes one"));
            }
            Event::DocumentStart(_) => (is_open, documents) = (true, 1),
            Event::MappingStart(..) => is_open = false,
            // Nothing but comments.
            Event::Scalar(text, ScalarStyle::Plain, ..) if is_open && (text.is_empty() || text == "~") => {
                is_open = false;
            }
            Event::Scalar(..) | Event::SequenceStart(..) | Event::Alias(_) if is_open => {
                return Err(format!("line {line}: a `#cloud-config` is a mapping, `KEY: VALUE`"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The texts of a guest's seed.
pub fn texts(name: &str) -> [HostPath; 2] {
    let dir = HostPath::new(SEEDS).join(name);
    [dir.join("meta-data"), dir.join("user-data")]
}

/// The guest whose seed has this text.
pub fn guest_of(path: &HostPath) -> Option<&str> {
    let (name, file) = path.as_str().strip_prefix(SEEDS)?.strip_prefix('/')?.split_once('/')?;
    ["meta-data", "user-data"].contains(&file).then_some(name)
}

/// The image that is made of the texts, where libvirt lets QEMU read it.
pub fn image(name: &str) -> HostPath {
    HostPath::new(format!("/var/lib/libvirt/images/rtkvm-tune-{name}-seed.iso"))
}

impl Inside<'_> {
    /// The vCPUs without the guest's own work: those of FIFO but the first, which is always for housekeeping.
    fn isolated(&self) -> CpuSet {
        self.rt_vcpus.iter().filter(|vcpu| *vcpu != 0).collect()
    }

    /// `meta-data`: who the guest is.
    pub fn meta_data(&self) -> String {
        // A host name has letters, digits and hyphens, the first and last no hyphen (RFC 1123).
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let host: String = self.name.chars().map(plain).take(63).collect();
        yaml(&json!({"instance-id": self.instance, "local-hostname": host.trim_matches('-')}))
    }

    /// `user-data`: ours alone, or after the operator's own, whose single values win and whose lists come first.
    pub fn user_data(&self) -> String {
        let mut ours = self.config();
        let Some(own) = self.own else { return format!("#cloud-config\n{}", yaml(&ours)) };
        ours["merge_how"] = json!([
            {"name": "list", "settings": ["append"]},
            {"name": "dict", "settings": ["no_replace", "recurse_list"]},
        ]);
        let kind = if own.starts_with("#!") { "text/x-shellscript" } else { "text/cloud-config" };
        let parts = json!([
            {"type": kind, "content": own},
            {"type": "text/cloud-config", "content": format!("#cloud-config\n{}", yaml(&ours))},
        ]);
        format!("#cloud-config-archive\n{}", yaml(&parts))
    }

    /// The kernel arguments that isolate vCPUs in the guest.
    fn arguments(&self) -> String {
        let isolated = self.isolated();
        let all: CpuSet = (0..self.vcpus).collect();
        let mut arguments = Vec::new();
        // TuneD's profile gives these itself.
        if !isolated.is_empty() && self.tuning == Tuning::Plain {
            let kept = all.difference(&isolated);
            arguments.push(format!(
                "isolcpus=managed_irq,domain,{isolated} nohz=on nohz_full={isolated} rcu_nocbs={isolated} \
                 irqaffinity={kept} skew_tick=1 nosoftlockup nmi_watchdog=0 tsc=reliable \
                 rcupdate.rcu_normal_after_boot=1 psi=0"
            ));
        }
        arguments.extend(self.kernel_arguments.iter().cloned());
        arguments.join(" ")
    }

    fn config(&self) -> Value {
        let file =
            |path: &str, content: String| json!({"path": path, "content": content, "permissions": "0644"});
        let mut files = vec![
            file(
                "/etc/sysctl.d/99-rtkvm-tune.conf",
                "kernel.sched_rt_runtime_us = -1\nkernel.timer_migration = 0\nvm.stat_interval = 10\n\
                 vm.compaction_proactiveness = 0\n"
                    .into(),
            ),
            file(
                "/etc/tmpfiles.d/rtkvm-tune.conf",
                "w- /sys/kernel/mm/transparent_hugepage/enabled - - - - never\n".into(),
            ),
        ];
        let mut packages: Vec<&str> = Vec::new();
        let mut commands: Vec<Value> = Vec::new();
        if self.kernel == Kernel::RealTime {
            match self.distribution {
                Distribution::Debian => packages.push(match self.architecture {
                    Architecture::X86 => "linux-image-rt-amd64",
                    Architecture::Aarch64 => "linux-image-rt-arm64",
                }),
                Distribution::Rhel => {
                    packages.push("kernel-rt");
                    // Its package leaves the default as it is (RHEL for Real Time, "Configuring kernel-rt as the
                    // default boot kernel"); after an update there are several, of which the last is the newest.
                    let choose = "grubby --set-default \"$(printf '%s\\n' /boot/vmlinuz-*rt* | grep -v debug | sort -V | tail -n 1)\"";
                    commands.push(json!(["sh", "-c", choose]));
                }
                Distribution::Suse => packages.push("kernel-rt"),
                // Needs a machine that is attached: `ubuntu_pro` in the operator's own user-data.
                Distribution::Ubuntu => {
                    commands.push(json!(["pro", "enable", "realtime-kernel", "--assume-yes"]));
                }
            }
        }
        let arguments = self.arguments();
        if !arguments.is_empty() {
            match self.distribution {
                Distribution::Debian | Distribution::Ubuntu => {
                    // Read by a shell, in double quotes; no argument has a character that is special there.
                    let line =
                        format!("GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT {arguments}\"\n");
                    files.push(file("/etc/default/grub.d/99-rtkvm-tune.cfg", line));
                    commands.push(json!(["update-grub"]));
                }
                Distribution::Rhel => {
                    commands.push(json!(["grubby", "--update-kernel=ALL", format!("--args={arguments}")]));
                }
                Distribution::Suse => {
                    for argument in arguments.split(' ') {
                        commands.push(json!(["pbl", "--add-option", argument]));
                    }
                    commands.push(json!(["pbl", "--config"]));
                }
            }
        }
        if self.tuning == Tuning::Tuned {
            packages.push("tuned");
            if self.distribution == Distribution::Rhel {
                packages.push("tuned-profiles-nfv-guest");
            }
            let variables = format!("isolated_cores={}\nisolate_managed_irq=Y\n", self.isolated());
            files.push(file("/etc/tuned/realtime-virtual-guest-variables.conf", variables));
            commands.push(json!(["tuned-adm", "profile", "realtime-virtual-guest"]));
        }
        let mut config = json!({
            "write_files": files,
            "runcmd": commands,
            "power_state": {"mode": "reboot", "message": "the real-time settings take effect", "timeout": 30},
        });
        if !packages.is_empty() {
            config["package_update"] = json!(true);
            config["packages"] = json!(packages);
        }
        if !self.ssh_keys.is_empty() {
            config["ssh_authorized_keys"] = json!(self.ssh_keys);
        }
        if commands_are_none(&config) {
            config.as_object_mut().expect("made as one").remove("runcmd");
        }
        config
    }
}

/// JSON as YAML reads it too: what YAML takes for the end of a line or for no character is written as an escape.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    for c in format!("{value:#}\n").chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                text += &format!("\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text
}

fn commands_are_none(config: &Value) -> bool {
    config["runcmd"].as_array().is_none_or(Vec::is_empty)
}

/// The document with the guest's seed as a disk that it can only read. A virtio disk, for an emulated CD-ROM drive is
/// polled. It comes last, whatever template made the document, and has a name that no disk of a profile gets: the 702nd.
pub fn attached(xml: &str, name: &str) -> String {
    let target = "vdzz";
    let Ok(tree) = Document::parse(xml) else { return xml.to_owned() };
    let devices = tree.root_element().children().find(|node| node.has_tag_name("devices"));
    let Some(end) =
        devices.and_then(|node| xml[node.range()].rfind("</").map(|end| node.range().start + end))
    else {
        return xml.to_owned();
    };
    // A guest's name has nothing that XML escapes.
    let disk = format!(
        "  <!-- the seed of cloud-init -->\n    <disk type='file' device='disk'>\n      \
         <driver name='qemu' type='raw'/>\n      <source file='{}'/>\n      <target dev='{target}' bus='virtio'/>\n      \
         <readonly/>\n    </disk>\n  ",
        image(name)
    );
    let mut with = xml.to_owned();
    with.insert_str(end, &disk);
    with
}
