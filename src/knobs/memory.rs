//! Huge pages for guest memory.

use super::values::word;
use super::{Context, Disruption, Knob, Reach, Setting, Values, attribute, boot, refused, sysctl};
use crate::formats::kernel_args::KernelArg;
use crate::formats::{HostPath, Size};
use crate::profile::Diagnostic;
use crate::resources::{Attribute, MOUNT_UNIT, OwnedFile, Resource, Value};

pub(super) const KNOBS: &[Knob] = &[
    BOOT_PAGES,
    PAGES,
    THP,
    KSM,
    STAT_INTERVAL,
    MOUNT,
    EARLY_PAGES,
    PAGE_STRUCTS,
    COMPACTION,
    SWAPPINESS,
    ZONE_RECLAIM,
    DIRTY,
    DIRTY_BACKGROUND,
];

const BOOT_PAGES: Knob = Knob {
    id: "memory.hugepages-boot",
    summary: "Reserve the huge pages of each node while booting",
    why: "Early in the boot memory is not fragmented yet: the only time when many 1 GiB pages are sure to be \
        had. `default_hugepagesz` also makes systemd mount /dev/hugepages with this size, without which \
        libvirt finds no mount for the guest's pages. Programs that expect 2 MiB pages by default must name \
        their size.",
    source: "Linux admin-guide/mm/hugetlbpage.rst, admin-guide/kernel-parameters.txt (hugepages)",
    since: "per-node form Linux 5.16; before that the boot unit reserves them",
    check: "nr_hugepages of every node after a boot, see memory.hugepages",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| {
        let nodes = ctx.placement.nodes.iter().filter(|node| node.pages.count > 0);
        let counts: Vec<_> = nodes.map(|node| (node.id, node.pages.count)).collect();
        if counts.is_empty() {
            return Ok(Vec::new());
        }
        let per_node =
            || counts.iter().map(|(id, count)| format!("{id}:{count}")).collect::<Vec<_>>().join(",");
        let count = match at_boot(ctx) {
            AtBoot::PerNode => Some(per_node()),
            AtBoot::Plain => Some(counts[0].1.to_string()),
            // The kernel would take the nodes' counts for 0: the boot unit reserves the pages.
            AtBoot::No => None,
        };
        let size = kernel_size(ctx.placement.page);
        let mut arguments = vec![("default_hugepagesz", size.clone()), ("hugepagesz", size.clone())];
        arguments.extend(count.map(|count| ("hugepages", count)));
        let arguments = arguments.iter().map(|(name, value)| KernelArg::new(name, Some(value)));
        let arguments: Result<Vec<_>, _> = arguments.collect();
        let arguments = arguments.map_err(|error| vec![Diagnostic::whole(error)])?;
        let conflict = boot::conflict(ctx, |line| line.pages_in_the_way(&size));
        let refused = refused(ctx, &["hugepages", "hugepagesz", "default_hugepagesz"]);
        Ok(vec![boot::arguments(ctx, arguments, refused, conflict)])
    },
};

const PAGES: Knob = Knob {
    id: "memory.hugepages",
    summary: "Have the huge pages of each node now",
    why: "What the kernel can find now need not wait for the next boot, and a reservation that a boot did not \
        get is tried again. It may grant fewer pages than asked and still report success, so the number is \
        read back per node.",
    source: "Linux admin-guide/mm/hugetlbpage.rst, ABI/testing/sysfs-kernel-mm-hugepages",
    since: "Linux 2.6.33; 1 GiB pages at run time 3.16",
    check: "/sys/devices/system/node/nodeN/hugepages/hugepages-*kB/nr_hugepages",
    reach: Reach::Live,
    disruption: Disruption::BriefStall,
    values: Values::ON,
    settings: |ctx| {
        let page = ctx.placement.page;
        let pools = ctx.facts.numa.nodes.iter().filter_map(|node| Some((node.id, node.pool(page)?)));
        let settings = pools.filter_map(|(id, pool)| {
            let count = ctx.placement.node(id)?.pages.count;
            let attribute = Attribute {
                path: pool.path.clone(),
                want: Value::Count(count),
                fixed: None,
                until_boot: false,
            };
            let setting = || Setting {
                at_boot: (at_boot(ctx) != AtBoot::No).then_some(BOOT_PAGES.id),
                ..Setting::new(format!("node {id}, {page} pages"), Resource::Attribute(attribute))
            };
            (count > 0 || pool.pages > 0).then(setting)
        });
        Ok(settings.collect())
    },
};

const THP: Knob = Knob {
    id: "memory.transparent-hugepages",
    summary: "Do not build huge pages behind a program's back",
    why: "Gathering small pages into a huge one copies memory and stops who uses it; the kernel thread that looks for \
        candidates wakes on its own. Guests have real huge pages. Kernels with PREEMPT_RT do not have it.",
    source: "Linux admin-guide/mm/transhuge.rst",
    since: "Linux 2.6.38, with CONFIG_TRANSPARENT_HUGEPAGE",
    check: "/sys/kernel/mm/transparent_hugepage/enabled has never in brackets",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |_| {
        let path = "/sys/kernel/mm/transparent_hugepage/enabled";
        Ok(vec![attribute("transparent_hugepage", path, Value::Choice("never".into()))])
    },
};

const KSM: Knob = Knob {
    id: "memory.ksm",
    summary: "Do not look for equal pages to share",
    why: "The scanner takes CPU time and memory bandwidth, and a guest that writes to a shared page waits for its copy. \
        Pages that are shared already stay so until they are written, unless they are taken apart at once, which may need \
        more memory than there is.",
    source: "Linux admin-guide/mm/ksm.rst",
    since: "Linux 2.6.32, with CONFIG_KSM",
    check: "/sys/kernel/mm/ksm/run is 0, or 2 with \"unmerge\"",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::words(&[
        word("stop", "shared pages stay shared"),
        word("unmerge", "shared pages are taken apart at once"),
    ]),
    settings: |ctx| {
        let run = if ctx.value.word() == "unmerge" { 2 } else { 0 };
        Ok(vec![attribute("ksm", "/sys/kernel/mm/ksm/run", Value::Number(run))])
    },
};

const STAT_INTERVAL: Knob = Knob {
    id: "memory.stat-interval",
    summary: "Sum up memory statistics every 10 seconds, not every second",
    why: "Each CPU with statistics to hand in is visited by a kernel worker at this interval. Numbers in \
        /proc/vmstat are up to 10 s old in exchange.",
    source: "Linux admin-guide/sysctl/vm.rst (stat_interval)",
    since: "Linux 2.6.24",
    check: "/proc/sys/vm/stat_interval",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::number(10, 1..=3600, "s"),
    settings: |ctx| sysctl("vm.stat_interval", ctx.value.number()),
};

const MOUNT: Knob = Knob {
    id: "memory.hugetlbfs",
    summary: "Mount the 1 GiB pages where libvirt finds them",
    why: "libvirt hands out pages of a size only through a hugetlbfs mount of that size; without it a guest is defined \
        and does not start. /dev/hugepages has the default size, which is another until the next boot, or for good \
        where other programs want it so. A libvirtd that runs already looks for mounts only when it is started again.",
    source: "Linux admin-guide/mm/hugetlbpage.rst; systemd.mount(5); libvirt, qemu.conf (hugetlbfs_mount)",
    since: "systemd 197 or before",
    check: "the mount unit and its link have the planned content",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |ctx| {
        if ctx.placement.page != Size::GIB || ctx.placement.nodes.iter().all(|node| node.pages.count == 0) {
            return Ok(Vec::new());
        }
        let unit = OwnedFile { path: HostPath::new(MOUNT_UNIT), content: MOUNT_TEXT.into(), mode: 0o644 };
        let link =
            Resource::Link { path: HostPath::new(MOUNT_LINK), target: "../dev-hugepages1G.mount".into() };
        let unit = Setting { note: Some(NEW_MOUNT), ..Setting::new("unit", Resource::File(unit)) };
        Ok(vec![unit, Setting::new("enabled", link)])
    },
};

const NEW_MOUNT: &str = "libvirt looks for mounts of huge pages only when it starts: after this apply restart libvirtd, or \
    virtqemud where that is used; guests keep running";
const MOUNT_LINK: &str = "/etc/systemd/system/sysinit.target.wants/dev-hugepages1G.mount";
const MOUNT_TEXT: &str = "# Written by rtkvm-tune; changes are lost at the next apply.\n\
    [Unit]\n\
    Description=Huge pages of 1 GiB\n\
    DefaultDependencies=no\n\
    Before=sysinit.target\n\
    ConditionPathExists=/sys/kernel/mm/hugepages/hugepages-1048576kB\n\
    \n\
    [Mount]\n\
    What=hugetlbfs\n\
    Where=/dev/hugepages1G\n\
    Type=hugetlbfs\n\
    Options=nosuid,nodev,pagesize=1G\n\
    \n\
    [Install]\n\
    WantedBy=sysinit.target\n";

const EARLY_PAGES: Knob = Knob {
    id: "memory.hugepages-early",
    summary: "Reserve the huge pages of each node early in the boot, where the kernel cannot",
    why: "Kernels before 5.16 take one number for all nodes of a machine, and 0 for numbers per node. systemd-tmpfiles then \
        writes the numbers before any service starts, libvirt among them, while memory is still in one piece. The boot \
        unit tries again for what is missing.",
    source: "tmpfiles.d(5), systemd-tmpfiles(8); Linux admin-guide/mm/hugetlbpage.rst",
    since: "systemd 205 or before; on machines of several nodes with Linux before 5.16",
    check: "nr_hugepages of every node after a boot, see memory.hugepages",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |ctx| {
        let page = ctx.placement.page;
        let nodes = ctx.facts.numa.nodes.iter().filter_map(|node| {
            let count = ctx.placement.node(node.id)?.pages.count;
            let path = &node.pool(page)?.path;
            // The exclamation mark: at boot only, not when somebody runs systemd-tmpfiles by hand.
            (count > 0).then(|| format!("w! {path} - - - - {count}\n"))
        });
        let lines: String = nodes.collect();
        if lines.is_empty() || at_boot(ctx) != AtBoot::No {
            return Ok(Vec::new());
        }
        let content = format!("# Written by rtkvm-tune; changes are lost at the next apply.\n{lines}");
        let path = HostPath::new("/etc/tmpfiles.d/rtkvm-tune.conf");
        let file = Resource::File(OwnedFile { path, content, mode: 0o644 });
        Ok(vec![Setting::new("pages of each node", file)])
    },
};

const PAGE_STRUCTS: Knob = Knob {
    id: "memory.hugepages-vmemmap",
    summary: "Give back what the kernel keeps to know of each small page in a huge one",
    why: "About 16 MiB for each page of 1 GiB. Making and freeing huge pages takes longer.",
    source: "Linux admin-guide/mm/hugetlbpage.rst, mm/vmemmap_dedup.rst (hugetlb_free_vmemmap)",
    since: "Linux 5.14, with CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP",
    check: "/proc/cmdline, and /proc/sys/vm/hugetlb_optimize_vmemmap is 1",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::OPT_IN,
    settings: |ctx| boot::argument(ctx, "hugetlb_free_vmemmap", "on", None),
};

const COMPACTION: Knob = Knob {
    id: "memory.compaction",
    summary: "Do not move memory together ahead of need",
    why: "A thread for each node, kcompactdN, looks every 500 ms whether to move pages for larger free pieces, and who uses one \
        waits meanwhile. It may run on every CPU of its node, and where it was started on an isolated one it stays there, since \
        the kernel balances nothing away from those. At 0 it sleeps until large pieces are asked for and missing. Guests' huge \
        pages are never moved; other huge pages that are asked for later are found less often.",
    source: "Linux admin-guide/sysctl/vm.rst (compaction_proactiveness)",
    since: "Linux 5.9, with CONFIG_COMPACTION; that the thread sleeps on, 5.15",
    check: "/proc/sys/vm/compaction_proactiveness is 0",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::words(&[word("off", "only when memory is asked for")]),
    settings: |_| sysctl("vm.compaction_proactiveness", 0),
};

const SWAPPINESS: Knob = Knob {
    id: "memory.swappiness",
    summary: "Choose how readily programs' memory is written to swap",
    why: "Guests' memory is locked and stays. A low number keeps the emulator's and libvirt's own memory there as well.",
    source: "Linux admin-guide/sysctl/vm.rst (swappiness)",
    since: "Linux 2.6; above 100 5.8",
    check: "/proc/sys/vm/swappiness",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::opt_in_number(0..=200, ""),
    settings: |ctx| sysctl("vm.swappiness", ctx.value.number()),
};

const ZONE_RECLAIM: Knob = Knob {
    id: "memory.zone-reclaim",
    summary: "Take memory of another node rather than free some of the own",
    why: "Most kernels do so by default; where something turned it on, a program that asks for memory waits until some is \
        freed on its node.",
    source: "Linux admin-guide/sysctl/vm.rst (zone_reclaim_mode)",
    since: "Linux 2.6.16, with CONFIG_NUMA",
    check: "/proc/sys/vm/zone_reclaim_mode is 0",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::opt_in(&[word("off", "0")]),
    settings: |_| sysctl("vm.zone_reclaim_mode", 0),
};

const DIRTY: Knob = Knob {
    id: "memory.dirty-ratio",
    summary: "Choose how much memory may wait to be written to disk before programs wait for it",
    why: "Less of it makes the bursts shorter that take bandwidth from guests, and programs on the housekeeping CPUs wait \
        sooner.",
    source: "Linux admin-guide/sysctl/vm.rst (dirty_ratio)",
    since: "Linux 2.6",
    check: "/proc/sys/vm/dirty_ratio",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::opt_in_number(1..=100, "% of memory"),
    settings: |ctx| sysctl("vm.dirty_ratio", ctx.value.number()),
};

const DIRTY_BACKGROUND: Knob = Knob {
    id: "memory.dirty-background-ratio",
    summary: "Choose how much memory may wait to be written to disk before the kernel begins to",
    why: "The sooner it begins, the shorter the bursts.",
    source: "Linux admin-guide/sysctl/vm.rst (dirty_background_ratio)",
    since: "Linux 2.6",
    check: "/proc/sys/vm/dirty_background_ratio",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::opt_in_number(1..=100, "% of memory"),
    settings: |ctx| sysctl("vm.dirty_background_ratio", ctx.value.number()),
};

/// How the kernel reserves these pages while booting.
#[derive(PartialEq)]
enum AtBoot {
    /// A number for each node.
    PerNode,
    /// One number, on a machine of one node.
    Plain,
    /// Not at all.
    No,
}

fn at_boot(ctx: &Context) -> AtBoot {
    let numa = &ctx.facts.numa;
    match numa.shown && reserves_per_node(ctx) {
        true => AtBoot::PerNode,
        false if numa.nodes.len() == 1 => AtBoot::Plain,
        false => AtBoot::No,
    }
}

/// Whether the kernel takes a number of pages for each node at boot: since 5.16. A kernel that is not known
/// is taken for a newer one.
fn reserves_per_node(ctx: &Context) -> bool {
    let release = ctx.facts.kernel.release.as_deref().unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (5, 16),
        _ => true,
    }
}

/// A page size as the kernel's parameters take it: `1G`, `2M`.
fn kernel_size(size: Size) -> String {
    size.to_string().trim_end_matches("iB").to_owned()
}
