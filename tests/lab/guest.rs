//! The guest that we render, defined and started by the real libvirtd.

use anyhow::{Context, Result, ensure};
use rtkvm_tune::formats::CpuSet;

use super::{Host, PROFILE};
use crate::shell::root;

/// Where the profile of this test is in the host.
const GUEST: &str = "/root/profiles/guest.toml";
/// Of each thread of the guest's QEMU: its name, policy, priority and CPUs.
const THREADS: &str = r#"
for thread in /proc/$(cat /run/libvirt/qemu/rt0.pid)/task/*; do
    echo "$(cat $thread/comm)|$(sed 's/.*) //' $thread/stat | cut -d' ' -f39)|$(
        sed 's/.*) //' $thread/stat | cut -d' ' -f38)|$(sed -n 's/^Cpus_allowed_list:\t//p' $thread/status)"
done
"#;
/// SCHED_FIFO, as the kernel counts policies.
const FIFO: u32 = 1;

struct Thread {
    name: String,
    policy: u32,
    priority: u32,
    cpus: CpuSet,
}

pub(super) fn runs_where_it_was_placed(host: &Host) -> Result<()> {
    // Locked memory is the memory of the computer below, so there is little of it. The drive has no content.
    let profile = std::fs::read_to_string(root().join(PROFILE))?;
    let profile = profile.replace("\"16GiB\"", "\"1GiB\"").replace("/dev/vg0/rt0", "/dev/vdb");
    host.write(GUEST, profile.as_bytes())?;
    host.sh("ip link add br0 type bridge && ip link set br0 up")?;
    let plan = host.tune_with("apply", GUEST, "--format json")?.json(0)?;
    let guest = &plan["plan"]["placement"]["guests"][0];
    host.sh("virsh --connect qemu:///system start rt0")?;
    let state = host.sh("virsh --connect qemu:///system domstate rt0")?;
    ensure!(state.trim() == "running", "the guest is {state}");

    let set = |text: &str| CpuSet::parse_kernel_list(text);
    let emulator = set(guest["emulator"].as_str().context("no emulator CPUs")?)?;
    let cpus = guest["cpus"].as_array().context("no CPUs")?;
    let threads = threads(host)?;
    for (number, cpu) in cpus.iter().enumerate() {
        let of = |thread: &&Thread| thread.name == format!("CPU {number}/KVM");
        let thread = threads.iter().find(of).with_context(|| format!("vCPU {number} has no thread"))?;
        ensure!(thread.cpus == set(&cpu.to_string())?, "vCPU {number} is on {}, not {cpu}", thread.cpus);
        ensure!((thread.policy, thread.priority) == (FIFO, 1), "vCPU {number} has policy {}", thread.policy);
    }
    for thread in threads.iter().filter(|thread| !thread.name.ends_with("/KVM")) {
        ensure!(thread.cpus == emulator, "{} is on {}, not {emulator}", thread.name, thread.cpus);
        ensure!(thread.policy == 0, "{} has policy {}", thread.name, thread.policy);
    }
    host.say(&format!("{} threads of QEMU are where they were placed", threads.len()));

    // All of the guest's memory and QEMU's own. Huge pages are never given back, and the kernel counts them apart.
    let status = host.sh("cat /proc/$(cat /run/libvirt/qemu/rt0.pid)/status")?;
    let kib = |key: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).with_context(|| status.clone())?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    let (locked, size) = (kib("VmLck:")? + kib("HugetlbPages:")?, kib("VmSize:")?);
    ensure!(kib("VmLck:")? > 0 && locked * 100 >= size * 99, "{locked} of {size} KiB are locked or huge");
    host.say(&format!("under KVM, {} of {} MiB locked or huge", locked >> 10, size >> 10));

    let maps = host.sh("cat /proc/$(cat /run/libvirt/qemu/rt0.pid)/numa_maps")?;
    let memory: Vec<&str> = maps.lines().filter(|line| line.contains("kernelpagesize_kB=1048576")).collect();
    let [memory] = memory[..] else {
        anyhow::bail!("the guest's memory is no single area of 1 GiB pages:\n{maps}");
    };
    for word in [&*format!("bind:{}", guest["node"]), "huge", &format!("N{}=1", guest["node"])] {
        ensure!(memory.split(' ').any(|have| have == word), "the guest's memory is not {word}: {memory}");
    }
    host.tune_with("verify", GUEST, "")?.expect(0)?;

    // Nothing stops it: another size waits for its next start, and so does its end.
    let pid = host.read("/run/libvirt/qemu/rt0.pid")?;
    let larger = profile.replace("memory = \"1GiB\"", "memory = \"2GiB\"");
    ensure!(larger != profile, "the profile has no such line");
    let host_part = profile.split("[[guest]]").next().unwrap_or_default();
    let absent = format!("{host_part}[[guest]]\nname = \"rt0\"\nstate = \"absent\"\n");
    for (profile, says) in
        [(larger, "takes effect at its next start"), (absent, "runs on without a definition")]
    {
        host.write(GUEST, profile.as_bytes())?;
        let told = host.tune_with("apply", GUEST, "")?.expect(0)?;
        ensure!(told.contains(says), "apply does not say `{says}`: {told}");
        host.sh(&format!("test \"$(cat /proc/{pid}/task/{pid}/comm)\" = qemu-system-x86"))?;
        let state = host.sh("virsh --connect qemu:///system domstate rt0")?;
        ensure!(state.trim() == "running", "the guest is {state}");
    }
    Ok(())
}

fn threads(host: &Host) -> Result<Vec<Thread>> {
    let text = host.sh(THREADS)?;
    let thread = |line: &str| -> Result<Thread> {
        let words: Vec<&str> = line.split('|').collect();
        let [name, policy, priority, cpus] = words[..] else { anyhow::bail!("a thread is `{line}`") };
        let cpus = CpuSet::parse_kernel_list(cpus)?;
        Ok(Thread { name: name.to_owned(), policy: policy.parse()?, priority: priority.parse()?, cpus })
    };
    // One that ended while it was read has nothing behind its name.
    text.lines().filter(|line| !line.contains("||")).map(thread).collect()
}
