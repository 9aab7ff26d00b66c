//! The power goes away at random moments of an apply, with the real GRUB.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use super::Host;
use super::state::changed;

type Tree = super::state::State;

/// The fewest CPUs that can be divided, for the sake of the many boots.
const TOPOLOGY: &str = "small";
const PROFILE: &str = "/root/profiles/power.toml";
const TEXT: &str =
    "[host]\nhousekeeping-cpus-per-node = 1\n\n[host.hugepages]\nsize = \"2MiB\"\ncount = 64\n";
/// How often the power goes away, unless the environment says otherwise: each time costs a boot.
const CUTS: u64 = 1;

/// Everything below /etc and what GRUB boots from: kind, mode, owner and link, and the content's hash. The kernels and
/// GRUB's own modules, which nothing here writes, by their sizes.
const TREE: &str = r#"
cd /
find etc boot -xdev -printf '/%p %y %m %U %G %l\n'
find boot -xdev -type f ! -path 'boot/grub/grub*' -printf 'size:/%p %s\n'
find etc boot/grub/grub* -xdev -type f -print0 | xargs -0 sha1sum | while read -r sum path; do echo "sum:/$path $sum"; done
"#;

/// Services that have no part in this, and take most of a boot.
const UNUSED: &str = "libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirt-guests.service \
    virtlogd.socket virtlockd.socket irqbalance.service";

/// Each cut is at a moment of an apply on the old host. The boot after it tells whether it was survived, and begins the
/// next round.
pub(super) fn a_cut_leaves_the_old_host_or_the_new() -> Result<()> {
    let cuts = from_environment("LAB_CUTS")?.unwrap_or(CUTS);
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs());
    let seed = from_environment("LAB_SEED")?.unwrap_or_else(clock);
    let mut moments = Moments(seed);
    let mut host = Host::boot(TOPOLOGY)?;
    host.say(&format!("{cuts} power cuts, LAB_SEED={seed}"));
    host.put_program()?;
    host.write(PROFILE, TEXT.as_bytes())?;
    host.sh(&format!("systemctl mask --now {UNUSED}"))?;

    let old = tree(&host)?;
    let start = host.processor_time();
    host.tune_with("apply", PROFILE, "")?.expect(0)?;
    let whole = host.processor_time() - start;
    let new = tree(&host)?;
    ensure!(changed(&old, &new).contains("sum:/boot/grub/grub.cfg"), "an apply leaves grub.cfg as it is");
    revert(&host, &old)?;

    let mut ends = [0; 3];
    for cut in 1..=cuts {
        // Right after a boot it takes longer than the one that was measured, and its end is among the moments.
        let after = moments.next() * whole * 1.5;
        host.power_cut_in(&format!("rtkvm-tune apply {PROFILE}"), after)?;
        let end = recover(&host)?;
        let now = tree(&host)?;
        let (from_old, from_new) = (changed(&old, &now), changed(&new, &now));
        ensure!(
            from_old.is_empty() || from_new.is_empty(),
            "cut {cut}, {after:.2} of {whole:.2} s, {end:?}: neither the old host: {from_old:#?}\nnor the new: {from_new:#?}"
        );
        let which = if from_old.is_empty() { "old" } else { "new" };
        host.say(&format!("cut {cut}: after {after:.2} of {whole:.2} s, {end:?}: the {which} host"));
        ends[end as usize] += 1;
        if !from_old.is_empty() {
            revert(&host, &old)?;
        }
    }
    let [nothing, by_unit, by_hand] = ends;
    host.say(&format!(
        "{cuts} power cuts: {nothing} with nothing to recover, {by_unit} recovered by the boot unit, {by_hand} by hand"
    ));
    Ok(())
}

/// How a host came out of a power cut.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The apply had not begun or was done.
    Nothing,
    /// The boot unit was there already, and did it.
    ByUnit,
    /// The next command said what was to be done.
    ByHand,
}

/// Recovers what the boot unit has not.
fn recover(host: &Host) -> Result<End> {
    let log = host.sh("journalctl --boot --unit rtkvm-tune.service --output cat")?;
    let told = |text: &str| text.contains("was carried out before") || text.contains("is taken back");
    let before = host.run("test -e /var/lib/rtkvm-tune/journal.json")?.code() == 0;
    if before {
        let refused = host.run(&format!("rtkvm-tune apply {PROFILE}"))?;
        ensure!(
            refused.code() == 2 && refused.stderr.contains("was interrupted: run `rtkvm-tune recover`"),
            "the next command says nothing: {refused:?}"
        );
    }
    let text = host.sh("rtkvm-tune recover")?;
    host.sh("test ! -e /var/lib/rtkvm-tune/journal.json")?;
    match (before, told(&log)) {
        (true, _) => {
            ensure!(told(&text), "{text}");
            Ok(End::ByHand)
        }
        (false, by_unit) => {
            ensure!(text.starts_with("Nothing to recover"), "{text}");
            Ok(if by_unit { End::ByUnit } else { End::Nothing })
        }
    }
}

fn revert(host: &Host, old: &Tree) -> Result<()> {
    host.sh("rtkvm-tune revert")?;
    let changed = changed(old, &tree(host)?);
    ensure!(changed.is_empty(), "a revert left {changed:#?}");
    Ok(())
}

fn tree(host: &Host) -> Result<Tree> {
    let text = host.sh(TREE)?;
    let entry = |line: &str| line.split_once(' ').map(|(path, rest)| (path.to_owned(), rest.to_owned()));
    let tree: Tree = text.lines().filter_map(entry).collect();
    ensure!(tree.contains_key("sum:/boot/grub/grub.cfg") && tree.len() > 300, "{} files only", tree.len());
    Ok(tree)
}

fn from_environment(name: &str) -> Result<Option<u64>> {
    let text = std::env::var(name).ok();
    text.map(|text| text.parse().with_context(|| format!("{name}={text} is no number"))).transpose()
}

/// Numbers from 0 to 1, always the same ones from one seed (splitmix64).
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
