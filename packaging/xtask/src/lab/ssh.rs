//! Commands in a guest, through one ssh connection that all of them share: setting one up takes long under emulation.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How to reach a guest.
pub(crate) struct Connection {
    folder: PathBuf,
    port: u16,
    key: PathBuf,
}

/// Whether a guest can be reached.
#[derive(PartialEq, Eq)]
pub(crate) enum Reached {
    Yes,
    NotYet,
}

/// What became of a command in a guest.
#[derive(Debug)]
pub(crate) struct Done {
    /// The command line.
    pub(crate) command: String,
    /// Its exit status.
    pub(crate) status: ExitStatus,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
}

impl Done {
    /// The standard output of a command that succeeded.
    ///
    /// # Errors
    /// Any other exit status.
    pub(crate) fn success(self) -> Result<String> {
        match self.status.success() {
            true => Ok(self.stdout),
            false => bail!("`{}` failed ({}):\n{}{}", self.command, self.status, self.stdout, self.stderr),
        }
    }

    /// The exit status; -1 for a signal.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

impl Connection {
    /// A connection that is set up when it is first used. Its socket is in the machine's folder.
    pub(crate) fn new(folder: &Path, port: u16, key: &Path) -> Connection {
        Connection { folder: folder.to_owned(), port, key: key.to_owned() }
    }

    /// ssh with all it needs but the command. It works in the machine's folder, since the name of a socket is
    /// short.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        command.current_dir(&self.folder).arg("-F").arg("/dev/null").arg("-i").arg(&self.key);
        command.args(["-p", &self.port.to_string(), "-l", "root", "-o", "BatchMode=yes"]);
        // Every guest of an image has the same host key, and each port had another guest before.
        command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        command.args(["-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=15"]);
        command.args(["-o", "ControlMaster=auto", "-o", "ControlPath=ssh", "-o", "ControlPersist=60"]);
        command.arg("127.0.0.1");
        command
    }

    /// Tries to run nothing in the guest.
    ///
    /// # Errors
    /// The guest is there and refuses the key: waiting would not help.
    pub(crate) fn reach(&self) -> Result<Reached> {
        if !self.greets() {
            return Ok(Reached::NotYet);
        }
        self.close();
        match self.run("true", b"", Duration::from_secs(30)) {
            Ok(done) if done.status.success() => Ok(Reached::Yes),
            Ok(done) if done.stderr.contains("Permission denied") => bail!("{}", done.stderr.trim()),
            _ => Ok(Reached::NotYet),
        }
    }

    /// Whether an ssh server answers. QEMU takes the connection whatever the guest does, so ssh itself would wait
    /// long for one that boots.
    fn greets(&self) -> bool {
        let limit = Duration::from_secs(3);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let greeting = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect_timeout(&address, limit)?;
            stream.set_read_timeout(Some(limit))?;
            let mut start = [0; 4];
            stream.read_exact(&mut start)?;
            Ok(&start == b"SSH-")
        };
        greeting().unwrap_or(false)
    }

    /// Runs a command line in the guest's shell.
    ///
    /// # Errors
    /// It did not end within `limit`, or ssh could not be started.
    pub(crate) fn run(&self, command: &str, input: &[u8], limit: Duration) -> Result<Done> {
        // Into files, not pipes: a connection that stays open in the background would hold a pipe open as well.
        let (out, err) = (self.folder.join("ssh.out"), self.folder.join("ssh.err"));
        let mut ssh = self.command();
        ssh.arg(command).stdin(Stdio::piped()).stdout(File::create(&out)?).stderr(File::create(&err)?);
        let mut child =
            ssh.spawn().context("cannot start `ssh`: install the Debian package openssh-client")?;
        let mut stdin = child.stdin.take().context("ssh has no input")?;
        let input = input.to_owned();
        // Whoever does not read all of it says why by its status.
        let writer = thread::spawn(move || stdin.write_all(&input).is_ok());
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if start.elapsed() > limit {
                let _ = child.kill();
                let _ = child.wait();
                bail!("not done after {} s", limit.as_secs());
            }
            thread::sleep(Duration::from_millis(10));
        };
        let _ = writer.join();
        let text = |path: &Path| -> Result<String> {
            Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
        };
        Ok(Done { command: command.to_owned(), status, stdout: text(&out)?, stderr: text(&err)? })
    }

    /// Ends the shared connection, if there is one.
    pub(crate) fn close(&self) {
        let mut ssh = self.command();
        ssh.args(["-O", "exit"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = ssh.status();
    }
}
