//! Reads `[host]`.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeValue;

use super::checks;
use super::diagnostic::Diagnostic;
use super::keys::{MAX_NODE, MAX_PAGES};
use super::reader::{Read, Reader, Section};
use super::{Host, Housekeeping, HugePages, PageCount, Spanned};
use crate::formats::{Connection, CpuSet, Size};

/// The sizes of huge pages on any processor: 64 KiB on arm64 to 16 GiB on POWER.
const PAGE_SIZES: Range<u64> = 64 << 10..(16 << 30) + 1;

/// The host, and the page size even when something else is wrong.
pub(super) fn read(reader: &mut Reader<'_>, top: &Section<'_>) -> (Read<Host>, Option<Size>) {
    let (table, span) = match reader.table(top, "host") {
        Ok(Some(table)) => table,
        Ok(None) => unreachable!("[host] is required"),
        Err(reported) => return (Err(reported), None),
    };
    let section = reader.section("host", table, span);
    let isolated = reader.cpus(&section, "isolated-cpus", None);
    let housekeeping = housekeeping(reader, &section);
    if let (Ok(Housekeeping::Cpus(kept)), Ok(Some(isolated))) = (&housekeeping, &isolated) {
        overlap(reader, kept, isolated);
    }
    let memory = reader.size(&section, "housekeeping-memory-per-node");
    let boot_loader = reader.choice(&section, "boot-loader");
    let libvirt = libvirt(reader, &section);
    let kernel_arguments = reader.texts(&section, "kernel-arguments", checks::kernel_argument);
    if let Ok(arguments) = &kernel_arguments {
        repeated(reader, arguments);
    }
    let (hugepages, page_size) = hugepages(reader, &section);
    if let (Ok(None), Ok(HugePages { count: None, .. })) = (&memory, &hugepages) {
        let message = "missing key `housekeeping-memory-per-node` in [host]";
        let error = Diagnostic::error(section.span.clone(), message);
        reader.missing(error.help(
            "write how much memory a node keeps, as in \"6GiB\", or a `count` of pages in [host.hugepages]",
        ));
    }
    let host = || {
        Ok(Host {
            span: section.span,
            housekeeping: housekeeping?,
            isolated_cpus: isolated?,
            housekeeping_memory_per_node: memory?,
            libvirt: libvirt?,
            boot_loader: boot_loader?,
            kernel_arguments: kernel_arguments?,
            hugepages: hugepages?,
        })
    };
    (host(), page_size)
}

fn libvirt(reader: &mut Reader<'_>, section: &Section<'_>) -> Read<Connection> {
    let uri = reader.text(section, "libvirt-uri", |text| Connection::parse(text).map(drop))?;
    Ok(Connection::parse(&uri).expect("it was checked"))
}

fn housekeeping(reader: &mut Reader<'_>, section: &Section<'_>) -> Read<Housekeeping> {
    let per_node = reader.integer(section, "housekeeping-cpus-per-node");
    let cpus = reader.cpus(section, "housekeeping-cpus", None);
    let span = |name| reader.span_of(section, name);
    if let (Some(first), Some(second)) = (span("housekeeping-cpus-per-node"), span("housekeeping-cpus")) {
        let second = if first.start > second.start { first } else { second };
        let message = "`housekeeping-cpus` and `housekeeping-cpus-per-node` exclude each other";
        return Err(reader.error(Diagnostic::error(second, message).label("remove one of the two")));
    }
    match (per_node?, cpus?) {
        (Some(number), _) => Ok(Housekeeping::PerNode(number.map(|n| n as u32))),
        (None, Some(cpus)) => Ok(Housekeeping::Cpus(cpus)),
        (None, None) => {
            let message = "missing key `housekeeping-cpus-per-node` or `housekeeping-cpus` in [host]";
            let error = Diagnostic::error(section.span.clone(), message);
            Err(reader.missing(error.help(
                "`housekeeping-cpus-per-node` is a whole number, `housekeeping-cpus` a CPU list as in \"0-1,8-9\"",
            )))
        }
    }
}

fn overlap(reader: &mut Reader<'_>, kept: &Spanned<CpuSet>, isolated: &Spanned<CpuSet>) {
    let both = kept.intersection(isolated);
    if !both.is_empty() {
        let message = "`housekeeping-cpus` and `isolated-cpus` overlap";
        let later = if kept.span.start > isolated.span.start { kept } else { isolated };
        let label = match both.len() {
            1 => format!("CPU {both} is in both"),
            _ => format!("CPUs {both} are in both"),
        };
        reader.error(Diagnostic::error(later.span.clone(), message).label(label));
    }
}

fn repeated(reader: &mut Reader<'_>, arguments: &[Spanned<String>]) {
    let mut seen = std::collections::BTreeSet::new();
    for argument in arguments {
        if !seen.insert(argument.as_str()) {
            let message = format!("kernel argument {} is repeated", checks::shown(argument));
            reader.warn(Diagnostic::warning(argument.span.clone(), message).label("has no further effect"));
        }
    }
}

fn hugepages(reader: &mut Reader<'_>, host: &Section<'_>) -> (Read<HugePages>, Option<Size>) {
    let section = match reader.table(host, "hugepages") {
        Ok(Some((table, span))) => reader.section("host.hugepages", table, span),
        Ok(None) => reader.empty_section("host.hugepages", host.span.clone()),
        Err(reported) => return (Err(reported), None),
    };
    let size = reader.needed_size(&section, "size");
    let size = size.and_then(|size| {
        if size.0.is_power_of_two() && PAGE_SIZES.contains(&size.0) {
            return Ok(size);
        }
        let message = format!("`{}` is no size of huge pages", size.value);
        let error = Diagnostic::error(size.span, message);
        Err(reader.error(error.label("expected a power of two from 64KiB to 16GiB, as 2MiB or 1GiB")))
    });
    let count = page_count(reader, &section);
    let known = size.as_ref().ok().map(|size| size.value);
    let hugepages = || Ok(HugePages { span: section.span, size: size?, count: count? });
    (hugepages(), known)
}

fn page_count(reader: &mut Reader<'_>, section: &Section<'_>) -> Read<Option<PageCount>> {
    let Some(value) = reader.raw(section, "count") else { return Ok(None) };
    let table = match value.get_ref() {
        DeValue::Integer(_) => {
            let pages = reader.integer_value("count", value, 1, MAX_PAGES)?;
            return Ok(Some(PageCount::PerNode(pages)));
        }
        DeValue::Table(table) => table,
        _ => return Err(reader.wrong_form(section, "count", value)),
    };
    if table.is_empty() {
        let error = Diagnostic::error(value.span(), "`count` names no node");
        return Err(
            reader.error(error.help("write the pages of each node, as in { \"0\" = 26, \"1\" = 25 }"))
        );
    }
    let mut nodes = Vec::new();
    for (key, value) in table.iter() {
        let pages = reader.integer_value("count", value, 0, MAX_PAGES);
        let text = key.get_ref();
        // Only the form that sysfs has, so that no node is named twice.
        let id = text.parse().ok().filter(|id: &u32| u64::from(*id) <= MAX_NODE && id.to_string() == **text);
        let id = id.ok_or_else(|| {
            let message = format!("{} is not a node id", checks::shown(text));
            let error = Diagnostic::error(key.span(), message);
            reader.error(error.label(format!("expected \"0\" to \"{MAX_NODE}\"")))
        });
        nodes.push(id.and_then(|id| Ok((id, pages?))));
    }
    let pages = nodes.into_iter().collect::<Read<BTreeMap<u32, Spanned<u64>>>>()?;
    Ok(Some(PageCount::Nodes { pages, span: value.span() }))
}
