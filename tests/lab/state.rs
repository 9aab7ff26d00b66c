//! What a host looks like from outside the program: nothing here asks it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Host;

/// Everything that apply could change, and much that it must not: a path and its text, or the text's hash.
const STATE: &str = r#"
cd /
find etc boot usr/lib/systemd usr/lib/tmpfiles.d usr/lib/sysctl.d var/lib/rtkvm-tune -xdev -type f -print0 2>/dev/null |
    xargs -0 sha1sum | while read -r sum path; do echo "/$path $sum"; done
find etc boot -xdev -type l -printf '/%p -> %l\n'
for file in proc/irq/default_smp_affinity proc/irq/*/smp_affinity_list sys/devices/virtual/workqueue/cpumask \
    sys/devices/virtual/workqueue/*/cpumask proc/sys/kernel/*_watchdog proc/sys/kernel/hung_task_timeout_secs \
    proc/sys/kernel/timer_migration proc/sys/kernel/numa_balancing sys/kernel/rcu_normal sys/kernel/mm/ksm/run \
    sys/kernel/mm/transparent_hugepage/enabled \
    sys/devices/system/cpu/cpu*/power/pm_qos_resume_latency_us sys/devices/system/cpu/cpu*/power/energy_perf_bias \
    sys/devices/system/machinecheck/machinecheck0/ignore_ce sys/devices/system/cpu/cpufreq/policy*/scaling_governor \
    sys/devices/system/node/node*/hugepages/*/nr_hugepages proc/sys/vm/* proc/sys/kernel/sched_* \
    sys/module/kvm/parameters/* sys/devices/system/cpu/cpu*/online; do
    [ -f "$file" ] && echo "/$file $(cat "$file" 2>/dev/null)"
done
for stat in proc/[0-9]*/stat; do
    fields=$(sed -n 's/^[0-9]* (\(ksoftirqd\|ktimers\|rcuc\|rcub\)\/[0-9]*) //p' "$stat" 2>/dev/null)
    [ -n "$fields" ] || continue
    set -- $fields
    shift 37
    case $2 in 0) echo "/$stat OTHER" ;; 1) echo "/$stat FIFO $1" ;; *) echo "/$stat $2 $1" ;; esac
done
true
"#;

/// Paths with what is there now.
pub(super) type State = BTreeMap<String, String>;

pub(super) fn read(host: &Host) -> Result<State> {
    let text = host.sh(STATE)?;
    let entry = |line: &str| line.split_once(' ').map(|(path, value)| (path.to_owned(), value.to_owned()));
    Ok(text.lines().filter_map(entry).collect())
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
        let queue =
            |name: &str| name.contains("-req.") || (name.starts_with("nvme") && !name.ends_with("q0"));
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
