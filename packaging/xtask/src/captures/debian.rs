//! The Debian packages inside the recorded machines, downloaded once and unpacked outside the repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{output, run};

/// The package that depends on the current PREEMPT_RT kernel of the release.
const KERNEL: &str = "linux-image-rt-amd64";
/// What else a machine has: the shell, /etc/os-release, and the default text of /etc/default/grub.
const OTHERS: [&str; 3] = ["busybox-static", "base-files", "grub2-common"];

/// An unpacked kernel with the files of its release.
pub(crate) struct Kernel {
    /// As `uname -r` gives it.
    pub(crate) version: String,
    /// The package with its version, as Debian writes both.
    pub(crate) package: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// The folder all packages are unpacked into.
    pub(crate) files: PathBuf,
}

/// Downloads and unpacks what is not yet there. A kernel that is there is kept, so that the machines of two
/// runs have the same one; remove the folder to take a newer kernel.
pub(crate) fn fetch(cache: &Path) -> Result<Kernel> {
    let files = cache.join("debian");
    if !files.join("complete").exists() {
        download(cache, &files)?;
    }
    let package = fs::read_to_string(files.join("complete"))?.trim().to_owned();
    let name = package.split_whitespace().next().unwrap_or_default();
    let version = name.trim_start_matches("linux-image-").to_owned();
    let image = files.join("boot").join(format!("vmlinuz-{version}"));
    if !image.is_file() {
        bail!("{} is missing: remove {} and try again", image.display(), files.display());
    }
    eprintln!("    {package} in {}", files.display());
    Ok(Kernel { version, package, image, files })
}

fn download(cache: &Path, files: &Path) -> Result<()> {
    let depends = output(Command::new("apt-cache").args(["depends", "--important", KERNEL]))?;
    let kernel = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("apt knows no {KERNEL}: run `apt-get update` on Debian 12"))?;
    let debs = cache.join("packages");
    // A package left from an interrupted run would be unpacked beside the new one.
    let _ = fs::remove_dir_all(&debs);
    fs::create_dir_all(&debs)?;
    fs::create_dir_all(files)?;
    let mut get = Command::new("apt-get");
    // As root apt would otherwise warn that its own user cannot write into the folder.
    get.args(["--quiet", "--quiet", "--option", "APT::Sandbox::User=root", "download", kernel]).args(OTHERS);
    run(get.current_dir(&debs)).context("the download failed: run `apt-get update`")?;
    let mut package = None;
    for entry in fs::read_dir(&debs)? {
        let deb = entry?.path();
        run(Command::new("dpkg").arg("--extract").arg(&deb).arg(files))?;
        let mut show = Command::new("dpkg-deb");
        let shown = output(show.args(["--show", "--showformat", "${Package} ${Version}"]).arg(&deb))?;
        if shown.starts_with("linux-image-") {
            package = Some(shown);
        }
    }
    fs::write(files.join("complete"), package.context("the kernel package was not downloaded")?)?;
    fs::remove_dir_all(&debs)?;
    Ok(())
}
