//! On a fresh host, before any reboot.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use roxmltree::{Document, Node};
use serde_json::Value;

use super::state::{changed, read, steps};
use super::{Host, PROFILE};
use crate::shell::{output, root};

/// System calls that change a file system or start a program, and those that open a file.
const TRACED: &str = "open,openat,openat2,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,symlink,\
    symlinkat,link,linkat,chmod,fchmod,fchmodat,chown,fchown,fchownat,truncate,ftruncate,mount,execve,write,pwrite64";

pub(super) fn what_is_announced_is_what_changes() -> Result<()> {
    let host = Host::boot("reference")?;
    host.put_program()?;
    // Until the kernel isolates CPUs irqbalance moves interrupts there again, at any moment.
    host.sh("systemctl stop irqbalance")?;
    for file in ["/usr/share/man/man8/rtkvm-tune-apply.8.gz", "/usr/share/doc/rtkvm-tune/README.md"] {
        host.sh(&format!("test -s {file}"))?;
    }
    let before = read(&host)?;
    let plan = host.tune("apply", PROFILE, "--dry-run --format json")?.json(0)?;
    let nothing = changed(&before, &read(&host)?);
    ensure!(nothing.is_empty(), "a dry run changed {nothing:?}");

    let applied = host.tune("apply", PROFILE, "--format json")?.json(0)?;
    let after = read(&host)?;
    let mut announced = BTreeSet::new();
    for step in steps(&plan)? {
        let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
        match step["kind"].as_str() {
            Some("run") if text("program") == "update-grub" => {
                announced.insert("/boot/grub/grub.cfg".to_owned());
            }
            Some("run") => {}
            Some("attribute") => {
                let path = text("path");
                // The kernel may refuse to move an interrupt, which is known only when it is tried.
                if outcome(&applied, &path) != Some("impossible") {
                    let now = after.get(&path).with_context(|| format!("{path} went away"))?;
                    ensure!(same_cpus(now, &text("after")), "{path}: announced {}, is {now}", text("after"));
                    announced.insert(path);
                }
            }
            Some("file") => {
                let there = host.sh(&format!("cat {}", text("path")))?;
                ensure!(there == text("after"), "{} is not what was announced:\n{there}", text("path"));
                announced.insert(text("path"));
            }
            _ => {
                announced.insert(text("path"));
            }
        }
    }
    // What every run leaves.
    announced.insert("/var/lib/rtkvm-tune/state.json".to_owned());
    let changed = changed(&before, &after);
    ensure!(
        changed == announced,
        "changed but not announced: {:?}\nannounced but not changed: {:?}\n{}",
        changed.difference(&announced).collect::<Vec<_>>(),
        announced.difference(&changed).collect::<Vec<_>>(),
        applied["reports"]
    );
    writes_nothing(&host)
}

/// The outcome of the step about this path.
fn outcome<'a>(applied: &'a Value, path: &str) -> Option<&'a str> {
    let reports = applied["reports"].as_array()?;
    let about =
        |report: &&Value| report["step"].as_str().is_some_and(|step| step.starts_with(&format!("{path}:")));
    reports.iter().find(about)?["outcome"].as_str()
}

/// Whether the kernel's answer is the announced value; masks have leading zeros.
fn same_cpus(now: &str, announced: &str) -> bool {
    now == announced || now.trim_start_matches(['0', ',']) == announced.trim_start_matches(['0', ','])
}

/// A second apply, seen by strace: it opens nothing for writing but its lock, and starts nothing.
pub(super) fn writes_nothing(host: &Host) -> Result<()> {
    host.sh(&format!(
        "strace -f -o /root/trace -e trace={TRACED} rtkvm-tune apply /root/profiles/{PROFILE}"
    ))?;
    let trace = host.sh("cat /root/trace")?;
    ensure!(
        trace.contains("/proc/cmdline") || trace.contains("proc/cmdline"),
        "the trace has no reads:\n{trace}"
    );
    let harmless = |line: &str| {
        let call = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
        let opens = call.starts_with("open");
        let writing = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| call.contains(flag));
        match opens {
            true => !writing || call.contains("run/rtkvm-tune.lock"),
            false => ["write(1, ", "write(2, ", "+++", "---"].iter().any(|start| call.starts_with(start)),
        }
    };
    let mut written: Vec<&str> = trace.lines().filter(|line| !harmless(line)).collect();
    // strace itself starts the program.
    written.retain(|line| !line.contains("execve(\"/usr/bin/rtkvm-tune\""));
    ensure!(written.is_empty(), "a second apply wrote:\n{}", written.join("\n"));
    Ok(())
}

/// What we see of the machine is what libvirt sees.
pub(super) fn inspect_agrees_with_libvirt(host: &Host) -> Result<()> {
    let inspected: Value = serde_json::from_str(&host.sh("rtkvm-tune inspect --format json")?)?;
    agrees_with_libvirt(&inspected["facts"], &host.sh("virsh --connect qemu:///system capabilities")?)
}

pub(super) fn libvirt_and_a_capture_agree(host: &Host) -> Result<()> {
    inspect_agrees_with_libvirt(host)?;
    let there = host.tune("apply", PROFILE, "--dry-run --format json")?.json(0)?;
    let capture = root().join("target/lab/test.capture");
    fs::write(&capture, host.sh("rtkvm-tune capture")?)?;
    let program = crate::deb::program("lab")?;
    let mut here = Command::new(program);
    here.args(["apply", PROFILE, "--dry-run", "--format", "json", "--root"])
        .arg(&capture)
        .current_dir(root());
    let mut here: Value = serde_json::from_str(&output(&mut here)?)?;
    // Only these name where it was planned. Processes are no part of a capture.
    for key in ["machine", "profile"] {
        here[key] = there[key].clone();
    }
    here["plan"]["notes"] = there["plan"]["notes"].clone();
    let [there, here] = [there, here].map(without_times);
    let differs = |(one, other): &(&str, &str)| one != other;
    let (one, other) = (format!("{there:#}"), format!("{here:#}"));
    let lines: Vec<_> = one.lines().zip(other.lines()).filter(differs).take(10).collect();
    ensure!(here == there, "the capture plans otherwise (there, here): {lines:#?}");
    Ok(())
}

/// A plan without what /proc/PID/stat says of a thread, which has its times in it, and without the patch with the same text.
fn without_times(mut plan: Value) -> Value {
    let of_thread = |step: &&mut Value| step["path"].as_str().is_some_and(|path| path.ends_with("/stat"));
    for step in plan["plan"]["steps"].as_array_mut().into_iter().flatten().filter(of_thread) {
        for text in ["before", "after"] {
            step[text] = Value::Null;
        }
    }
    plan["patch"] = Value::Null;
    plan
}

/// Every node's memory, pages, distances and CPUs, and every CPU's siblings, as libvirt reads them.
fn agrees_with_libvirt(facts: &Value, capabilities: &str) -> Result<()> {
    let document = Document::parse(capabilities)?;
    let nodes = facts["numa"]["nodes"].as_array().context("no nodes")?;
    let cells: Vec<Node> = document.descendants().filter(|node| node.has_tag_name("cell")).collect();
    ensure!(cells.len() == nodes.len(), "libvirt has {} cells, we {} nodes", cells.len(), nodes.len());
    for (cell, node) in cells.iter().zip(nodes) {
        let id = attribute(cell, "id")?;
        let same = |what: &str, theirs: u64, ours: &Value| -> Result<()> {
            ensure!(ours.as_u64() == Some(theirs), "{what} of node {id}: libvirt {theirs}, we {ours}");
            Ok(())
        };
        same("number", id, &node["id"])?;
        let child = |name: &str| cell.children().filter(|child| child.has_tag_name(name)).collect::<Vec<_>>();
        let text = |node: &Node| -> Result<u64> { Ok(node.text().unwrap_or_default().trim().parse()?) };
        same("memory", text(&child("memory")[0])? * 1024, &node["memory"])?;
        let pools = node["pools"].as_array().context("no pools")?;
        // libvirt counts the base pages as a pool as well.
        let theirs = child("pages").into_iter().filter(|pages| pages.attribute("size") != Some("4"));
        for (theirs, ours) in theirs.zip(pools) {
            same("page size", attribute(&theirs, "size")? * 1024, &ours["page"])?;
            same("pages", text(&theirs)?, &ours["pages"])?;
        }
        ensure!(child("pages").len() == pools.len() + 1, "node {id} has {} pools", pools.len());
        for (at, sibling) in child("distances")[0].children().filter(Node::is_element).enumerate() {
            same("distance to", attribute(&sibling, "id")?, &node["distances"][at][0])?;
            same("distance", attribute(&sibling, "value")?, &node["distances"][at][1])?;
        }
        let cpus = child("cpus")[0].children().filter(Node::is_element);
        let mut ids = Vec::new();
        for cpu in cpus {
            let number = attribute(&cpu, "id")?;
            ids.push(number.to_string());
            let siblings = cpu.attribute("siblings").unwrap_or_default();
            let cores = facts["cpus"]["cores"].as_array().context("no cores")?;
            let known = cores.iter().any(|core| core["cpus"].as_str() == Some(siblings));
            ensure!(known, "CPU {number}: libvirt's siblings {siblings} are no core of ours");
        }
        let cpus = rtkvm_tune::formats::CpuSet::parse_kernel_list(&ids.join(","))?.to_string();
        ensure!(node["cpus"] == cpus.as_str(), "CPUs of node {id}: libvirt {cpus}, we {}", node["cpus"]);
    }
    Ok(())
}

fn attribute(node: &Node, name: &str) -> Result<u64> {
    let text = node.attribute(name).with_context(|| format!("<{}> has no {name}", node.tag_name().name()))?;
    Ok(text.parse()?)
}
