//! What a host looks like from outside the program: nothing here asks it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Host;

/// Everything that apply could change, and much that it must not.
const STATE: &str = include_str!("state.py");

/// Paths with what is there now.
pub(super) type State = BTreeMap<String, String>;

pub(super) fn read(host: &Host) -> Result<State> {
    host.write("/run/state.py", STATE.as_bytes())?;
    Ok(serde_json::from_str(&host.sh("python3 /run/state.py")?)?)
}

/// The paths that are not the same in both.
pub(super) fn changed(before: &State, after: &State) -> BTreeSet<String> {
    let paths = before.keys().chain(after.keys());
    paths.filter(|path| before.get(*path) != after.get(*path)).cloned().collect()
}

/// The steps of a plan that was printed as JSON.
pub(super) fn steps(plan: &Value) -> Result<&Vec<Value>> {
    plan["plan"]["steps"].as_array().context("the plan has no steps")
}

/// The settings that are neither in line, nor impossible here, nor somebody else's to look at: knob, label and state.
pub(super) fn open(plan: &Value) -> Result<Vec<String>> {
    let items = plan["plan"]["items"].as_array().context("the plan has no items")?;
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    let open = items
        .iter()
        .filter(|item| !["in-line", "not-applicable", "by-hand"].contains(&&*text(item, "state")));
    let line =
        |item: &Value| format!("{} {} {}", text(item, "knob"), text(item, "label"), text(item, "state"));
    Ok(open.map(line).collect())
}

/// An interrupt in use, as the kernel shows it.
pub(super) struct Interrupt {
    pub(super) number: u32,
    pub(super) affinity: String,
    pub(super) effective: String,
    pub(super) actions: String,
}

impl Interrupt {
    /// Timers and queues that Linux 6.1 spreads itself: it refuses to move them.
    pub(super) fn is_fixed(&self) -> bool {
        let queue = |name: &str| name.contains("-req.");
        ["timer", "cascade"].contains(&&*self.actions) || self.actions.split(',').all(queue)
    }
}

pub(super) fn interrupts(host: &Host) -> Result<Vec<Interrupt>> {
    let text = host.sh(
        "cd /sys/kernel/irq; for irq in *; do actions=$(cat $irq/actions); [ -z \"$actions\" ] || \
         echo $irq $(cat /proc/irq/$irq/smp_affinity_list) $(cat /proc/irq/$irq/effective_affinity_list) $actions; done",
    )?;
    let mut found = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let [number, affinity, effective, actions] = words[..] else { continue };
        let [affinity, effective, actions] = [affinity, effective, actions].map(str::to_owned);
        found.push(Interrupt { number: number.parse()?, affinity, effective, actions });
    }
    Ok(found)
}
