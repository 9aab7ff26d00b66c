//! Pages that the kernel does not grant at run time.

use anyhow::{Context, Result, ensure};

use super::Host;

/// 30 of the 31.4 GiB of a node: the kernel's own memory lies in some of the places where a page would be.
const TOO_MANY: &str = "[host]\nhousekeeping-cpus-per-node = 2\nhousekeeping-memory-per-node = \"1GiB\"\n\n\
    [host.hugepages]\nsize = \"1GiB\"\ncount = 30\n";

pub(super) fn too_many_are_reported(host: &Host) -> Result<()> {
    host.write("/root/profiles/too-many.toml", TOO_MANY.as_bytes())?;
    short(host, "/root/profiles/too-many.toml", 30)
}

/// Takes small huge pages on node 1, and gives all back but one in each GiB: they do not move, and no large page
/// fits where one is. Each page that a program touches is the first of the list, as is each page given back.
const FRAGMENT: &str = r#"
import mmap
pool = "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"
def resize(count):
    with open(pool, "w") as file:
        file.write(str(count))
    return int(open(pool).read())
PAGE = 2 << 20
have = resize(14000)
count = have // 511 + 1
memory = mmap.mmap(-1, count * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
for at in range(count):
    memory[at * PAGE] = 1
    have = resize(max(count, have - 511))
print(have)
"#;

/// Two of the four places for a page on a node of the machine of four CPUs.
const FRAGMENTED: &str = "[host]\nhousekeeping-cpus-per-node = 1\nhousekeeping-memory-per-node = \"1GiB\"\n\n\
    [host.hugepages]\nsize = \"1GiB\"\ncount = 2\n";

pub(super) fn fragmented_memory_is_reported() -> Result<()> {
    let host = Host::boot("pair")?;
    host.put_program()?;
    host.write("/root/fragment.py", FRAGMENT.as_bytes())?;
    let taken = host.sh("python3 /root/fragment.py")?;
    host.say(&format!("{} pages of 2 MiB lie scattered on node 1", taken.trim()));
    host.write("/root/profiles/fragmented.toml", FRAGMENTED.as_bytes())?;
    short(&host, "/root/profiles/fragmented.toml", 2)
}

/// An apply that does not get every page says how many it got on each node, leaves nothing else out, and leaves the
/// rest of the pages to the next boot.
fn short(host: &Host, profile: &str, wanted: u64) -> Result<()> {
    // Until the kernel isolates CPUs irqbalance moves interrupts there again, at any moment.
    host.sh("systemctl stop irqbalance")?;
    let applied = host.tune_with("apply", profile, "--format json")?.json(0)?;
    let mut short = 0;
    for node in 0..2 {
        let path = format!("/sys/devices/system/node/node{node}/hugepages/hugepages-1048576kB/nr_hugepages");
        let reports = applied["reports"].as_array().context("no reports")?;
        let report = reports.iter().find(|report| report["step"].to_string().contains(&path));
        let report = report.with_context(|| format!("no report on {path}:\n{}", applied["reports"]))?;
        let got: u64 = host.read(&path)?.parse()?;
        host.say(&format!("node {node}: {got} of {wanted} pages"));
        if got == wanted {
            ensure!(report["outcome"] == "done", "{report}");
        } else {
            short += 1;
            ensure!(report["outcome"] == "short", "{report}");
            ensure!(report["detail"]["wanted"] == wanted && report["detail"]["got"] == got, "{report}");
        }
    }
    ensure!(short > 0, "the kernel granted every page: the test proves nothing");
    let failed = |report: &&serde_json::Value| {
        !["done", "short", "impossible"].contains(&report["outcome"].as_str().unwrap_or_default())
    };
    let failed: Vec<_> = applied["reports"].as_array().context("no reports")?.iter().filter(failed).collect();
    ensure!(failed.is_empty(), "left out: {failed:#?}");
    host.tune_with("verify", profile, "")?.expect(3)?;
    Ok(())
}
