//! Running machines that are kept in files: their memory, their devices' state and their disk. A test that starts from
//! one is there in seconds, where a boot takes minutes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Until when QEMU must have written or read a state, which is small: the memory is not a part of it.
const LIMIT: Duration = Duration::from_secs(120);
/// The state of everything but memory and disk.
const STATE: &str = "state";

/// A machine that was saved.
pub(crate) struct Saved(PathBuf);

impl Saved {
    /// The one in this folder, which `make` fills if it is not there: with the memory, the state and the disk.
    pub(crate) fn get(folder: &Path, make: impl FnOnce(&Saved) -> Result<()>) -> Result<Saved> {
        let saved = Saved(folder.to_owned());
        if folder.is_dir() {
            return Ok(saved);
        }
        let parent = folder.parent().context("no folder")?;
        fs::create_dir_all(parent)?;
        // The first that wants it makes it, and the others wait for that.
        let lock = File::create(folder.with_extension("lock"))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).context("lock")?;
        if folder.is_dir() {
            return Ok(saved);
        }
        // Complete or not there.
        let unfinished = folder.with_extension("unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        fs::create_dir(&unfinished)?;
        make(&Saved(unfinished.clone()))?;
        fs::rename(&unfinished, folder)?;
        Ok(saved)
    }

    /// Where the memory and the state are.
    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// The state of all but memory and disk: no two boots have the same one.
    pub(crate) fn state(&self) -> PathBuf {
        self.0.join(STATE)
    }

    /// The disk, which is never written to once all is there.
    pub(crate) fn disk(&self) -> PathBuf {
        self.0.join("disk.qcow2")
    }
}

/// Saves the state of a running QEMU, whose memory is in files of this folder, and ends it.
pub(super) fn save(pid: Pid, machine: &Path, to: &Path) -> Result<()> {
    let mut monitor = Monitor::of(pid)?;
    monitor.leave_out_memory()?;
    // QEMU is done before the other end of the pipe is: the file has its name when all is in it.
    monitor.order("migrate", json!({"uri": format!("exec:cat >{STATE}.half && mv {STATE}.half {STATE}")}))?;
    monitor.wait("query-migrate", |migration| match migration["status"].as_str() {
        Some("failed") => bail!("QEMU does not save the machine: {migration}"),
        status => Ok(status == Some("completed") && machine.join(STATE).is_file()),
    })?;
    fs::copy(machine.join(STATE), to.join(STATE))?;
    monitor.order("quit", json!({}))?;
    Ok(())
}

/// Lets a QEMU that was started with the memory of this folder go on from the state that is there too.
pub(super) fn resume(pid: Pid, machine: &Path, from: &Path) -> Result<()> {
    fs::copy(from.join(STATE), machine.join(STATE))?;
    let mut monitor = Monitor::of(pid)?;
    monitor.leave_out_memory()?;
    monitor.order("migrate-incoming", json!({"uri": format!("exec:cat {STATE}")}))?;
    monitor.wait("query-status", |now| Ok(now["running"] == true))
}

/// QEMU's monitor: one JSON object a line.
/// Source: QEMU's "QEMU Machine Protocol Specification" and "QEMU QMP Reference Manual".
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    /// The monitor of a QEMU that listens on `qmp` in the folder where it runs: a path that is short wherever that is.
    fn of(pid: Pid) -> Result<Monitor> {
        let start = Instant::now();
        let socket = loop {
            match UnixStream::connect(format!("/proc/{pid}/cwd/qmp")) {
                Ok(socket) => break socket,
                Err(error) if start.elapsed() > LIMIT => return Err(error).context("QEMU's monitor"),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
            if !Path::new(&format!("/proc/{pid}/cwd/")).is_dir() {
                bail!("QEMU has ended");
            }
        };
        socket.set_read_timeout(Some(LIMIT))?;
        let mut monitor = Monitor(BufReader::new(socket));
        // Its greeting, and then nothing but this until it is said.
        monitor.read()?;
        monitor.order("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// The memory is in files that QEMU has open.
    fn leave_out_memory(&mut self) -> Result<()> {
        let capability = json!({"capability": "x-ignore-shared", "state": true});
        self.order("migrate-set-capabilities", json!({"capabilities": [capability]})).map(drop)
    }

    /// Asks this until the answer is the one that is waited for.
    fn wait(&mut self, question: &str, done: impl Fn(&Value) -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        loop {
            let answer = self.order(question, json!({}))?;
            if done(&answer)? {
                return Ok(());
            }
            if start.elapsed() > LIMIT {
                bail!("not done after {} s: QEMU's `{question}` says {answer}", LIMIT.as_secs());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn order(&mut self, command: &str, arguments: Value) -> Result<Value> {
        writeln!(self.0.get_mut(), "{}", json!({"execute": command, "arguments": arguments}))?;
        loop {
            let mut answer = self.read()?;
            if !answer["return"].is_null() {
                return Ok(answer["return"].take());
            }
            if !answer["error"].is_null() {
                bail!("QEMU's `{command}`: {}", answer["error"]["desc"]);
            }
            // Events come in between.
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => bail!("QEMU closed its monitor"),
            _ => Ok(serde_json::from_str(&line)?),
        }
    }
}
