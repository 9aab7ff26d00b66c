//! Programs, folders and the lines that announce what is being done.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The root folder of the repository.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_path_buf()
}

/// The folder for downloads that outlive a build: `$XDG_CACHE_HOME/rtkvm-tune`, or `~/.cache/rtkvm-tune`.
pub(crate) fn cache() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set: set one of them")?.join("rtkvm-tune"))
}

/// A command of this workspace: cargo itself, in the root folder.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command with our own output; an exit status other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    match status.success() {
        true => Ok(()),
        false => bail!("`{}` failed ({status})", line(command)),
    }
}

/// Runs a command and gives its standard output; on failure the error carries its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| cannot_start(command))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("`{}` failed ({}): {}", line(command), done.status, said.trim());
    }
    String::from_utf8(done.stdout).with_context(|| format!("`{}` printed no UTF-8", line(command)))
}

/// The command as a shell would be given it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// One word, in single quotes when a shell would split or expand it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=,:+@%".contains(&b);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

fn cannot_start(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    match package_of(&program) {
        Some(package) => format!("cannot start `{program}`: install the Debian package {package}"),
        None => format!("cannot start `{program}`"),
    }
}

/// The Debian package that brings a program which a minimal installation lacks.
fn package_of(program: &str) -> Option<&'static str> {
    Some(match program {
        "qemu-system-x86_64" => "qemu-system-x86",
        "qemu-img" => "qemu-utils",
        "mmdebstrap" => "mmdebstrap",
        "mkfs.ext4" => "e2fsprogs",
        "ssh" | "ssh-keygen" => "openssh-client",
        "gzip" => "gzip",
        "cpio" => "cpio",
        "xz" => "xz-utils",
        "grub-mkconfig" => "grub2-common",
        "strace" => "strace",
        "setpriv" => "util-linux",
        "dpkg-query" | "dpkg" | "dpkg-deb" => "dpkg",
        "apt-get" | "apt-cache" => "apt",
        _ => return None,
    })
}

/// Stops unless every program can be found, naming the packages of all that cannot.
pub(crate) fn need(programs: &[&str]) -> Result<()> {
    need_in(&std::env::var_os("PATH").unwrap_or_default(), programs)
}

fn need_in(path: &OsStr, programs: &[&str]) -> Result<()> {
    let found = |program: &str| std::env::split_paths(path).any(|folder| folder.join(program).is_file());
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !found(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().filter_map(|program| package_of(program)).collect();
    bail!("{} not found: apt-get install {}", missing.join(", "), packages.join(" "));
}

/// Does one step under a headline, then says how long it took.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {name}");
    let start = Instant::now();
    let result = work();
    let outcome = if result.is_ok() { "ok" } else { "FAILED" };
    eprintln!("    {name}: {outcome} in {}", seconds(start.elapsed()));
    result
}

/// A duration in seconds with one decimal, as in `12.3 s`.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_packages() {
        let error = need_in(OsStr::new("/nowhere"), &["qemu-system-x86_64", "mmdebstrap"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "qemu-system-x86_64, mmdebstrap not found: apt-get install qemu-system-x86 mmdebstrap"
        );
        assert!(need_in(OsStr::new("/nowhere:/bin"), &["sh"]).is_ok());
    }
}
