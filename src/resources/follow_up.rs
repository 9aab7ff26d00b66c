//! What must be told of a file that changed.

use crate::facts::owners::IRQBALANCE_UNIT;
use crate::formats::HostPath;
use crate::guest::cloud_init;
use crate::host::Program;
use std::collections::BTreeMap;

/// Where systemd looks for the units and drop-ins of the machine's administrator.
const SYSTEMD: &str = "/etc/systemd/";

/// Our drop-in of irqbalance's unit.
pub const IRQBALANCE_DROP_IN: &str = "/etc/systemd/system/irqbalance.service.d/50-rtkvm-tune.conf";

/// The variables that the drop-in gives irqbalance.
pub const IRQBALANCE_LIST: &str = "/etc/rtkvm-tune/irqbalance.env";

/// Our mount of the 1 GiB pages.
pub const MOUNT_UNIT: &str = "/etc/systemd/system/dev-hugepages1G.mount";

/// The unit whose process keeps a bound on the time in which every CPU wakes.
pub const WAKE_UP_UNIT: &str = "/etc/systemd/system/rtkvm-tune-cpu-dma-latency.service";

/// The unit that moves interrupts of devices that came up, and what starts it.
pub const IRQ_SERVICE: &str = "/etc/systemd/system/rtkvm-tune-irq.service";

/// Its timer.
pub const IRQ_TIMER: &str = "/etc/systemd/system/rtkvm-tune-irq.timer";

/// The rules by which udev starts the timer.
pub const IRQ_RULES: &str = "/etc/udev/rules.d/90-rtkvm-tune.rules";

/// The programs that make changes of these files take effect, each once and in their order. A mount whose unit
/// was taken away stays until the next boot: its pages may be in use.
pub fn follow_ups<'p>(changed: impl Iterator<Item = (&'p HostPath, bool)>) -> Vec<Program> {
    let (mut reload, mut irqbalance, mut mount, mut rules) = (false, false, false, false);
    let (mut masked, mut wake_up) = (false, None);
    let mut seeds = BTreeMap::new();
    for (path, there) in changed {
        reload |= path.as_str().starts_with(SYSTEMD);
        irqbalance |= [IRQBALANCE_DROP_IN, IRQBALANCE_LIST].contains(&path.as_str());
        masked |= path.as_str() == IRQBALANCE_UNIT && there;
        rules |= path.as_str() == IRQ_RULES;
        if path.as_str() == WAKE_UP_UNIT {
            wake_up = Some(if there { Program::KeepWakeUpBound } else { Program::DropWakeUpBound });
        }
        mount |= path.as_str() == MOUNT_UNIT && there;
        if let Some(name) = cloud_init::guest_of(path) {
            seeds.insert(name, there);
        }
    }
    let all = [
        (reload, Program::DaemonReload),
        (irqbalance && !masked, Program::RestartIrqbalance),
        (masked, Program::StopIrqbalance),
        (mount, Program::MountHugepages),
        (rules, Program::ReloadRules),
    ];
    let seed = |(name, there)| {
        let image = cloud_init::image(name);
        let from = || cloud_init::texts(name)[0].split().0.expect("below the root");
        if there { Program::MakeSeed { from: from(), image } } else { Program::RemoveSeed { image } }
    };
    let all = all.into_iter().filter_map(|(wanted, program)| wanted.then_some(program)).chain(wake_up);
    all.chain(seeds.into_iter().map(seed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_runs_once_and_after_the_reload() {
        let changed = [
            (IRQBALANCE_LIST, true),
            (IRQBALANCE_DROP_IN, true),
            ("/etc/rtkvm-tune/profile.toml", true),
            (MOUNT_UNIT, true),
            (IRQ_RULES, true),
        ];
        let programs = |changed: &[(&str, bool)]| {
            let paths: Vec<_> = changed.iter().map(|(path, there)| (HostPath::new(*path), *there)).collect();
            follow_ups(paths.iter().map(|(path, there)| (path, *there)))
        };
        let all = [
            Program::DaemonReload,
            Program::RestartIrqbalance,
            Program::MountHugepages,
            Program::ReloadRules,
        ];
        assert_eq!(programs(&changed), all);
        let masked = [(IRQBALANCE_LIST, false), (IRQBALANCE_DROP_IN, false), (IRQBALANCE_UNIT, true)];
        assert_eq!(programs(&masked), [Program::DaemonReload, Program::StopIrqbalance]);
        // It starts with the next boot.
        assert_eq!(programs(&[(IRQBALANCE_UNIT, false)]), [Program::DaemonReload]);
        let of_bound = |there| programs(&[(WAKE_UP_UNIT, there)]);
        assert_eq!(of_bound(true), [Program::DaemonReload, Program::KeepWakeUpBound]);
        assert_eq!(of_bound(false), [Program::DaemonReload, Program::DropWakeUpBound]);
        assert_eq!(programs(&changed[2..3]), []);
        assert_eq!(programs(&[(MOUNT_UNIT, false)]), [Program::DaemonReload]);
    }
}
