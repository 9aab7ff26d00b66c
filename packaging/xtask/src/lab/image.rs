//! The disk image of the lab's hosts: Debian, built without loop devices and mounts, kept outside the repository.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use super::virtual_machine::{Boot, VirtualMachine};
use crate::captures::Memory;
use crate::shell::{cache, need, output, root, run, step};

pub(super) const RELEASE: &str = "bookworm";
/// What the host has beyond a minimal Debian.
const PACKAGES: [&str; 20] = [
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "initramfs-tools",
    "lz4",
    "grub-pc",
    "iproute2",
    "procps",
    "util-linux",
    "pciutils",
    "strace",
    "busybox-static",
    "rt-tests",
    "irqbalance",
    "tuned",
    "libvirt-daemon-system",
    "libvirt-clients",
    "openssh-server",
    "cloud-init",
];
const EMULATOR: &str = "qemu-system-x86";
const OPTIONS: [&str; 8] = [
    "--mode=root",
    "--variant=minbase",
    "--format=directory",
    "--aptopt=APT::Install-Recommends \"false\"",
    "--aptopt=Acquire::Languages \"none\"",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
];
/// Named one by one: newer defaults of mkfs are beyond the GRUB of the release.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,\
    sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
const CUSTOMIZE: &str = include_str!("customize.sh");
const PREPARE: &str = include_str!("prepare.sh");
/// Bytes of the disk, and of what is before its only partition. Blocks that nothing wrote take no space.
const DISK: u64 = 4 << 30;
const PARTITION: u64 = 1 << 20;

/// What the tests boot: never written once it is complete.
pub(crate) struct Image {
    /// The disk, raw.
    pub(crate) disk: PathBuf,
    /// Where the machines are kept that were saved right after their first boot.
    pub(crate) booted: PathBuf,
    /// The private key that opens every host of the lab.
    pub(crate) key: PathBuf,
}

/// The image of this recipe, built if there is none yet.
pub(crate) fn get() -> Result<Image> {
    need(&["qemu-system-x86_64", "qemu-img", "ssh", "ssh-keygen", "setpriv"])?;
    let lab = cache()?.join("lab");
    fs::create_dir_all(&lab)?;
    let key = lab.join("key");
    if !key.is_file() {
        let mut make = Command::new("ssh-keygen");
        run(make.args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]).arg(&key))?;
    }
    let folder = lab.join(recipe(&fs::read_to_string(key.with_extension("pub"))?));
    let image = Image { disk: folder.join("base.raw"), booted: folder.join("booted"), key };
    if image.disk.is_file() {
        return Ok(image);
    }
    // Two builds at once would be in each other's way; the second finds what the first made.
    let lock = File::create(lab.join("lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).context("lock")?;
    if image.disk.is_file() {
        return Ok(image);
    }
    need(&["mmdebstrap", "mkfs.ext4", "dpkg-deb"])?;
    if !geteuid().is_root() {
        bail!("the image's files belong to root and other users: run `cargo xtask lab build` as root");
    }
    // Complete or not there: a build that was interrupted leaves only this folder behind.
    let unfinished = lab.join("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished)?;
    build(&unfinished, &image.key)?;
    fs::rename(&unfinished, &folder)?;
    Ok(image)
}

/// A name that is another whenever the image would be.
fn recipe(public_key: &str) -> String {
    let parts = [&PACKAGES.join(" "), EMULATOR, &OPTIONS.join(" "), FEATURES, CUSTOMIZE, PREPARE, public_key];
    let text = format!("{RELEASE} {DISK} {PARTITION}\n{}", parts.join("\n"));
    sha1_smol::Sha1::from(text).digest().to_string()[..12].to_owned()
}

fn build(work: &Path, key: &Path) -> Result<()> {
    let tree = work.join("tree");
    step("Debian with mmdebstrap", || bootstrap(work, &tree, key))?;
    let disk = work.join("base.raw");
    step("disk image", || {
        partition(&disk)?;
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-O", FEATURES, "-d"]).arg(&tree);
        make.args(["-E", &format!("offset={PARTITION},lazy_itable_init=1,nodiscard")]);
        // Its only message on success says that the device is larger.
        output(make.arg(&disk).arg(format!("{}k", (DISK - PARTITION) / 1024))).map(drop)
    })?;
    step("boot loader, by the host itself", || prepare(work, &tree, &disk, key))?;
    fs::remove_dir_all(&tree)?;
    Ok(())
}

fn bootstrap(work: &Path, tree: &Path, key: &Path) -> Result<()> {
    let packages = [&PACKAGES[..], &[EMULATOR]].concat();
    debian(work, tree, &packages, CUSTOMIZE, &[("LAB_KEY", &key.with_extension("pub"))])
}

/// Makes a tree of the release with these packages, and runs a shell script in our place with the tree as `$1`.
pub(super) fn debian(
    work: &Path,
    tree: &Path,
    packages: &[&str],
    customize: &str,
    environment: &[(&str, &Path)],
) -> Result<()> {
    let script = work.join("customize.sh");
    fs::write(&script, customize)?;
    let log = work.join("mmdebstrap.log");
    // Should this process end in any way, the kernel ends all that this starts and undoes its mounts.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--mount-proc", "--pid", "--fork"]);
    command.args(["--kill-child", "--", "mmdebstrap"]).args(OPTIONS).envs(environment.iter().copied());
    command.arg(format!("--include={}", packages.join(",")));
    command.arg(format!("--customize-hook=sh '{}' \"$1\"", script.display()));
    command.arg(RELEASE).arg(tree).args(sources()?);
    command.stdout(File::create(&log)?).stderr(File::options().append(true).open(&log)?);
    run(&mut command).with_context(|| {
        let said = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    })
}

/// Where this machine gets the same release from, if that is what it runs; else mmdebstrap's own choice.
fn sources() -> Result<Vec<PathBuf>> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !release.lines().any(|line| line == format!("VERSION_CODENAME={RELEASE}")) {
        return Ok(Vec::new());
    }
    let files = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    Ok(files.iter().map(PathBuf::from).filter(|file| file.is_file()).take(1).collect())
}

/// A partition table with one bootable Linux partition, as in every PC's first sector.
fn partition(disk: &Path) -> Result<()> {
    let file = File::create(disk)?;
    file.set_len(DISK)?;
    let mut sector = [0; 512];
    let start = u32::try_from(PARTITION / 512)?;
    let length = u32::try_from((DISK - PARTITION) / 512)?;
    let entry = &mut sector[446..462];
    entry[..8].copy_from_slice(&[0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&start.to_le_bytes());
    entry[12..16].copy_from_slice(&length.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    file.write_all_at(&sector, 0)?;
    Ok(())
}

/// One boot with the kernel given by hand, in which the guest runs its own grub-install.
fn prepare(work: &Path, tree: &Path, disk: &Path, key: &Path) -> Result<()> {
    let find = |prefix: &str| -> Result<String> {
        let mut files = fs::read_dir(tree.join("boot"))?.flatten().map(|entry| entry.path());
        let named =
            |file: &PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        let file = files.find(named).with_context(|| format!("the tree has no /boot/{prefix}*"))?;
        Ok(file.to_string_lossy().into_owned())
    };
    let (kernel, archive) = (find("vmlinuz-")?, find("initrd.img-")?);
    let direct: Vec<String> = [
        "-kernel",
        &kernel,
        "-initrd",
        &archive,
        "-append",
        "root=/dev/vda1 ro quiet console=ttyS0 init_on_alloc=0 no_timer_check",
    ]
    .map(str::to_owned)
    .to_vec();
    let boot = Boot {
        topology: "small",
        disk,
        format: "raw",
        key,
        extra: &direct,
        attached: true,
        memory: Memory::Own,
    };
    let mut host = VirtualMachine::start(&work.join("run"), &boot)?;
    host.wait_for_ssh()?;
    let done = host.ssh("sh -s", PREPARE.as_bytes(), Duration::from_secs(300))?;
    done.success()?;
    host.power_off()?;
    fs::remove_dir_all(work.join("run"))?;
    Ok(())
}

/// A disk that starts as the image and keeps what is written to it to itself.
pub(crate) fn overlay(base: &Path, format: &str, disk: &Path) -> Result<()> {
    let _ = fs::remove_file(disk);
    let mut make = Command::new("qemu-img");
    make.args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]).arg(base).arg(disk);
    run(&mut make)
}

/// Where the running hosts have their files, and the states that tests start from.
pub(crate) fn work() -> PathBuf {
    root().join("target/lab")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_key_is_another_image() {
        assert_eq!(recipe("one").len(), 12);
        assert_eq!(recipe("one"), recipe("one"));
        assert_ne!(recipe("one"), recipe("two"));
    }

    #[test]
    fn the_first_sector_has_one_bootable_partition_up_to_the_end() {
        let disk = std::env::temp_dir().join(format!("rtkvm-tune-partition-{}", std::process::id()));
        partition(&disk).unwrap();
        let length = fs::metadata(&disk).unwrap().len();
        let mut sector = [0; 512];
        File::open(&disk).unwrap().read_exact_at(&mut sector, 0).unwrap();
        fs::remove_file(&disk).unwrap();
        let number = |at: usize| u64::from(u32::from_le_bytes(sector[at..at + 4].try_into().unwrap()));
        assert_eq!((sector[446], sector[450], &sector[510..]), (0x80, 0x83, &[0x55, 0xaa][..]));
        assert_eq!((number(454) * 512, (number(454) + number(458)) * 512), (PARTITION, length));
        assert!(sector[462..510].iter().all(|byte| *byte == 0));
    }
}
