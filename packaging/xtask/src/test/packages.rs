//! The Debian packages whose programs the tests run.

use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::shell::{need, run};

const PACKAGES: [&str; 22] = [
    "busybox-static",
    "cloud-init",
    "cpio",
    "e2fsprogs",
    "git",
    "grub-common",
    "grub2-common",
    "libvirt-clients",
    "libvirt-daemon-system",
    "libxml2-utils",
    "mmdebstrap",
    "openssh-client",
    "ostree",
    "patch",
    "prometheus",
    "python3-jsonschema",
    "qemu-system-x86",
    "qemu-utils",
    "strace",
    "systemd",
    "systemd-boot",
    "xorriso",
];

/// Installs what is missing. Without root it says what to install instead.
pub(crate) fn install() -> Result<()> {
    need(&["dpkg-query", "apt-get"]).context("the tests need Debian's programs and run on Debian only")?;
    let missing = missing()?;
    if missing.is_empty() {
        eprintln!("    all {} are installed", PACKAGES.len());
        return Ok(());
    }
    let names = missing.join(" ");
    if !geteuid().is_root() {
        bail!(
            "not installed: {names}\n  As root: apt-get update && apt-get install -y --no-install-recommends {names}"
        );
    }
    if missing.contains(&"cloud-init") {
        // The tests want its schema; it must not set this machine up at the next boot.
        std::fs::create_dir_all("/etc/cloud")?;
        std::fs::write("/etc/cloud/cloud-init.disabled", "")?;
    }
    eprintln!("    installing {names}");
    eprintln!(
        "    no service is started now; libvirtd is enabled for the next boot of a machine with systemd"
    );
    run(&mut apt_get(&["update", "--quiet"]))?;
    let mut still = missing;
    // A package of another release may have to give way to the first round: a qemu-utils of backports to
    // qemu-system-common.
    for _ in 0..2 {
        let mut install = apt_get(&["install", "--yes", "--quiet", "--no-install-recommends"]);
        run(install.args(&still))?;
        still = self::missing()?;
        if still.is_empty() {
            return Ok(());
        }
    }
    bail!("apt-get succeeded but these are not installed: {}", still.join(" "))
}

fn missing() -> Result<Vec<&'static str>> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]).args(PACKAGES);
    // It fails when any package is unknown, and lists the others all the same.
    let answer = query.output().context("cannot start `dpkg-query`")?;
    Ok(not_installed(&String::from_utf8_lossy(&answer.stdout)))
}

fn not_installed(answer: &str) -> Vec<&'static str> {
    let installed = |name: &str| answer.lines().any(|line| line == format!("{name} installed"));
    PACKAGES.into_iter().filter(|name| !installed(name)).collect()
}

fn apt_get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    // systemctl then leaves the running services alone, as it does in a chroot.
    command.env("SYSTEMD_OFFLINE", "1");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_or_unknown_package_is_missing() {
        let mut answer: String = PACKAGES.iter().map(|name| format!("{name} installed\n")).collect();
        assert_eq!(not_installed(&answer), [""; 0]);
        answer = answer.replace("cpio installed", "cpio config-files").replace("strace installed\n", "");
        assert_eq!(not_installed(&answer), ["cpio", "strace"]);
    }
}
