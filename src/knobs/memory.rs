//! Huge pages for guest memory.

use super::{Context, Disruption, Knob, Reach, Setting, boot, refused};
use crate::formats::Size;
use crate::formats::kernel_args::KernelArg;
use crate::profile::Diagnostic;
use crate::resources::{Attribute, Resource, Value};

pub(super) const KNOBS: &[Knob] = &[BOOT_PAGES, PAGES];

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
        let foreign = ctx.facts.boot.predicted(None).unwrap_or_default();
        let conflict = foreign.pages_in_the_way(&size).map(boot::elsewhere);
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
