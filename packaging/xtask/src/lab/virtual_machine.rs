//! One QEMU with its disk, reached through ssh on the loopback. Attached to this process it cannot outlive it;
//! detached (`cargo xtask lab start`) it runs until it is stopped.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::memory::{self, Watch};
use super::saved;
use super::ssh::{Connection, Done, Reached};
use crate::captures::{Memory, machine};
use crate::shell::{output, seconds};

/// Until when a boot must answer. It takes 50 s alone, and many times that on a computer that is busy otherwise.
pub(crate) const BOOT: Duration = Duration::from_secs(600);
/// Until when it must have powered off.
const POWER_OFF: Duration = Duration::from_secs(300);
const DISK: [&str; 4] = ["-device", "virtio-blk-pci,drive=disk0,bootindex=1", "-serial", "file:serial.log"];
const DEVICES: [&str; 13] = [
    "-netdev",
    "-device",
    "virtio-net-pci,netdev=net0,romfile=",
    "-device",
    "virtio-rng-pci",
    "-vga",
    "none",
    "-display",
    "none",
    "-monitor",
    "none",
    "-qmp",
    "unix:qmp,server=on,wait=off",
];
/// NVMe would be closer to a server, but QEMU cannot save the state of one.
const DRIVE: &str = "virtio-blk-pci";

/// How to boot.
pub(crate) struct Boot<'a> {
    /// A machine of `cargo xtask lab capture --list`.
    pub(crate) topology: &'a str,
    /// The disk, which is written to.
    pub(crate) disk: &'a Path,
    /// The disk's format.
    pub(crate) format: &'a str,
    /// The private key.
    pub(crate) key: &'a Path,
    /// Further arguments of QEMU.
    pub(crate) extra: &'a [String],
    /// Whether it ends with this process.
    pub(crate) attached: bool,
    /// Where its memory is. What was restored runs on from where it was saved.
    pub(crate) memory: Memory<'a>,
}

/// A running machine.
pub(crate) struct VirtualMachine {
    folder: PathBuf,
    pid: Pid,
    born: Option<u64>,
    connection: Connection,
    started: Instant,
    /// Attached machines only: whoever starts QEMU must also wait for its end.
    process: Option<std::process::Child>,
    watch: Option<Watch>,
}

impl VirtualMachine {
    /// Starts QEMU; its files are in `folder`, which is made anew.
    pub(crate) fn start(folder: &Path, boot: &Boot) -> Result<VirtualMachine> {
        if let Ok(running) = VirtualMachine::running(folder, boot.key) {
            bail!("{} runs already (PID {}): `cargo xtask lab kill` ends it", folder.display(), running.pid);
        }
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        // Under emulation the machine must not take the processors from those who use the computer.
        let mut command = Command::new("nice");
        if boot.attached {
            // The kernel kills QEMU should this process end in any way.
            command.args(["setpriv", "--pdeathsig", "KILL", "--"]);
        } else {
            command.process_group(0);
        }
        command.arg("qemu-system-x86_64").args(arguments(boot, port)?).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(folder.join("qemu.log"))?);
        let child = command.spawn().context("cannot start `nice`")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let connection = Connection::new(folder, port, boot.key);
        let mut machine = VirtualMachine {
            folder: folder.to_owned(),
            pid,
            born: birth(pid),
            connection,
            started: Instant::now(),
            process: None,
            watch: None,
        };
        let born = machine.born.context("QEMU ended at once")?;
        fs::write(folder.join("machine"), format!("{pid} {born} {port}"))?;
        memory::sacrifice(pid)?;
        if boot.attached {
            machine.process = Some(child);
            machine.watch = Some(Watch::start(pid));
        }
        if let Memory::Restored(saved) = boot.memory {
            saved::resume(pid, folder, saved)
                .with_context(|| format!("{}{}", saved.display(), machine.tails()))?;
        }
        Ok(machine)
    }

    /// A detached machine that was started earlier.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn running(folder: &Path, key: &Path) -> Result<VirtualMachine> {
        let text = fs::read_to_string(folder.join("machine")).unwrap_or_default();
        let mut words = text.split(' ').map(str::parse);
        let (Some(Ok(pid)), Some(Ok(born)), Some(Ok(port))) = (words.next(), words.next(), words.next())
        else {
            bail!("no machine runs: `cargo xtask lab start` starts one");
        };
        let machine = VirtualMachine {
            folder: folder.to_owned(),
            pid: Pid::from_raw(i32::try_from(pid)?),
            born: Some(born),
            connection: Connection::new(folder, u16::try_from(port)?, key),
            started: Instant::now(),
            process: None,
            watch: None,
        };
        match machine.is_ours() {
            true => Ok(machine),
            false => {
                bail!("the machine of {} has ended: `cargo xtask lab start` starts one", folder.display())
            }
        }
    }

    /// The PID may belong to another process by now: only one that began when ours did, in our folder, is ours.
    fn is_ours(&self) -> bool {
        let works_in = fs::read_link(format!("/proc/{}/cwd", self.pid)).ok();
        birth(self.pid) == self.born && works_in.is_some() && works_in == fs::canonicalize(&self.folder).ok()
    }

    /// Waits until it answers. A machine that ended or does not let us in is not waited for.
    pub(crate) fn wait_for_ssh(&mut self) -> Result<Duration> {
        self.wait_for_ssh_within(BOOT)
    }

    /// Whether it lets us in now.
    pub(crate) fn answers(&self) -> Result<bool> {
        Ok(self.connection.reach()? == Reached::Yes)
    }

    fn wait_for_ssh_within(&mut self, limit: Duration) -> Result<Duration> {
        self.wait(limit, |machine| machine.answers())
    }

    fn wait(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<Duration> {
        let start = Instant::now();
        loop {
            if ready(self)? {
                return Ok(start.elapsed());
            }
            if self.has_ended()? {
                bail!("QEMU ended{}{}", self.excess(), self.tails());
            }
            if start.elapsed() > limit {
                bail!("no answer after {}{}", seconds(start.elapsed()), self.tails());
            }
            thread::sleep(Duration::from_millis(500));
        }
    }

    fn has_ended(&mut self) -> Result<bool> {
        match &mut self.process {
            Some(child) => Ok(child.try_wait()?.is_some()),
            None => Ok(!self.is_ours()),
        }
    }

    fn excess(&self) -> String {
        match &self.watch {
            Some(watch) if watch.killed() => format!(": {}", memory::EXCESS),
            _ => String::new(),
        }
    }

    /// Runs a command line in the guest's shell with `input`, whatever its exit status.
    pub(crate) fn ssh(&self, command: &str, input: &[u8], limit: Duration) -> Result<Done> {
        let done = self.connection.run(command, input, limit);
        done.with_context(|| format!("`{command}` in the machine{}{}", self.excess(), self.tails()))
    }

    /// A command for a person's terminal: ssh with these words.
    pub(crate) fn terminal(&self) -> Command {
        self.connection.command()
    }

    /// Whether an attached machine has ended by resetting itself.
    pub(crate) fn has_reset(&mut self) -> Result<bool> {
        let ended = match &mut self.process {
            Some(child) => child.try_wait()?,
            None => None,
        };
        Ok(ended.is_some_and(|status| status.success()))
    }

    /// Waits until an attached machine resets itself, which ends QEMU.
    pub(crate) fn wait_for_reset(&mut self, limit: Duration) -> Result<()> {
        let wait = self.wait(limit, VirtualMachine::has_reset);
        self.connection.close();
        wait.map(drop).context("waiting for a reset")
    }

    /// Reboots a detached machine as an administrator does, and waits until it answers with another boot id.
    pub(crate) fn reboot(&mut self) -> Result<Duration> {
        let before = self.boot_id()?;
        let start = Instant::now();
        self.order("systemctl reboot");
        self.wait(BOOT, |machine| {
            Ok(machine.connection.reach()? == Reached::Yes
                && machine.boot_id().is_ok_and(|now| !now.is_empty() && now != before))
        })?;
        Ok(start.elapsed())
    }

    /// Runs a command line that takes the machine away from under it.
    pub(crate) fn order(&self, command: &str) {
        // Its status may never arrive.
        let _ = self.connection.run(command, b"", Duration::from_secs(20));
        self.connection.close();
    }

    /// Waits until this text appears on the serial console.
    pub(crate) fn wait_for_console(&mut self, text: &str, limit: Duration) -> Result<()> {
        let log = self.folder.join("serial.log");
        // QEMU makes it when it starts.
        let read = || fs::read(&log).unwrap_or_default();
        let wait = self.wait(limit, |_| Ok(String::from_utf8_lossy(&read()).contains(text)));
        wait.map(drop).with_context(|| format!("waiting for `{text}` on the console"))
    }

    /// The lines of the serial console of this boot in which the kernel tells of a bug of its own.
    pub(crate) fn bugs(&self) -> Vec<String> {
        let log = fs::read(self.folder.join("serial.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let bugs = log.lines().filter(|line| ["BUG:", "Oops:"].iter().any(|word| line.contains(word)));
        bugs.map(|line| line.trim_end().to_owned()).collect()
    }

    fn boot_id(&self) -> Result<String> {
        let read = "cat /proc/sys/kernel/random/boot_id";
        Ok(self.connection.run(read, b"", Duration::from_secs(30))?.success()?.trim().to_owned())
    }

    /// Powers off as an administrator does, and waits until QEMU has ended.
    pub(crate) fn power_off(&mut self) -> Result<()> {
        self.order("systemctl poweroff");
        self.wait_for_end()
    }

    fn wait_for_end(&mut self) -> Result<()> {
        let start = Instant::now();
        while !self.has_ended()? {
            if start.elapsed() > POWER_OFF {
                bail!("QEMU still runs after {}{}", seconds(start.elapsed()), self.tails());
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Saves the state in a folder which has the memory already, and ends QEMU.
    pub(crate) fn save(&mut self, to: &Path) -> Result<()> {
        self.connection.close();
        saved::save(self.pid, &self.folder, to)
            .with_context(|| format!("saving the machine{}", self.tails()))?;
        self.wait_for_end()
    }

    /// Ends QEMU at once.
    pub(crate) fn kill(&mut self) {
        self.connection.close();
        if let Some(child) = &mut self.process {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        } else if self.is_ours() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    /// The most memory that QEMU had, in MiB; 0 when it has ended.
    pub(crate) fn peak(&self) -> u64 {
        memory::of(self.pid, "VmHWM")
    }

    /// The processor time that QEMU took, in seconds; 0 when it has ended.
    pub(crate) fn processor_time(&self) -> f64 {
        let fields = stat(self.pid);
        let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        ticks as f64 / 100.0
    }

    /// Since QEMU was started.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The last lines of the console and of QEMU's own messages.
    fn tails(&self) -> String {
        let mut text = String::new();
        for name in ["qemu.log", "serial.log"] {
            let log = fs::read(self.folder.join(name)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("TCG doesn't support")).collect();
            text.push_str(&format!("\n  {}:", self.folder.join(name).display()));
            for line in &lines[lines.len().saturating_sub(25)..] {
                text.push_str(&format!("\n    {}", line.trim_end().escape_debug()));
            }
        }
        text
    }
}

impl Drop for VirtualMachine {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

/// The fields of /proc/PID/stat from the third, the state; none for a process that is not there.
fn stat(pid: Pid) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second ends in the last parenthesis.
    let fields = text.rsplit(')').next().unwrap_or_default();
    fields.split_whitespace().map(str::to_owned).collect()
}

/// When a process began, in clock ticks; none when it has ended, whether or not it was waited for.
fn birth(pid: Pid) -> Option<u64> {
    let fields = stat(pid);
    if fields.first()? == "Z" {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// What a state that is saved belongs to: the version of QEMU, and the machine with this topology.
pub(super) fn signature(topology: &str) -> Result<String> {
    let version = output(Command::new("qemu-system-x86_64").arg("--version"))?;
    let machine = machine(topology)?;
    let parts = [machine.topology_arguments(Memory::Own), machine.drive_arguments(DRIVE)].concat();
    let text = [version, parts.join("\n"), DISK.join("\n"), DEVICES.join("\n")].join("\n");
    Ok(sha1_smol::Sha1::from(text).digest().to_string()[..12].to_owned())
}

/// QEMU's arguments; paths are relative to the machine's folder, but for the disk.
fn arguments(boot: &Boot, port: u16) -> Result<Vec<String>> {
    let machine = machine(boot.topology)?;
    let mut line = machine.topology_arguments(boot.memory);
    let disk = boot.disk.canonicalize().with_context(|| format!("{}", boot.disk.display()))?;
    // A comma in a path would begin another option.
    let disk = disk.to_string_lossy().replace(',', ",,");
    line.push("-drive".into());
    line.push(format!("if=none,id=disk0,file={disk},format={},cache=unsafe,discard=unmap", boot.format));
    line.extend(DISK.map(String::from));
    line.extend(DEVICES.map(String::from));
    let network = format!("user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22");
    let at = line.iter().position(|word| word == "-netdev").context("no network")?;
    line.insert(at + 1, network);
    line.extend(machine.drive_arguments(DRIVE));
    if let Memory::Restored(_) = boot.memory {
        line.extend(["-incoming", "defer"].map(String::from));
    }
    if boot.attached {
        // A reset ends QEMU, which shows exactly when it came; whoever wants the next boot starts it.
        line.push("-no-reboot".into());
    }
    line.extend(boot.extra.iter().cloned());
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_reached_from_this_computer_only() {
        let boot = Boot {
            topology: "reference",
            disk: Path::new("/dev/null"),
            format: "raw",
            key: Path::new("/dev/null"),
            extra: &["-S".to_owned()],
            attached: true,
            memory: Memory::Own,
        };
        let line = arguments(&boot, 2200).unwrap();
        let value = |option: &str| {
            let at = line.iter().position(|word| word == option).unwrap();
            line[at + 1].as_str()
        };
        assert_eq!(value("-netdev"), "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:2200-:22");
        assert_eq!(line.iter().filter(|word| *word == "-netdev").count(), 1);
        assert_eq!(value("-accel"), "tcg,thread=single");
        assert!(line.iter().any(|word| word.contains("size=32G,prealloc=off,reserve=off")));
        assert_eq!(line.last().unwrap(), "-S");
        assert!(arguments(&Boot { topology: "none", ..boot }, 1).is_err());
        // Every recorded machine is a host of the lab as well.
        for topology in ["interleaved", "smt", "memory-only", "dies", "large", "small", "pair"] {
            let line = arguments(&Boot { topology, ..boot }, 1).unwrap();
            assert_eq!(line.iter().filter(|word| *word == "-smp").count(), 1, "{topology}");
            assert!(line.iter().any(|word| word.contains("bootindex=1")), "{topology}");
        }
    }

    /// Writes `BUG: hangs here` and a line's end to the first serial port, and stops: cld; mov dx,3f8; mov si,message;
    /// cs lodsb; test al,al; jz stop; out dx,al; jmp; stop: cli; hlt; jmp stop.
    const HANGS: &[u8] = b"\xfc\xba\xf8\x03\xbe\x14\x7c\x2e\xac\x84\xc0\x74\x03\xee\xeb\xf7\xfa\xf4\xeb\xfc\
        BUG: hangs here\r\n\0";

    #[test]
    fn a_boot_that_hangs_ends_with_its_console_shown() {
        let work = std::env::temp_dir().join(format!("rtkvm-tune-hang-{}", std::process::id()));
        fs::create_dir_all(&work).unwrap();
        // The BIOS boots from no disk that is much smaller.
        let mut sector = vec![0; 1 << 20];
        sector[..HANGS.len()].copy_from_slice(HANGS);
        sector[510..512].copy_from_slice(&[0x55, 0xaa]);
        let disk = work.join("disk");
        fs::write(&disk, sector).unwrap();
        let boot = Boot {
            topology: "small",
            disk: &disk,
            format: "raw",
            key: &disk,
            extra: &[],
            attached: true,
            memory: Memory::Own,
        };
        let mut machine = VirtualMachine::start(&work.join("run"), &boot).unwrap();
        // Until the boot sector has run, however busy this computer is.
        machine.wait_for_console("hangs here", Duration::from_secs(120)).unwrap();
        let error = format!("{:#}", machine.wait_for_ssh_within(Duration::from_secs(1)).unwrap_err());
        assert!(machine.bugs().iter().any(|line| line.ends_with("BUG: hangs here")));
        let pid = machine.pid;
        drop(machine);
        assert_eq!(birth(pid), None, "QEMU still runs");
        fs::remove_dir_all(&work).unwrap();
        for part in ["no answer after ", "serial.log:", "hangs here"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
