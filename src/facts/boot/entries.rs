//! Boot loader entries: files in loader/entries that GRUB of Red Hat and Fedora, systemd-boot and ostree have.
//!
//! Source: the Boot Loader Specification; kernel-install(8); grubby's man page; the plugins of kernel-install in
//! Fedora (20-grub.install) and systemd (90-loaderentry.install); ostree-admin-kargs-edit-in-place(1).

use super::{Boot, Form, Line, Loader};
use crate::facts::{line, text};
use crate::formats::boot_line::{KERNEL_CMDLINE, KERNELOPTS};
use crate::formats::grubenv::Environment;
use crate::formats::kernel_args::KernelArgs;
use crate::formats::{HostPath, boot_entry, shell_vars};
use crate::host::{Node, Read, ReadError};
use procfs::FromBufRead;
use procfs::process::MountInfos;

/// Where the entries of GRUB and ostree are.
const ENTRIES: &str = "/boot/loader/entries";
/// Where systemd-boot looks besides: the EFI system partition, by the places where it is mounted.
const ESP: [&str; 2] = ["/efi/loader/entries", "/boot/efi/loader/entries"];
/// Where unified kernel images are.
const IMAGES: [&str; 3] = ["/boot/EFI/Linux", "/efi/EFI/Linux", "/boot/efi/EFI/Linux"];
/// The environment block of GRUB where its folder is grub2.
const GRUBENV2: &str = "/boot/grub2/grubenv";
/// What new kernels get where the machine has no line of its own.
const VENDOR_CMDLINE: &str = "/usr/lib/kernel/cmdline";
/// A deployment that takes its place when the machine goes down.
const STAGED: &str = "/run/ostree/staged-deployment";

/// An entry as it was read.
struct Entry {
    path: HostPath,
    text: String,
    mode: u32,
    options: KernelArgs,
}

impl Entry {
    fn name(&self) -> &str {
        self.path.split().1
    }

    fn line(self, boots: KernelArgs) -> Line {
        let Entry { path, text, mode, .. } = self;
        Line {
            path,
            form: Form::Entry,
            text: Some(text),
            seed: String::new(),
            mode,
            boots: Some(boots),
            adds: true,
        }
    }
}

/// The normal entries of a directory, the newest version first.
///
/// # Errors
/// The directory cannot be listed.
fn entries(host: &dyn Read, dir: &str) -> Result<Vec<Entry>, ReadError> {
    let dir = HostPath::new(dir);
    let names = host.list(&dir)?;
    let read = |name: &String| {
        let path = dir.join(name);
        let file = host.file(&path).ok()?;
        let text = file.text().into_owned();
        let options = boot_entry::options(&text);
        boot_entry::is_normal(name, &text).then_some(Entry { path, text, mode: file.mode, options })
    };
    let mut entries: Vec<_> = names.iter().filter(|name| name.ends_with(".conf")).filter_map(read).collect();
    // Of several systems that share the directory only this one's. Images made elsewhere keep the name of that machine.
    let machine = line(host, &HostPath::new("/etc/machine-id")).unwrap_or_default();
    let ours = |entry: &Entry| boot_entry::machine(entry.name()).is_none_or(|id| id == machine);
    if entries.iter().any(|entry| boot_entry::machine(entry.name()) == Some(&machine)) {
        entries.retain(ours);
    }
    entries.sort_by(|a, b| boot_entry::by_version(b.name(), a.name()));
    Ok(entries)
}

/// GRUB with boot loader entries. `default` is the text of /etc/default/grub.
pub(super) fn grub(host: &dyn Read, default: &str) -> Option<Boot> {
    // Others than root may not look into it.
    if let Err(ReadError::Absent | ReadError::Untold) = host.list(&HostPath::new("/boot/grub2")) {
        return None;
    }
    let generated = text(host, &HostPath::new(super::GRUB2_CFG)).unwrap_or_default();
    let reads = generated.lines().any(|line| line.trim() == "blscfg");
    let enabled = shell_vars::parse(default).text("GRUB_ENABLE_BLSCFG") == Some("true");
    if !reads && !enabled {
        return None;
    }
    let mut boot = Boot::new(Loader::GrubEntries);
    boot.next_from = "/boot/loader/entries";
    let entries = match entries(host, ENTRIES) {
        Ok(entries) => entries,
        Err(ReadError::Absent) => return None,
        Err(error) => {
            boot.wrong.push(format!("{ENTRIES} cannot be read: {error}"));
            return Some(boot);
        }
    };
    if entries.is_empty() {
        boot.wrong.push(format!("{ENTRIES} has no entry of a Linux kernel but rescue entries"));
        return Some(boot);
    }
    let (env_path, env) = environment(host);
    let known = |name: &str| env.as_ref().ok().and_then(|(block, _)| block.get(name)).map(str::to_owned);
    let common = |entry: &Entry| entry.options.tokens().any(|token| variable(token) == Some(KERNELOPTS));
    let first = &entries[0].options;
    let plain = !first.tokens().any(|token| variable(token) == Some(KERNELOPTS));
    let seed = plain.then(|| seed(first));
    if entries.iter().any(common) {
        match (&env, known(KERNELOPTS)) {
            (Ok((_, file)), Some(value)) => boot.lines.push(Line {
                path: env_path,
                form: Form::Environment,
                text: Some(file.clone()),
                seed: String::new(),
                mode: 0o644,
                boots: Some(KernelArgs::parse(&value)),
                adds: true,
            }),
            (Err(why), _) => {
                boot.wrong.push(format!("{env_path}, where the entries' $kernelopts are: {why}"))
            }
            (Ok(_), None) => boot.wrong.push(format!(
                "{env_path} has no kernelopts, which the boot entries name: `grub2-mkconfig -o {}` makes it",
                super::GRUB2_CFG
            )),
        }
    }
    for entry in entries {
        let line = expanded(&entry.options, &known);
        boot.next.push(line.clone());
        if !common(&entry) {
            boot.lines.push(entry.line(line));
        }
    }
    boot.lines.extend(new_kernels(host, seed));
    boot.wrong.extend(read_only(host));
    Some(boot)
}

/// systemd-boot, or whatever boots the entries in /boot and the EFI system partition.
pub(super) fn systemd_boot(host: &dyn Read) -> Option<Boot> {
    let dirs = [ENTRIES, ESP[0], ESP[1]];
    let mut found: Vec<Entry> = dirs.iter().filter_map(|dir| entries(host, dir).ok()).flatten().collect();
    found.sort_by(|a, b| boot_entry::by_version(b.name(), a.name()));
    let first = &found.first()?.options;
    let mut boot = Boot::new(Loader::SystemdBoot);
    boot.next_from = "the boot loader's entries";
    let seed = Some(seed(first));
    for entry in found {
        let line = entry.options.clone();
        boot.next.push(line.clone());
        boot.lines.push(entry.line(line));
    }
    boot.lines.extend(new_kernels(host, seed));
    boot.wrong.extend(read_only(host));
    Some(boot)
}

/// The entry of ostree's that is booted by default. A new deployment has the arguments of the one before it, and the
/// entry of the deployment that a rollback goes to stays as it is.
pub(super) fn ostree(host: &dyn Read) -> Option<Boot> {
    let is_ostree = |entry: &Entry| !entry.options.values("ostree").is_empty();
    let mut found: Vec<Entry> = entries(host, ENTRIES).ok()?.into_iter().filter(is_ostree).collect();
    // The higher its version, the earlier it is booted.
    let version = |entry: &Entry| boot_entry::values(&entry.text, "version").next().map(str::to_owned);
    found.sort_by(|a, b| {
        boot_entry::by_version(&version(b).unwrap_or_default(), &version(a).unwrap_or_default())
    });
    let mut found = found.into_iter();
    let entry = found.next()?;
    let mut boot = Boot::new(Loader::Ostree);
    boot.next_from = "the default deployment's entry in /boot/loader/entries";
    let line = entry.options.clone();
    boot.next.push(line.clone());
    boot.lines.push(entry.line(line));
    boot.lines.extend(found.map(|entry| Line {
        boots: None,
        adds: false,
        ..entry.line(KernelArgs::default())
    }));
    if host.head(&HostPath::new(STAGED), 0).is_ok() {
        boot.wrong.push(format!(
            "a deployment is staged ({STAGED}): it has its arguments already, and takes the place of the default when \
             the machine goes down. Boot it first, or drop it by `rpm-ostree cleanup --pending`"
        ));
    }
    boot.wrong.extend(
        read_only(host)
            .map(|why| format!("{why}; or add them by `rpm-ostree kargs --append-if-missing=ARGUMENT ...`")),
    );
    Some(boot)
}

/// Whether there are unified kernel images.
pub(super) fn has_images(host: &dyn Read) -> bool {
    let names = IMAGES.iter().filter_map(|dir| host.list(&HostPath::new(*dir)).ok());
    names.into_iter().any(|names| names.iter().any(|name| name.ends_with(".efi")))
}

/// The line that kernel-install gives new kernels. Where there is none it would give them the line that runs, with
/// whatever was added to it for this boot only.
fn new_kernels(host: &dyn Read, seed: Option<String>) -> Option<Line> {
    let path = HostPath::new(KERNEL_CMDLINE);
    let (form, boots) = (Form::Whole, None);
    match host.file(&path) {
        Ok(file) => {
            let text = Some(file.text().into_owned());
            Some(Line { path, form, text, seed: String::new(), mode: file.mode, boots, adds: true })
        }
        Err(ReadError::Absent) => {
            let vendor = text(host, &HostPath::new(VENDOR_CMDLINE));
            let seed = vendor.or(seed)?;
            Some(Line { path, form, text: None, seed, mode: 0o644, boots, adds: true })
        }
        Err(_) => None,
    }
}

/// An entry's arguments as they are for any kernel and any copy of the machine: no variable of GRUB's, which the other
/// side of kernel-install adds, and no machine id.
fn seed(options: &KernelArgs) -> String {
    let machine = |token: &str| token.starts_with("systemd.machine_id=");
    let kept: Vec<_> =
        options.tokens().filter(|token| variable(token).is_none() && !machine(token)).collect();
    kept.join(" ") + "\n"
}

/// The environment block of GRUB: where it is, and what it says.
fn environment(host: &dyn Read) -> (HostPath, Result<(Environment, String), String>) {
    let path = HostPath::new(GRUBENV2);
    let block = host.file(&path).map_err(|error| error.to_string());
    // On EFI systems a link to the other partition.
    let path = match host.node(&path) {
        Ok(Node::Link { target }) => resolved(&path, &target).unwrap_or(path),
        _ => path,
    };
    let block = block.and_then(|file| Ok((Environment::parse(&file.bytes)?, file.text().into_owned())));
    (path, block)
}

/// Where a link points to, by its text.
fn resolved(link: &HostPath, target: &str) -> Option<HostPath> {
    let (dir, _) = link.split();
    let dir = dir.map(|dir| dir.as_str().to_owned()).unwrap_or_default();
    let from = if target.starts_with('/') { String::new() } else { dir };
    let mut parts: Vec<&str> = from.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| HostPath::new(format!("/{}", parts.join("/"))))
}

/// The name of a variable of GRUB's that an argument is.
fn variable(token: &str) -> Option<&str> {
    let name = token.strip_prefix('$')?;
    Some(name.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(name))
}

/// The line with its variables replaced by what they are, as far as that is known.
fn expanded(options: &KernelArgs, known: &dyn Fn(&str) -> Option<String>) -> KernelArgs {
    let word = |token: &str| match variable(token) {
        None => token.to_owned(),
        Some(name) => known(name).unwrap_or_default(),
    };
    let words: Vec<_> = options.tokens().map(word).filter(|word| !word.is_empty()).collect();
    KernelArgs::parse(&words.join(" "))
}

/// Why the entries cannot be written, as far as this machine tells.
fn read_only(host: &dyn Read) -> Option<String> {
    let file = host.file(&HostPath::new("/proc/self/mountinfo")).ok()?;
    let mounts = MountInfos::from_buf_read(&file.bytes[..]).ok()?;
    let mount = mounts.0.iter().rfind(|mount| mount.mount_point.as_os_str() == "/boot")?;
    mount
        .mount_options
        .contains_key("ro")
        .then(|| "/boot is mounted read-only: run `mount -o remount,rw /boot` before apply".to_owned())
}
