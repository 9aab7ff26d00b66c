//! Huge pages for guest memory.

use super::values::word;
use super::{Context, Disruption, Knob, Reach, Setting, Values, attribute, boot, refused, sysctl};
use crate::formats::kernel_args::KernelArg;
use crate::formats::{HostPath, Size};
use crate::profile::Diagnostic;
use crate::resources::{Attribute, MOUNT_UNIT, OwnedFile, Resource, Value};

pub(super) const KNOBS: &[Knob] = &[BOOT_PAGES, PAGES, THP, KSM, STAT_INTERVAL, MOUNT];

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
            let attribute = Attribute { path: pool.path.clone(), want: Value::Count(count), fixed: None };
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
