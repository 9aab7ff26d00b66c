//! `cargo xtask deb`: the Debian package of this tree. The program in it is static, so that it depends on nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, need, output, root, run as run_command, step};

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Units that the package has and does not enable.
const UNITS: [&str; 3] =
    ["rtkvm-tune-verify.service", "rtkvm-tune-verify.timer", "rtkvm-tune-metrics.service"];
/// Where the files of the repository go.
const DOCUMENTS: [(&str, &str); 13] = [
    ("README.md", "usr/share/doc/rtkvm-tune/README.md"),
    ("docs/output.md", "usr/share/doc/rtkvm-tune/docs/output.md"),
    ("docs/profile.md", "usr/share/doc/rtkvm-tune/docs/profile.md"),
    ("docs/knobs.md", "usr/share/doc/rtkvm-tune/docs/knobs.md"),
    ("docs/latency.md", "usr/share/doc/rtkvm-tune/docs/latency.md"),
    ("docs/noise.md", "usr/share/doc/rtkvm-tune/docs/noise.md"),
    ("docs/lint.md", "usr/share/doc/rtkvm-tune/docs/lint.md"),
    ("docs/verify.schema.json", "usr/share/doc/rtkvm-tune/docs/verify.schema.json"),
    ("docs/trial.md", "usr/share/doc/rtkvm-tune/docs/trial.md"),
    ("LICENSE-MIT", "usr/share/doc/rtkvm-tune/LICENSE-MIT"),
    ("LICENSE-APACHE", "usr/share/doc/rtkvm-tune/LICENSE-APACHE"),
    ("CHANGELOG.md", "usr/share/doc/rtkvm-tune/CHANGELOG.md"),
    ("profiles/kvm-realtime.toml", "usr/share/doc/rtkvm-tune/examples/kvm-realtime.toml"),
];

/// Builds the package in target/deb; `--profile NAME` takes another profile of Cargo.toml than `release`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let profile = match args {
        [] => "release",
        [option, name] if option == "--profile" => name,
        _ => bail!("`cargo xtask deb` takes --profile NAME only"),
    };
    let package = step("package", || build(profile))?;
    println!("{}", package.display());
    Ok(())
}

/// Builds the package and gives its path.
pub(crate) fn build(profile: &str) -> Result<PathBuf> {
    need(&["dpkg-deb", "gzip"])?;
    let program = program(profile)?;
    let work = root().join("target/deb");
    let tree = work.join("tree");
    let _ = fs::remove_dir_all(&tree);
    put(&program, &tree.join("usr/bin/rtkvm-tune"), 0o755)?;
    for (from, to) in DOCUMENTS {
        put(&root().join(from), &tree.join(to), 0o644)?;
    }
    for page in fs::read_dir(root().join("docs/man"))? {
        let page = page?.path();
        let name = page.file_name().context("a manual page has no name")?;
        let to = tree.join("usr/share/man/man8").join(name);
        put(&page, &to, 0o644)?;
        run_command(Command::new("gzip").args(["--best", "--no-name"]).arg(&to))?;
    }
    for unit in UNITS {
        let to = tree.join("usr/lib/systemd/system").join(unit);
        put(&root().join("packaging/systemd").join(unit), &to, 0o644)?;
    }
    put(&root().join("packaging/prerm.sh"), &tree.join("DEBIAN/prerm"), 0o755)?;
    let version = env!("CARGO_PKG_VERSION");
    let control = tree.join("DEBIAN/control");
    fs::create_dir_all(tree.join("DEBIAN"))?;
    fs::write(&control, self::control(version, installed_size(&tree)?))?;
    fs::set_permissions(&control, fs::Permissions::from_mode(0o644))?;
    let package = work.join(format!("rtkvm-tune_{version}_amd64.deb"));
    let mut pack = Command::new("dpkg-deb");
    output(pack.args(["--root-owner-group", "-Zxz", "--build"]).arg(&tree).arg(&package))?;
    Ok(package)
}

/// Builds the program without any shared library, in its own target folder so that the usual build stays warm.
pub(crate) fn program(profile: &str) -> Result<PathBuf> {
    let folder = root().join("target/static");
    let mut build = cargo();
    // Naming the target keeps the flag away from build scripts and procedural macros.
    build.args(["build", "--quiet", "--locked", "--package", "rtkvm-tune", "--target", TARGET]);
    build.args(["--profile", profile]).arg("--target-dir").arg(&folder);
    run_command(build.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    let output = if profile == "dev" { "debug" } else { profile };
    Ok(folder.join(TARGET).join(output).join("rtkvm-tune"))
}

fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let folder = to.parent().context("a file needs a folder")?;
    fs::create_dir_all(folder)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    // Whatever our umask is.
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    for folder in to.ancestors().skip(1).take_while(|folder| *folder != root().join("target/deb")) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// KiB, as dpkg wants it.
fn installed_size(tree: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => installed_size(&entry.path())? * 1024,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes.div_ceil(1024))
}

fn control(version: &str, size: u64) -> String {
    format!(
        "Package: rtkvm-tune\n\
         Version: {version}\n\
         Architecture: amd64\n\
         Maintainer: rtkvm-tune developers <rtkvm-tune@localhost>\n\
         Installed-Size: {size}\n\
         Suggests: libvirt-clients, grub2-common, ethtool\n\
         Section: admin\n\
         Priority: optional\n\
         Description: {}\n \
         Reads a short profile and the machine, divides CPUs and memory between the\n \
         system and its real-time guests, and sets what that needs.\n",
        "turns a Linux server into a real-time KVM host"
    )
}
