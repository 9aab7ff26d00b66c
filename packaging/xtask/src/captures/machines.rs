//! The machines that are recorded: the one description of their topologies.

use std::path::Path;
use std::time::Duration;

use super::debian::Kernel;
use crate::shell::quoted;

/// A machine to record.
pub(crate) struct Machine {
    /// The name of its file, without `.capture`.
    pub(crate) name: &'static str,
    /// What it is there to show.
    pub(crate) about: &'static str,
    /// The value of QEMU's `-smp`.
    smp: &'static str,
    /// What is added to QEMU's `-cpu max`.
    cpu: &'static str,
    /// NUMA nodes; none when QEMU is not to describe any.
    nodes: &'static [Node],
    /// Distances between two nodes, both ways; QEMU gives 10 within a node and 20 otherwise.
    distances: &'static [(u32, u32, u32)],
    /// Kernel arguments beyond those of every machine.
    kernel: &'static str,
    /// Shell commands run in the machine before it is recorded.
    pub(crate) guest: &'static [&'static str],
    /// Whether it has devices. Where they could add nothing but time, it has none.
    devices: bool,
    /// Until when it must have powered off, in seconds.
    deadline: u64,
}

/// Where an emulated machine has its memory.
#[derive(Clone, Copy)]
pub(crate) enum Memory<'a> {
    /// In QEMU alone.
    Own,
    /// In files of this folder, one for each node, which stay.
    Saved(&'a Path),
    /// As those files have it. What it writes, it has to itself.
    Restored(&'a Path),
}

impl Memory<'_> {
    /// The start of QEMU's option for the memory of a node.
    fn backend(&self, node: usize) -> String {
        let (folder, share) = match self {
            Memory::Own => return "memory-backend-ram".to_owned(),
            Memory::Saved(folder) => (folder, "on"),
            Memory::Restored(folder) => (folder, "off"),
        };
        // A comma in a path would begin another option.
        let file = folder.join(format!("memory{node}")).to_string_lossy().replace(',', ",,");
        format!("memory-backend-file,mem-path={file},share={share}")
    }
}

/// A NUMA node: its CPUs, as ranges, and its memory in GiB.
struct Node(&'static [&'static str], u32);

/// The kernel sees threads and dies of the emulated CPU, and lets CPU 0 go offline, only when it calls itself an
/// Intel one. It has no KVM then: the emulation offers AMD's kind of virtualisation only.
const INTEL: &str = ",vendor=GenuineIntel";
const TWO_NODES: &[Node] = &[Node(&["0-7"], 32), Node(&["8-15"], 32)];

/// With many CPUs measuring each one's delay loop anew takes longer than all the rest of the boot.
const NO_CALIBRATION: &str = "lpj=4000000";

/// The machine of the guide, and what the others differ from.
const REFERENCE: Machine = Machine {
    name: "reference",
    about: "the guide's machine: 16 CPUs, 2 nodes of 2 sockets of 4 cores, 32 GiB each, no SMT",
    smp: "16,sockets=4,dies=1,cores=4,threads=1",
    cpu: "",
    nodes: TWO_NODES,
    distances: &[(0, 1, 21)],
    kernel: "",
    guest: &[],
    devices: true,
    deadline: 240,
};

/// Every machine, in the order they are recorded.
pub(crate) const MACHINES: &[Machine] = &[
    REFERENCE,
    Machine {
        name: "reference-tuned",
        about: "the guide's machine, booted with the kernel arguments and module options of its plan",
        kernel: "isolcpus=managed_irq,domain,2-7,10-15 nohz_full=2-7,10-15 rcu_nocbs=2-7,10-15 skew_tick=1 nohz=on \
                 tsc=reliable irqaffinity=0-1,8-9 default_hugepagesz=1G hugepagesz=1G hugepages=0:25,1:25 nosoftlockup \
                 nmi_watchdog=0",
        // modprobe would do it.
        guest: &[
            "rmmod kvm_amd kvm",
            "insmod /modules/kvm.ko kvmclock_periodic_sync=N",
            "insmod /modules/kvm_amd.ko",
        ],
        ..REFERENCE
    },
    Machine {
        name: "interleaved",
        about: "node 0 has CPUs 0-3,8-11 and node 1 has 4-7,12-15",
        nodes: &[Node(&["0-3", "8-11"], 32), Node(&["4-7", "12-15"], 32)],
        ..REFERENCE
    },
    Machine {
        name: "smt",
        about: "2 nodes of 4 cores with 2 threads each",
        smp: "16,sockets=2,dies=1,cores=4,threads=2",
        cpu: INTEL,
        ..REFERENCE
    },
    Machine {
        name: "sub-numa",
        about: "2 sockets with 2 nodes each; distances 12 within a socket, 21 across",
        smp: "16,sockets=2,dies=1,cores=8,threads=1",
        nodes: &[Node(&["0-3"], 16), Node(&["4-7"], 16), Node(&["8-11"], 16), Node(&["12-15"], 16)],
        distances: &[(0, 1, 12), (2, 3, 12), (0, 2, 21), (0, 3, 21), (1, 2, 21), (1, 3, 21)],
        ..REFERENCE
    },
    Machine {
        name: "memory-only",
        about: "the guide's machine with a third node that has memory and no CPU",
        nodes: &[Node(&["0-7"], 32), Node(&["8-15"], 32), Node(&[], 16)],
        distances: &[(0, 1, 21), (0, 2, 17), (1, 2, 28)],
        ..REFERENCE
    },
    Machine {
        name: "offline",
        about: "the guide's machine with CPUs 0, 3, 10 and 11 taken offline",
        cpu: INTEL,
        kernel: "cpu0_hotplug",
        guest: &[
            "for cpu in 0 3 10 11; do echo 0 >/sys/devices/system/cpu/cpu$cpu/online || note \"CPU $cpu: stays online\"; done",
        ],
        ..REFERENCE
    },
    Machine {
        name: "no-numa",
        about: "the guide's machine on a kernel told to ignore NUMA",
        kernel: "numa=off",
        ..REFERENCE
    },
    Machine {
        name: "dies",
        about: "64 CPUs: 2 nodes, each a socket of 4 dies of 8 cores",
        smp: "64,sockets=2,dies=4,cores=8,threads=1",
        cpu: INTEL,
        nodes: &[Node(&["0-31"], 64), Node(&["32-63"], 64)],
        kernel: NO_CALIBRATION,
        deadline: 600,
        ..REFERENCE
    },
    Machine {
        name: "large",
        about: "255 CPUs, the most that emulation without hardware virtualisation allows",
        smp: "255,sockets=255,dies=1,cores=1,threads=1",
        nodes: &[Node(&["0-63"], 64), Node(&["64-127"], 64), Node(&["128-191"], 64), Node(&["192-254"], 64)],
        distances: &[],
        kernel: NO_CALIBRATION,
        devices: false,
        deadline: 1500,
        ..REFERENCE
    },
];

/// Machines of the lab alone, where the guide's would add nothing but time. They are not recorded.
pub(crate) const HOSTS: &[Machine] = &[
    Machine {
        name: "small",
        about: "2 CPUs and 4 GiB: it boots in the least time",
        smp: "2,sockets=1,dies=1,cores=2,threads=1",
        nodes: &[Node(&["0-1"], 4)],
        distances: &[],
        ..REFERENCE
    },
    Machine {
        name: "pair",
        about: "4 CPUs, 2 nodes of 2 cores, 4 GiB each, no SMT",
        smp: "4,sockets=2,dies=1,cores=2,threads=1",
        nodes: &[Node(&["0-1"], 4), Node(&["2-3"], 4)],
        ..REFERENCE
    },
];

/// One namespace of null devices each: reads give zeros, writes are dropped, no file is needed.
const DEVICES: &[&str] = &[
    "-blockdev",
    "driver=null-co,node-name=disk0,size=8589934592,read-zeroes=on",
    "-device",
    "virtio-blk-pci,drive=disk0",
    "-netdev",
    "user,id=net0,restrict=on",
    "-device",
    "virtio-net-pci,netdev=net0,romfile=",
];
/// A bridge that belongs to node 1, and a drive behind it.
const NODE_1_DEVICES: &[&str] = &[
    "-device",
    "pxb-pcie,id=bus1,bus_nr=64,numa_node=1,bus=pcie.0",
    "-device",
    "pcie-root-port,id=port1,bus=bus1,chassis=1",
];
const DRIVE: &str = "driver=null-co,node-name=disk1,size=8589934592,read-zeroes=on";

impl Machine {
    /// Until when it must have powered off.
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline)
    }

    /// The processors, nodes and memory, as QEMU's arguments. Memory that nothing touches takes none of ours.
    pub(crate) fn topology_arguments(&self, place: Memory) -> Vec<String> {
        let mut line: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| line.extend(words.iter().map(|word| word.to_string()));
        add(&["-accel", "tcg,thread=single", "-machine", "q35", "-smp", self.smp, "-cpu"]);
        // The emulation does not offer invtsc, but without it a PREEMPT_RT kernel refuses to load KVM.
        add(&[&format!("max,+invtsc,x-force-features=on{}", self.cpu)]);
        let memory: u32 = self.nodes.iter().map(|node| node.1).sum();
        add(&["-m", &format!("{}G", memory)]);
        for (id, Node(cpus, gib)) in self.nodes.iter().enumerate() {
            let backend = place.backend(id);
            add(&["-object", &format!("{backend},id=m{id},size={gib}G,prealloc=off,reserve=off")]);
            let cpus: String = cpus.iter().map(|range| format!(",cpus={range}")).collect();
            add(&["-numa", &format!("node,nodeid={id}{cpus},memdev=m{id}")]);
        }
        for (from, to, distance) in self.distances {
            add(&["-numa", &format!("dist,src={from},dst={to},val={distance}")]);
        }
        line
    }

    /// A drive, where there are more nodes behind a bridge that belongs to node 1, as QEMU's arguments. `model` is its
    /// device, with properties of its own.
    pub(crate) fn drive_arguments(&self, model: &str) -> Vec<String> {
        let bus = if self.nodes.len() > 1 { "port1" } else { "pcie.0" };
        let bridge = if self.nodes.len() > 1 { NODE_1_DEVICES } else { &[] };
        let drive = format!("{model},bus={bus},drive=disk1");
        let words = ["-blockdev", DRIVE, "-device", &drive];
        bridge.iter().chain(&words).map(|word| word.to_string()).collect()
    }

    /// QEMU's arguments; paths are relative to the folder of the machine.
    pub(crate) fn qemu_arguments(&self, release: &str) -> Vec<String> {
        let mut line = self.topology_arguments(Memory::Own);
        let add = |line: &mut Vec<String>, words: &[&str]| {
            line.extend(words.iter().map(|word| word.to_string()));
        };
        add(&mut line, &["-nic", "none", "-display", "none", "-no-reboot"]);
        if self.devices {
            add(&mut line, DEVICES);
            line.extend(self.drive_arguments("nvme,serial=disk1"));
        }
        add(
            &mut line,
            &[
                "-serial",
                "file:console.log",
                "-chardev",
                "file,id=out,path=record",
                "-device",
                "virtio-serial-pci,bus=pcie.0",
            ],
        );
        add(&mut line, &["-device", "virtserialport,chardev=out"]);
        add(&mut line, &["-kernel", "vmlinuz", "-initrd", "initramfs.gz", "-append"]);
        let kernel = format!(
            "BOOT_IMAGE=/boot/vmlinuz-{release} root=/dev/vda1 ro quiet console=ttyS0 panic=-1 {}",
            self.kernel
        );
        add(&mut line, &[kernel.trim_end()]);
        line
    }

    /// The comment at the top of the machine's file: what it is and how to get it again.
    pub(crate) fn header(&self, kernel: &Kernel, arguments: &[String]) -> String {
        let mut text = format!(
            "# {}: {}.\n# Made by `cargo xtask lab capture {}` with the Debian kernel {}:\n#\n# qemu-system-x86_64",
            self.name, self.about, self.name, kernel.package
        );
        for argument in arguments {
            // One option a line, as a person would break it.
            let lead = if argument.starts_with('-') { " \\\n#   " } else { " " };
            text.push_str(lead);
            text.push_str(&quoted(argument));
        }
        text.push_str("\n#\n");
        if !self.guest.is_empty() {
            text.push_str("# Then, in the machine:\n");
            self.guest.iter().for_each(|command| text.push_str(&format!("# {command}\n")));
            text.push_str("#\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_cpu_has_one_node() {
        let machines: Vec<&Machine> = MACHINES.iter().chain(HOSTS).collect();
        for (i, machine) in machines.iter().enumerate() {
            assert!(machines[..i].iter().all(|other| other.name != machine.name), "{}", machine.name);
            let mut cpus: Vec<u32> = Vec::new();
            for range in machine.nodes.iter().flat_map(|node| node.0) {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                cpus.extend(first.parse::<u32>().unwrap()..=last.parse::<u32>().unwrap());
            }
            cpus.sort_unstable();
            let count: u32 = machine.smp.split(',').next().unwrap().parse().unwrap();
            assert_eq!(cpus, (0..count).collect::<Vec<_>>(), "{}", machine.name);
        }
    }
}
