//! The machine in which time is a count of instructions: two processors, no device that another clock drives, and all of
//! its files in memory.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;

use super::super::image;
use crate::captures::debian::{self, Kernel};
use crate::captures::initramfs;
use crate::captures::qemu::{self, Emulator};
use crate::deb;
use crate::shell::{cache, need, output, root, run, step};

/// What the machine has beyond a minimal Debian.
const PACKAGES: [&str; 7] = ["kmod", "procps", "iproute2", "tuned", "dbus-daemon", "rt-tests", "stress-ng"];
const STRIP: &str = include_str!("strip.sh");
const INIT: &str = include_str!("init.sh");
const SPEED: [(&str, &str); 2] =
    [("speed.sh", include_str!("speed.sh")), ("speed.py", include_str!("../speed.py"))];
/// Block requests without a device: a real one would answer in the time of this computer.
const MODULES: [&str; 2] = ["configfs", "null_blk"];
/// Before it QEMU hangs while the second processor starts, when it counts instructions.
const QEMU: u32 = 10;
/// What QEMU 10 consists of in Debian's backports, beyond what the release's own package depends on.
const QEMU_PACKAGES: [&str; 4] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// An instruction takes 2 to the power of 3 nanoseconds, and the clock jumps to its next deadline when nothing runs.
const CLOCK: &str = "shift=3,sleep=off";
/// As capable as the emulation is, without what would not repeat, and without the instructions that copy a byte at a time
/// here: the kernel would take them for fast.
const PROCESSOR: &str = "max,+invtsc,-rdrand,-rdseed,-erms,-fsrm,x-force-features=on";
/// What every boot has on the kernel's line. Without timer pin 1 nothing hears the timer that makes the processors'
/// turns short; the calls left out only cost time while the machine starts.
const ARGUMENTS: &str = "console=ttyS0 quiet nokaslr no_timer_check disable_timer_pin_1 tsc=reliable panic=-1 \
                         cryptomgr.notests rdinit=/init";
const DEADLINE: Duration = Duration::from_secs(1800);
/// What the machine says last.
const END: &str = "\n== end\n";

/// All that a boot needs.
pub(super) struct Machine {
    emulator: Emulator,
    /// The kernel, not compressed.
    kernel: PathBuf,
    /// The release of the kernel and of QEMU.
    pub(super) versions: String,
    /// The archive that all boots have in common.
    base: PathBuf,
    modules: Vec<(String, PathBuf)>,
    /// rtkvm-tune, static.
    pub(super) program: PathBuf,
    work: PathBuf,
}

impl Machine {
    /// Fetches and builds what is not there yet.
    pub(super) fn prepare() -> Result<Machine> {
        need(&["qemu-system-x86_64", "cpio", "setpriv", "apt-get", "dpkg", "mmdebstrap", "xz"])?;
        let cache = cache()?.join("latency");
        fs::create_dir_all(&cache)?;
        let work = root().join("target/lab/latency");
        fs::create_dir_all(&work)?;
        let emulator = step("QEMU that counts instructions", || emulator(&cache))?;
        let debian = step("Debian kernel", || debian::fetch(&crate::shell::cache()?))?;
        let kernel = cache.join(format!("vmlinux-{}", debian.version));
        if !kernel.is_file() {
            step("kernel, unpacked", || unpack(&debian, &kernel))?;
        }
        let modules = initramfs::modules(&debian.files.join("lib/modules").join(&debian.version), &MODULES)?;
        let base = base(&cache)?;
        let program = step("static rtkvm-tune", || deb::program("lab"))?;
        let qemu = version(&emulator)?;
        let versions = format!("{}, QEMU {}.{}", debian.package, qemu.0, qemu.1);
        Ok(Machine { emulator, kernel, versions, base, modules, program, work })
    }

    /// Boots the machine with these variables for its first process, this profile and further kernel arguments, and
    /// gives what it printed. The record stays in target/lab/latency/NAME.
    pub(super) fn boot(
        &self,
        name: &str,
        state: &str,
        profile: &str,
        arguments: &[String],
    ) -> Result<String> {
        let work = self.folder(name);
        let tree = work.join("own");
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir_all(&tree)?;
        fs::write(tree.join("state"), state)?;
        fs::write(tree.join("profile.toml"), profile)?;
        fs::write(tree.join("init"), INIT)?;
        run(Command::new("chmod").arg("755").arg(tree.join("init")))?;
        for (name, text) in SPEED {
            fs::write(tree.join(name), text)?;
        }
        initramfs::put(&self.program, &tree.join("usr/bin/rtkvm-tune"))?;
        let mut order = String::new();
        for (module, file) in &self.modules {
            initramfs::put(file, &tree.join(format!("modules/{module}.ko")))?;
            order += &format!("{module}\n");
        }
        fs::write(tree.join("modules/order"), order)?;
        let own = work.join("own.cpio");
        initramfs::pack(&tree, &own)?;
        let archive = work.join("initramfs");
        let mut whole = fs::File::create(&archive)?;
        for part in [&self.base, &own] {
            io::copy(&mut fs::File::open(part)?, &mut whole)?;
        }
        let line = [&[ARGUMENTS.to_owned()], arguments].concat().join(" ");
        let text = qemu::until_end(&work, &self.emulator, &self.arguments(&line), DEADLINE, END);
        // It is large, and the same for all but a few bytes.
        let _ = fs::remove_file(&archive);
        text
    }

    /// Where a boot of this name has its files.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// QEMU's arguments; paths are relative to the folder of the boot.
    fn arguments(&self, line: &str) -> Vec<String> {
        let kernel = self.kernel.to_string_lossy();
        [
            "-machine",
            "q35,hpet=off",
            "-accel",
            "tcg,thread=single",
            "-icount",
            CLOCK,
            "-seed",
            "1",
            "-cpu",
            PROCESSOR,
            "-smp",
            "2",
            "-m",
            "1024",
            "-rtc",
            "base=2026-01-01,clock=vm",
            "-nic",
            "none",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "file:console.log",
            "-serial",
            "file:record",
            "-kernel",
            &kernel,
            "-initrd",
            "initramfs",
            "-append",
            line,
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

/// The installed QEMU if it is new enough, else one of Debian's backports, unpacked beside it.
fn emulator(cache: &Path) -> Result<Emulator> {
    let installed = Emulator::installed();
    if version(&installed)?.0 >= QEMU {
        return Ok(installed);
    }
    let folder = cache.join("qemu");
    if !folder.join("complete").exists() {
        fetch(cache, &folder)?;
    }
    let files = folder.join("usr/share");
    let places = ["qemu", "seabios"].map(|name| files.join(name).to_string_lossy().into_owned());
    let emulator = Emulator {
        program: folder.join("usr/bin/qemu-system-x86_64"),
        environment: vec![("QEMU_MODULE_DIR", folder.join("usr/lib/x86_64-linux-gnu/qemu"))],
        arguments: places.into_iter().flat_map(|place| ["-L".to_owned(), place]).collect(),
    };
    let found = version(&emulator)?.0;
    ensure!(found >= QEMU, "the backports of this release have QEMU {found} only: {QEMU} is needed");
    Ok(emulator)
}

/// Major and minor number.
fn version(emulator: &Emulator) -> Result<(u32, u32)> {
    let mut command = Command::new(&emulator.program);
    command.envs(emulator.environment.iter().map(|(name, path)| (name, path))).arg("--version");
    let text = output(&mut command)?;
    let numbers = text.split_whitespace().nth(3).unwrap_or_default().split('.');
    match numbers.map_while(|number| number.parse().ok()).collect::<Vec<u32>>()[..] {
        [major, minor, ..] => Ok((major, minor)),
        _ => bail!("`{}` is no version of QEMU", text.lines().next().unwrap_or_default()),
    }
}

/// Downloads QEMU from the backports of this computer's release, with apt's lists of its own.
fn fetch(cache: &Path, folder: &Path) -> Result<()> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let release = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let release = release.context("/etc/os-release names no release: the newer QEMU is Debian's")?;
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]);
    let targets = output(&mut targets)?;
    let mirror = targets.lines().filter_map(|line| line.split_once(' ')).find(|(_, of)| *of == release);
    let (mirror, _) = mirror.with_context(|| format!("apt has no source for {release}"))?;
    let apt = cache.join("apt");
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    let sources = apt.join("sources.list");
    fs::write(&sources, format!("deb [signed-by={KEYRING}] {mirror} {release}-backports main\n"))?;
    let get = |words: &[&str]| {
        let mut get = Command::new("apt-get");
        for (name, value) in [
            ("Dir::Etc::SourceList", sources.display().to_string()),
            ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
            ("Dir::State::Lists", apt.join("lists").display().to_string()),
            ("Dir::Cache", apt.join("cache").display().to_string()),
            ("APT::Sandbox::User", "root".to_owned()),
            ("APT::Default-Release", format!("{release}-backports")),
            ("Acquire::Languages", "none".to_owned()),
        ] {
            get.args(["--option", &format!("{name}={value}")]);
        }
        run(get.args(["--quiet", "--quiet"]).args(words).current_dir(&apt))
    };
    get(&["update"])?;
    get(&[&["download"], &QEMU_PACKAGES[..]].concat())?;
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(&apt)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg").arg("--extract").arg(&file).arg(folder))?;
        }
    }
    fs::remove_dir_all(&apt)?;
    fs::write(folder.join("complete"), "")?;
    Ok(())
}

/// Takes the kernel out of its bootable image: the machine would unpack it in its own time. Where it is, and how long,
/// is in the image's header: Documentation/arch/x86/boot.rst.
fn unpack(debian: &Kernel, kernel: &Path) -> Result<()> {
    let image = fs::read(&debian.image)?;
    let number = |at: usize| -> Result<usize> {
        let bytes = image.get(at..at + 4).context("the kernel's image is too short")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    let setup = usize::from(*image.get(0x1f1).context("the kernel's image is empty")?);
    let start = (setup + 1) * 512 + number(0x248)?;
    // Four bytes at the end are the length of what was compressed.
    let payload = image.get(start..start + number(0x24c)? - 4).context("the kernel's image is cut off")?;
    ensure!(payload.starts_with(b"\xfd7zXZ\0"), "{} is not compressed by xz", debian.image.display());
    let partial = kernel.with_extension("partial");
    let mut xz = Command::new("xz");
    xz.args(["--decompress", "--stdout", "--single-stream"]).stdin(Stdio::piped());
    let mut xz = xz.stdout(fs::File::create(&partial)?).spawn().context("cannot start `xz`")?;
    xz.stdin.take().context("xz has no input")?.write_all(payload)?;
    ensure!(xz.wait()?.success(), "the kernel could not be unpacked");
    fs::rename(partial, kernel)?;
    Ok(())
}

/// The archive that all boots have in common: Debian with the programs of the benchmark, not compressed.
fn base(cache: &Path) -> Result<PathBuf> {
    let recipe = format!("{} {}, without times\n{STRIP}", image::RELEASE, PACKAGES.join(" "));
    let name = sha1_smol::Sha1::from(recipe).digest().to_string()[..12].to_owned();
    let archive = cache.join(format!("{name}.cpio"));
    if archive.is_file() {
        return Ok(archive);
    }
    if !geteuid().is_root() {
        bail!("the machine's files belong to root: run `cargo xtask lab latency` once as root");
    }
    let unfinished = cache.join("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished)?;
    step("Debian with mmdebstrap", || {
        let tree = unfinished.join("tree");
        image::debian(&unfinished, &tree, &PACKAGES, STRIP, &[])?;
        let packed = unfinished.join("base.cpio");
        initramfs::pack(&tree, &packed)?;
        fs::rename(&packed, &archive)?;
        Ok(fs::remove_dir_all(&unfinished)?)
    })?;
    Ok(archive)
}
