//! Reads the `[[guest]]` sections.

use std::collections::BTreeMap;

use super::checks::{self, shown};
use super::devices::{self, Used};
use super::diagnostic::Diagnostic;
use super::reader::{Read, Reader, Section};
use super::{Choice, CloudInit, CpuFeature, FeaturePolicy, Guest, GuestState, Os, Spanned};
use crate::formats::{CpuSet, Size};

/// The guests to define, and the names of those to undefine.
type Guests = (Vec<Guest>, Vec<Spanned<String>>);

pub(super) fn read_all(reader: &mut Reader<'_>, top: &Section<'_>, page_size: Option<Size>) -> Read<Guests> {
    let (mut names, mut used) = (BTreeMap::new(), Used::default());
    let (mut guests, mut absent) = (Vec::new(), Vec::new());
    for section in reader.tables(top, "guest", "guest")? {
        match reader.choice(&section, "state").map(|state| state.value) {
            // Its other keys say nothing any more.
            Ok(GuestState::Absent) => absent.push(name(reader, &section, &mut names)),
            state => {
                let guest = read(reader, &section, page_size, &mut names, &mut used);
                guests.push(state.and(guest));
            }
        }
    }
    let guests = guests.into_iter().collect::<Read<_>>();
    Ok((guests?, absent.into_iter().collect::<Read<_>>()?))
}

fn read(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    page_size: Option<Size>,
    names: &mut BTreeMap<String, String>,
    used: &mut Used,
) -> Read<Guest> {
    let name = name(reader, section, names);
    let os = reader.choice(section, "os");
    let threads_per_core = reader.needed_integer(section, "threads-per-core").map(narrow);
    let vcpus = reader.needed_integer(section, "vcpus").map(narrow);
    if let Ok(vcpus) = &vcpus {
        vcpus_suit(reader, vcpus, &os, &threads_per_core);
    }
    let memory = memory(reader, section, page_size);
    let numa_nodes = numa_nodes(reader, section);
    if let (Ok(Some(nodes)), Ok(vcpus), Ok(threads)) = (&numa_nodes, &vcpus, &threads_per_core) {
        cells_suit(reader, nodes, vcpus, threads, memory.as_ref().ok(), page_size);
    }
    let fifo_priority = reader.needed_integer(section, "fifo-priority").map(|n| n.map(|n| n as u8));
    let rt_vcpus = rt_vcpus(reader, section, &vcpus);
    let template = reader.optional_text(section, "template", checks::template);
    let machine = reader.optional_choice(section, "machine");
    let cpu_features = cpu_features(reader, section);
    let poll_control = reader.boolean(section, "poll-control");
    let rng = reader.boolean(section, "rng");
    let watchdog = reader.choice(section, "watchdog");
    let autostart = reader.optional_boolean(section, "autostart");
    let owner = name.as_ref().map_or(String::new(), |name| format!(" by guest `{}`", name.value));
    let disks = devices::disks(reader, section, &owner, used);
    let networks = devices::networks(reader, section, &owner, used);
    let hostdevs = devices::hostdevs(reader, section, &owner, used);
    let cloud_init = cloud_init(reader, section, &os);
    Ok(Guest {
        span: section.span.clone(),
        name: name?,
        vcpus: vcpus?,
        memory: memory?,
        numa_nodes: numa_nodes?,
        os: os?,
        threads_per_core: threads_per_core?,
        fifo_priority: fifo_priority?,
        rt_vcpus: rt_vcpus?,
        template: template?,
        machine: machine?,
        cpu_features: cpu_features?,
        poll_control: poll_control?,
        rng: rng?,
        watchdog: watchdog?,
        autostart: autostart?,
        disks: disks?,
        cloud_init: cloud_init?,
        networks: networks?,
        hostdevs: hostdevs?,
    })
}

/// A number whose range, checked by the reader, is far below that of `u32`.
fn narrow(number: Spanned<u64>) -> Spanned<u32> {
    number.map(|n| n as u32)
}

fn name(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    names: &mut BTreeMap<String, String>,
) -> Read<Spanned<String>> {
    let name = reader.text(section, "name", checks::guest_name)?;
    let line = reader.line_number(&name.span);
    match names.get(&name.value) {
        None => {
            names.insert(name.value.clone(), format!("line {line}"));
            Ok(name)
        }
        Some(first) => {
            let message = format!("two guests are called {}", shown(&name));
            let error = Diagnostic::error(name.span, message);
            Err(reader.error(error.label(format!("first used in {first}"))))
        }
    }
}

fn vcpus_suit(
    reader: &mut Reader<'_>,
    vcpus: &Spanned<u32>,
    os: &Read<Spanned<Os>>,
    threads: &Read<Spanned<u32>>,
) {
    if vcpus.value == 1 && os.as_ref().is_ok_and(|os| os.value == Os::Linux) {
        let error = Diagnostic::error(vcpus.span.clone(), "a real-time Linux guest needs at least 2 vCPUs");
        reader.error(
            error
                .label("one for its own housekeeping")
                .help("a guest that is not Linux may have 1: write os = \"other\""),
        );
    } else if let Ok(threads) = threads
        && !vcpus.is_multiple_of(threads.value)
    {
        let message = format!("{} vCPUs do not fill cores of {} threads", vcpus.value, threads.value);
        let error = Diagnostic::error(vcpus.span.clone(), message);
        reader.error(error.label("expected an even number, for threads-per-core = 2"));
    }
}

fn memory(reader: &mut Reader<'_>, section: &Section<'_>, page: Option<Size>) -> Read<Spanned<Size>> {
    let memory = reader.needed_size(section, "memory")?;
    let Some(Size(page)) = page.filter(|page| !memory.0.is_multiple_of(page.0)) else { return Ok(memory) };
    let below = memory.0 / page * page;
    let nearest = match below {
        0 => format!("the smallest is {}", Size(page)),
        _ => format!("the nearest are {} and {}", Size(below), Size(below + page)),
    };
    let message = format!("`{}` is not a multiple of the page size {}", memory.value, Size(page));
    Err(reader.error(Diagnostic::error(memory.span, message).label(nearest)))
}

fn rt_vcpus(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    vcpus: &Read<Spanned<u32>>,
) -> Read<Spanned<CpuSet>> {
    let count = vcpus.as_ref().map(|vcpus| vcpus.value);
    let all: CpuSet = (0..count.unwrap_or(1)).collect();
    let chosen = reader.cpus(section, "rt-vcpus", Some(&all));
    let chosen = reader.need(section, "rt-vcpus", chosen)?;
    match (count, chosen.last()) {
        (Ok(count), Some(last)) if last >= count => {
            let message = format!("the guest has no vCPU {last}");
            let error = Diagnostic::error(chosen.span.clone(), message);
            Err(reader.error(error.label(format!("its vCPUs are {all}"))))
        }
        _ => Ok(chosen),
    }
}

/// The node or the nodes, ascending.
fn numa_nodes(reader: &mut Reader<'_>, section: &Section<'_>) -> Read<Option<Spanned<Vec<u32>>>> {
    let one = reader.integer(section, "numa-node");
    let several = reader.integers(section, "numa-nodes");
    let (one, several) = (one?, several?);
    if let (Some(_), Some(several)) = (&one, &several) {
        let message = "`numa-node` and `numa-nodes` exclude each other";
        let error = Diagnostic::error(several.span.clone(), message);
        return Err(reader.error(error.label("remove one of the two")));
    }
    let Some(nodes) = one.map(|node| node.map(|node| vec![node])).or(several) else { return Ok(None) };
    let mut ids: Vec<u32> = nodes.value.iter().map(|id| *id as u32).collect();
    ids.sort_unstable();
    let twice = ids.windows(2).find(|pair| pair[0] == pair[1]);
    let wrong = match (ids.as_slice(), twice) {
        ([], _) => Some("`numa-nodes` is empty".to_owned()),
        (_, Some(pair)) => Some(format!("`numa-nodes` has node {} twice", pair[0])),
        _ => None,
    };
    match wrong {
        Some(message) => {
            let error = Diagnostic::error(nodes.span, message);
            Err(reader.error(error.label("expected different nodes, as in [0, 1]")))
        }
        None => Ok(Some(nodes.map(|_| ids))),
    }
}

/// Refuses vCPUs and memory that do not divide into equal cells of whole cores and whole pages.
fn cells_suit(
    reader: &mut Reader<'_>,
    nodes: &Spanned<Vec<u32>>,
    vcpus: &Spanned<u32>,
    threads: &Spanned<u32>,
    memory: Option<&Spanned<Size>>,
    page: Option<Size>,
) {
    let cells = nodes.value.len() as u32;
    if cells == 1 {
        return;
    }
    let help = "each node gets an equal part of the guest, as a NUMA cell and a socket of it";
    if !vcpus.is_multiple_of(cells * threads.value) {
        let message = format!("{} vCPUs do not divide into {cells} equal parts of whole cores", vcpus.value);
        let label = format!("expected a multiple of {}", cells * threads.value);
        reader.error(Diagnostic::error(vcpus.span.clone(), message).label(label).help(help));
    }
    if let (Some(memory), Some(Size(page))) = (memory, page)
        && !memory.0.is_multiple_of(page.saturating_mul(cells.into()))
    {
        let message = format!("{} does not divide into {cells} equal parts of whole pages", memory.value);
        let label = format!("expected a multiple of {cells} x {}", Size(page));
        reader.error(Diagnostic::error(memory.span.clone(), message).label(label).help(help));
    }
}

fn cloud_init(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    os: &Read<Spanned<Os>>,
) -> Read<Option<CloudInit>> {
    let Some((table, span)) = reader.table(section, "cloud-init")? else { return Ok(None) };
    let section = reader.section("guest.cloud-init", table, span);
    let mut wrong = Ok(());
    if os.as_ref().is_ok_and(|os| os.value != Os::Linux) {
        let error = Diagnostic::error(section.span.clone(), "cloud-init tunes a Linux guest only");
        wrong = Err(reader.error(error.label("the guest has another `os`")));
    }
    let distribution = reader.choice(&section, "distribution");
    let kernel = reader.choice(&section, "kernel");
    let tuning = reader.choice(&section, "tuning");
    let ssh_keys = reader.texts(&section, "ssh-keys", checks::ssh_key);
    let kernel_arguments = reader.texts(&section, "guest-arguments", checks::guest_argument);
    let user_data = reader.optional_text(&section, "user-data", checks::disk_source);
    let instance_id = reader.text(&section, "instance-id", checks::instance_id);
    wrong?;
    Ok(Some(CloudInit {
        distribution: distribution?,
        kernel: kernel?,
        tuning: tuning?,
        ssh_keys: ssh_keys?,
        kernel_arguments: kernel_arguments?,
        user_data: user_data?,
        instance_id: instance_id?,
    }))
}

fn cpu_features(reader: &mut Reader<'_>, section: &Section<'_>) -> Read<Vec<CpuFeature>> {
    let mut features: Vec<CpuFeature> = Vec::new();
    for entry in reader.texts(section, "cpu-features", checks::cpu_feature)? {
        let (name, policy) = entry.split_once('=').unwrap_or((&entry, FeaturePolicy::Require.name()));
        if features.iter().any(|feature| feature.name == name) {
            let error = Diagnostic::error(entry.span.clone(), format!("CPU feature `{name}` is there twice"));
            return Err(reader.error(error.label("remove one of the two")));
        }
        let policy = FeaturePolicy::named(policy).expect("checked");
        features.push(CpuFeature { name: name.to_owned(), policy, span: entry.span });
    }
    Ok(features)
}
