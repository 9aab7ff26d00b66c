//! The initramfs of the recorded machines: a shell, modules, the files of a Debian machine, and rtkvm-tune.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::debian::Kernel;
use super::machines::Machine;
use crate::shell::{root, run};

/// What a machine runs first.
const INIT: &str = include_str!("guest-init.sh");
/// Devices with movable and with kernel-managed interrupts, and KVM itself.
const MODULES: [&str; 5] = ["virtio_pci", "virtio_blk", "virtio_net", "nvme", "kvm_amd"];
/// The port that a record leaves by; loaded when the record is made, so that it is not part of it.
const PORT: &str = "virtio_console";
/// Folders that every Debian machine has, beyond those the files below make.
const FOLDERS: [&str; 11] = [
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "var/lib",
    "etc/default/grub.d",
    "etc/sysctl.d",
    "etc/modprobe.d",
    "etc/tmpfiles.d",
    "etc/systemd/system",
];

/// Makes what all machines share and gives the archive's path.
pub(crate) fn build(work: &Path, kernel: &Kernel, program: &Path) -> Result<PathBuf> {
    let tree = work.join("initramfs");
    let _ = fs::remove_dir_all(&tree);
    for folder in FOLDERS {
        fs::create_dir_all(tree.join(folder))?;
    }
    let release = &kernel.version;
    let config = format!("boot/config-{release}");
    let busybox =
        ["bin/busybox", "usr/bin/busybox"].into_iter().find(|path| kernel.files.join(path).is_file());
    let busybox = busybox.context("the package busybox-static holds no busybox")?;
    for (from, to) in [
        (busybox, "bin/busybox"),
        ("usr/lib/os-release", "usr/lib/os-release"),
        ("etc/debian_version", "etc/debian_version"),
        ("usr/share/grub/default/grub", "etc/default/grub"),
        (config.as_str(), config.as_str()),
    ] {
        put(&kernel.files.join(from), &tree.join(to))?;
    }
    symlink("../usr/lib/os-release", tree.join("etc/os-release"))?;
    // Only their names matter; the real ones would make every boot unpack tens of megabytes.
    for name in ["vmlinuz", "initrd.img"] {
        fs::write(tree.join(format!("boot/{name}-{release}")), "")?;
    }
    // The real grub-mkconfig, over the folders of that machine.
    run(Command::new("sh").arg(root().join("tests/grub/mkconfig.sh")).arg(&tree).stderr(Stdio::null()))
        .context("grub.cfg was not made: run `sh tests/grub/mkconfig.sh DIR` to see why")?;
    put(program, &tree.join("usr/bin/rtkvm-tune"))?;
    let mut order = String::new();
    let names = [&MODULES[..], &[PORT]].concat();
    for (name, file) in modules(&kernel.files.join("lib/modules").join(release), &names)? {
        put(&file, &tree.join("modules").join(format!("{name}.ko")))?;
        if name != PORT {
            order.push_str(&format!("{name}\n"));
        }
    }
    fs::write(tree.join("modules/order"), order)?;
    fs::write(tree.join("init"), INIT)?;
    fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755))?;
    let archive = work.join("base.gz");
    pack(&tree, &archive)?;
    Ok(archive)
}

/// Adds what is particular to one machine; the kernel unpacks archives that follow each other in turn.
pub(crate) fn complete(base: &Path, machine: &Machine, archive: &Path) -> Result<()> {
    let tree = archive.with_file_name("own");
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir_all(&tree)?;
    fs::write(tree.join("machine.sh"), machine.guest.join("\n") + "\n")?;
    let own = archive.with_file_name("own.gz");
    pack(&tree, &own)?;
    let mut whole = fs::read(base)?;
    whole.extend(fs::read(&own)?);
    fs::write(archive, whole)?;
    Ok(())
}

/// Copies a file, and makes the folders it goes to.
pub(crate) fn put(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The modules below `folder` with all they depend on, in loading order.
pub(crate) fn modules(folder: &Path, names: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    let mut files = BTreeMap::new();
    find_modules(folder, &mut files)?;
    let mut order: Vec<(String, PathBuf)> = Vec::new();
    for name in names {
        add_module(name, &files, &mut order)?;
    }
    Ok(order)
}

fn find_modules(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find_modules(&entry.path(), files)?;
        } else if let Some(name) = entry.file_name().to_string_lossy().strip_suffix(".ko") {
            files.insert(name.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

fn add_module(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    order: &mut Vec<(String, PathBuf)>,
) -> Result<()> {
    if order.iter().any(|(known, _)| known == name) {
        return Ok(());
    }
    let file = files.get(name).with_context(|| format!("the kernel package has no module {name}"))?;
    for needed in needed_modules(&fs::read(file)?) {
        add_module(&needed, files, order)?;
    }
    order.push((name.to_owned(), file.clone()));
    Ok(())
}

/// The module's `depends=` entry: NUL-terminated text in its .modinfo section.
fn needed_modules(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let text: Vec<u8> = module[at + KEY.len()..].iter().copied().take_while(|byte| *byte != 0).collect();
    let names = String::from_utf8_lossy(&text).replace('-', "_");
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Packs a folder as the kernel wants it: cpio's newc format, compressed if the archive's name ends in `.gz`. Names are
/// sorted, owners root, and times none where it is not compressed.
pub(crate) fn pack(tree: &Path, archive: &Path) -> Result<()> {
    let mut names = String::new();
    list(tree, Path::new(""), &mut names)?;
    let compressed = archive.extension().is_some_and(|extension| extension == "gz");
    let file = File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--quiet", "--create", "--format=newc", "--owner=0:0", "--reproducible"]);
    cpio.current_dir(tree).stdin(Stdio::piped());
    let (mut cpio, gzip) = if compressed {
        let mut cpio = started(cpio.stdout(Stdio::piped()))?;
        let output = cpio.stdout.take().context("cpio has no output")?;
        let gzip = Command::new("gzip").arg("--fast").stdin(output).stdout(file).spawn()?;
        (cpio, Some(gzip))
    } else {
        (started(cpio.stdout(file))?, None)
    };
    cpio.stdin.take().context("cpio has no input")?.write_all(names.as_bytes())?;
    let packed = cpio.wait()?.success();
    let written = gzip.map_or(Ok(true), |mut gzip| gzip.wait().map(|status| status.success()))?;
    match packed && written {
        true if compressed => Ok(()),
        true => without_times(archive),
        false => bail!("cannot pack {} into {}", tree.display(), archive.display()),
    }
}

/// Takes the times of files out of an archive: the kernel reads them digit by digit, and where time is a count of
/// instructions another time would make another run of it. Source: Linux driver-api/early-userspace/buffer-format.rst.
fn without_times(archive: &Path) -> Result<()> {
    const HEADER: usize = 110;
    let file = OpenOptions::new().read(true).write(true).open(archive)?;
    let (mut header, mut at) = ([0; HEADER], 0_u64);
    loop {
        file.read_exact_at(&mut header, at)?;
        ensure!(header.starts_with(b"070701"), "{} is no archive at byte {at}", archive.display());
        let field = |number: usize| -> Result<u64> {
            let digits = std::str::from_utf8(&header[6 + 8 * number..][..8])?;
            Ok(u64::from_str_radix(digits, 16)?)
        };
        let (size, name_size) = (field(6)?, field(11)?);
        file.write_all_at(b"00000000", at + 6 + 8 * 5)?;
        let mut name = vec![0; usize::try_from(name_size)?];
        file.read_exact_at(&mut name, at + HEADER as u64)?;
        if name == b"TRAILER!!!\0" {
            return Ok(());
        }
        let data = (at + HEADER as u64 + name_size).next_multiple_of(4);
        at = (data + size).next_multiple_of(4);
    }
}

fn started(cpio: &mut Command) -> Result<Child> {
    cpio.spawn().context("cannot start `cpio`: install the Debian package cpio")
}

fn list(tree: &Path, folder: &Path, names: &mut String) -> Result<()> {
    let mut entries = fs::read_dir(tree.join(folder))?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let path = folder.join(entry.file_name());
        names.push_str(&format!("{}\n", path.display()));
        if entry.file_type()?.is_dir() {
            list(tree, &path, names)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn an_archive_does_not_depend_on_when_it_was_packed() {
        let place = std::env::temp_dir().join(format!("archive-{}", std::process::id()));
        let archive = |name: &str, age: u64| {
            let tree = place.join(name);
            fs::create_dir_all(tree.join("below")).unwrap();
            for (file, content) in [("a", "x"), ("below/b", "070701"), ("below/empty", "")] {
                fs::write(tree.join(file), content).unwrap();
                let time = SystemTime::now() - Duration::from_secs(age);
                File::open(tree.join(file)).unwrap().set_modified(time).unwrap();
            }
            symlink("a", tree.join("link")).unwrap();
            let packed = place.join(format!("{name}.cpio"));
            pack(&tree, &packed).unwrap();
            fs::read(packed).unwrap()
        };
        let (one, other) = (archive("one", 0), archive("other", 1_000_000));
        assert_eq!(one, other);
        let list =
            Command::new("cpio").args(["--quiet", "-t", "-F"]).arg(place.join("one.cpio")).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&list.stdout), "a\nbelow\nbelow/b\nbelow/empty\nlink\n");
        fs::remove_dir_all(place).unwrap();
    }
}
