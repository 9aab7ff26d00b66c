//! Whether a rendered document says what was placed, whatever template it came from.

use super::domain::Domain;
use super::reading::Reading;
use crate::formats::CpuSet;

/// Checks that a domain document carries its placement: name, UUID, memory, pages, one pin for each vCPU, the
/// emulator's CPUs, the scheduler and the host node; that it has no pin or scheduler beside those; and that its
/// I/O threads stay on the emulator's CPUs.
///
/// # Errors
/// One message for each element that says something else, with the element and both values.
pub fn check(xml: &str, domain: &Domain) -> Result<(), Vec<String>> {
    let reading = Reading::of(xml, "rendered").map_err(|error| vec![error.message])?;
    let placed = placed(domain);
    let mut faults = Vec::new();
    for (path, want) in &placed {
        let element = path.split("/@").next().unwrap_or(path);
        match reading.get(path) {
            Some(have) if have.value == *want => {}
            Some(have) => faults.push(format!("{path} is `{}`, the placement says `{want}`", have.value)),
            None => faults.push(format!("{path} is missing, the placement says `{want}`")),
        }
        if reading.get(&format!("{element}[2]")).is_some() {
            faults.push(format!("{element} appears twice: keep one"));
        }
    }
    for statement in &reading.statements {
        let path = &statement.path;
        let is_placed = || placed.iter().any(|(p, _)| p == path || p.starts_with(&format!("{path}/@")));
        let pins = ["/domain/cputune/vcpupin", "/domain/cputune/vcpusched", "/domain/numatune/"];
        let is_cell = path.strip_prefix("/domain/cpu/numa/cell").is_some_and(|rest| !rest.contains('/'));
        let element = is_cell || (!path.contains("/@") && pins.iter().any(|pin| path.starts_with(pin)));
        if (element && !is_placed() && !path.ends_with("[2]")) || path == "/domain/vcpu/@cpuset" {
            faults
                .push(format!("{path} is `{}`, the placement has no such thing: remove it", statement.shown));
        }
    }
    io_threads(&reading, &domain.emulator_cpus, &mut faults);
    faults.dedup();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// What the document must say, as paths and normal values.
fn placed(domain: &Domain) -> Vec<(String, String)> {
    let kib = |kib: u64| format!("{kib} KiB");
    let mut placed = vec![
        ("/domain/name".to_owned(), domain.name.clone()),
        ("/domain/uuid".to_owned(), domain.uuid.clone()),
        ("/domain/memory".to_owned(), kib(domain.memory_kib)),
        ("/domain/memoryBacking/hugepages/page/@size".to_owned(), kib(domain.page_kib)),
        ("/domain/vcpu".to_owned(), domain.vcpus.len().to_string()),
    ];
    for pin in &domain.vcpus {
        placed.push((format!("/domain/cputune/vcpupin[vcpu={}]/@cpuset", pin.vcpu), pin.cpu.to_string()));
    }
    placed.push(("/domain/cputune/emulatorpin/@cpuset".to_owned(), domain.emulator_cpus.to_string()));
    for vcpu in domain.fifo_vcpus.iter() {
        let element = format!("/domain/cputune/vcpusched[vcpu={vcpu}]");
        placed.push((format!("{element}/@scheduler"), "fifo".to_owned()));
        placed.push((format!("{element}/@priority"), domain.fifo_priority.to_string()));
    }
    if !domain.nodes.is_empty() {
        placed.push(("/domain/numatune/memory/@mode".to_owned(), "strict".to_owned()));
        placed.push(("/domain/numatune/memory/@nodeset".to_owned(), domain.nodes.to_string()));
    }
    for cell in &domain.cells {
        let memnode = format!("/domain/numatune/memnode[cellid={}]", cell.id);
        placed.push((format!("{memnode}/@mode"), "strict".to_owned()));
        placed.push((format!("{memnode}/@nodeset"), cell.node.to_string()));
        let element = format!("/domain/cpu/numa/cell[id={}]", cell.id);
        placed.push((format!("{element}/@cpus"), cell.vcpus.to_string()));
        placed.push((format!("{element}/@memory"), kib(cell.memory_kib)));
    }
    placed
}

/// An I/O thread without a pin runs on every CPU, isolated ones included.
fn io_threads(reading: &Reading, emulator_cpus: &CpuSet, faults: &mut Vec<String>) {
    let count = reading.get("/domain/iothreads").and_then(|s| s.value.parse::<u32>().ok()).unwrap_or(0);
    for thread in 1..=count.min(1024) {
        let path = format!("/domain/cputune/iothreadpin[iothread={thread}]/@cpuset");
        let cpus = reading.get(&path).map(|s| s.value.as_str());
        let inside = |cpus| CpuSet::parse_list(cpus).is_ok_and(|cpus| cpus.is_subset(emulator_cpus));
        match cpus {
            Some(cpus) if inside(cpus) => {}
            Some(cpus) => {
                faults.push(format!("{path} is `{cpus}`, outside the emulator's CPUs `{emulator_cpus}`"))
            }
            None => faults.push(format!("{path} is missing: pin the I/O thread inside `{emulator_cpus}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::domain::reference;
    use crate::guest::template::{DEFAULT_TEMPLATE, Templates};

    #[test]
    fn every_departure_from_the_placement_is_named() {
        let domain = reference();
        let xml = Templates::new(&[]).unwrap().render(DEFAULT_TEMPLATE, &domain).unwrap();
        for (from, to, faults) in [
            (
                "<name>rt-guest<",
                "<name>other<",
                &["/domain/name is `other`, the placement says `rt-guest`"][..],
            ),
            (&*domain.uuid, "0", &["/domain/uuid is `0`, the placement says"]),
            ("cpuset='13'", "cpuset='2'", &["vcpupin[vcpu=1]/@cpuset is `2`, the placement says `13`"]),
            ("<vcpupin vcpu='3' cpuset='15'/>", "", &["vcpupin[vcpu=3]/@cpuset is missing"]),
            (
                "<emulatorpin cpuset='8-9'/>",
                "",
                &["/domain/cputune/emulatorpin/@cpuset is missing, the placement says `8-9`"],
            ),
            (
                "<emulatorpin",
                "<vcpupin vcpu='4' cpuset='11'/><emulatorpin",
                &["vcpupin[vcpu=4] is `<vcpupin vcpu='4' cpuset='11'>`"],
            ),
            (
                "<emulatorpin",
                "<vcpupin vcpu='0' cpuset='11'/><emulatorpin",
                &["vcpupin[vcpu=0] appears twice"],
            ),
            ("<iothreadpin iothread='1' cpuset='8-9'/>", "", &["iothreadpin[iothread=1]/@cpuset is missing"]),
            (
                "<iothreadpin iothread='1' cpuset='8-9'/>",
                "<iothreadpin iothread='1' cpuset='8-10'/>",
                &["is `8-10`, outside the emulator's CPUs `8-9`"],
            ),
            (
                "vcpus='0-3'",
                "vcpus='1-3'",
                &["vcpusched[vcpu=0]/@scheduler is missing", "vcpusched[vcpu=0]/@priority is missing"],
            ),
            ("vcpus='0-3'", "vcpus='0-4'", &["vcpusched[vcpu=4] is"]),
            (
                "priority='1'",
                "priority='9'",
                &["[vcpu=0]/@priority is `9`", "[vcpu=1]", "[vcpu=2]", "[vcpu=3]"],
            ),
            ("<memory unit='KiB'>16777216<", "<memory unit='GiB'>15<", &["/domain/memory is `15728640 KiB`"]),
            ("<page size='1' unit='GiB'/>", "<page size='2' unit='M'/>", &["page/@size is `2048 KiB`"]),
            (
                "nodeset='1'",
                "nodeset='0'",
                &["/domain/numatune/memory/@nodeset is `0`, the placement says `1`"],
            ),
            ("mode='strict'", "mode='preferred'", &["/domain/numatune/memory/@mode is `preferred`"]),
            ("placement='static'", "placement='static' cpuset='0-15'", &["/domain/vcpu/@cpuset is `0-15`"]),
            ("<vcpu placement='static'>4<", "<vcpu placement='static'>5<", &["/domain/vcpu is `5`"]),
            ("</domain>", "", &["not well-formed"]),
        ] {
            let changed = xml.replacen(from, to, 1);
            assert_ne!(changed, xml, "{from}");
            let found = check(&changed, &domain).unwrap_err();
            let named =
                found.len() == faults.len() && found.iter().zip(faults).all(|(f, want)| f.contains(want));
            assert!(named, "{from} -> {to}: {found:#?}");
        }
        assert_eq!(check(&xml, &domain), Ok(()));
        assert_eq!(check(&xml.replace("unit='KiB'>16777216", "unit='G'>16"), &domain), Ok(()));
    }

    #[test]
    fn a_machine_without_numa_has_no_node() {
        let bound = Templates::new(&[]).unwrap().render(DEFAULT_TEMPLATE, &reference()).unwrap();
        let faults = check(&bound, &Domain { nodes: CpuSet::new(), ..reference() }).unwrap_err();
        assert!(faults.len() == 1 && faults[0].contains("/domain/numatune/memory"), "{faults:#?}");
    }
}
