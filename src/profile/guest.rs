//! Reads the `[[guest]]` sections.

use std::collections::BTreeMap;
use std::ops::Range;

use super::checks::{self, shown};
use super::diagnostic::Diagnostic;
use super::reader::{Read, Reader, Section};
use super::{Disk, Guest, Network, Os, Spanned};
use crate::formats::{CpuSet, Size};

/// What may be used once in a profile, with the guest that has it.
type Used = BTreeMap<String, String>;

pub(super) fn read_all(
    reader: &mut Reader<'_>,
    top: &Section<'_>,
    page_size: Option<Size>,
) -> Read<Vec<Guest>> {
    let (mut names, mut sources) = (Used::new(), Used::new());
    let mut guests = Vec::new();
    for section in reader.tables(top, "guest", "guest")? {
        guests.push(read(reader, &section, page_size, &mut names, &mut sources));
    }
    guests.into_iter().collect()
}

fn read(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    page_size: Option<Size>,
    names: &mut Used,
    sources: &mut Used,
) -> Read<Guest> {
    let name = name(reader, section, names);
    let os = reader.choice(section, "os");
    let threads_per_core = reader.needed_integer(section, "threads-per-core").map(narrow);
    let vcpus = reader.needed_integer(section, "vcpus").map(narrow);
    if let Ok(vcpus) = &vcpus {
        vcpus_suit(reader, vcpus, &os, &threads_per_core);
    }
    let memory = memory(reader, section, page_size);
    let numa_node = reader.integer(section, "numa-node").map(|node| node.map(narrow));
    let fifo_priority = reader.needed_integer(section, "fifo-priority").map(|n| n.map(|n| n as u8));
    let rt_vcpus = rt_vcpus(reader, section, &vcpus);
    let template = reader.optional_text(section, "template", checks::template);
    let disks = disks(reader, section, &name, sources);
    let networks = networks(reader, section);
    Ok(Guest {
        span: section.span.clone(),
        name: name?,
        vcpus: vcpus?,
        memory: memory?,
        numa_node: numa_node?,
        os: os?,
        threads_per_core: threads_per_core?,
        fifo_priority: fifo_priority?,
        rt_vcpus: rt_vcpus?,
        template: template?,
        disks: disks?,
        networks: networks?,
    })
}

/// A number whose range, checked by the reader, is far below that of `u32`.
fn narrow(number: Spanned<u64>) -> Spanned<u32> {
    number.map(|n| n as u32)
}

fn name(reader: &mut Reader<'_>, section: &Section<'_>, names: &mut Used) -> Read<Spanned<String>> {
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

fn disks(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    guest: &Read<Spanned<String>>,
    sources: &mut Used,
) -> Read<Vec<Disk>> {
    let mut disks = Vec::new();
    for section in reader.tables(section, "disk", "guest.disk")? {
        let source = reader.text(&section, "source", checks::disk_source);
        let source = source.and_then(|source| once(reader, source, guest, sources));
        let format = reader.choice(&section, "format");
        let span: Range<usize> = section.span;
        disks.push(source.and_then(|source| Ok(Disk { span, source, format: format? })));
    }
    disks.into_iter().collect()
}

/// Refuses a disk that a guest of the profile has already: two writers destroy a file system.
fn once(
    reader: &mut Reader<'_>,
    source: Spanned<String>,
    guest: &Read<Spanned<String>>,
    sources: &mut Used,
) -> Read<Spanned<String>> {
    if let Some(first) = sources.get(&source.value) {
        let message = format!("disk {} is used twice", shown(&source));
        let error = Diagnostic::error(source.span, message);
        return Err(reader.error(error.label(format!("first used in {first}"))));
    }
    let line = reader.line_number(&source.span);
    let owner = guest.as_ref().map_or(String::new(), |name| format!(" by guest `{}`", name.value));
    sources.insert(source.value.clone(), format!("line {line}{owner}"));
    Ok(source)
}

fn networks(reader: &mut Reader<'_>, section: &Section<'_>) -> Read<Vec<Network>> {
    let mut networks = Vec::new();
    for section in reader.tables(section, "network", "guest.network")? {
        let bridge = reader.text(&section, "bridge", checks::interface);
        networks.push(bridge.map(|bridge| Network { span: section.span, bridge }));
    }
    networks.into_iter().collect()
}
