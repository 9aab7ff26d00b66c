//! Other programs that set what this one sets.

use super::{Disruption, Knob, Reach, Setting, Values};
use crate::facts::owners::{MASK, TUNED_UNIT};
use crate::formats::HostPath;
use crate::resources::Resource;

pub(super) const KNOBS: &[Knob] = &[TUNED];

/// The knob of TuneD.
pub const TUNED_KNOB: &str = TUNED.id;

const TUNED: Knob = Knob {
    id: "owners.tuned",
    summary: "Stop TuneD where one of its profiles is active, and keep it from starting",
    why: "TuneD sets sysctls, interrupt affinities and kernel arguments as well, again at every start, and puts \
        its own originals back when it ends: two owners undo each other. It is stopped once, by `apply \
        --take-over`, which makes it take back what it set; without that option apply stops and says so. The mask \
        is an ordinary link, and a revert takes it away: TuneD then starts with the next boot, its profile was \
        never touched. \"keep\" leaves both at work.",
    source: "tuned-adm(8); systemctl(1) (mask); TuneD 2.20, daemon.py (full rollback when it is stopped)",
    since: "always",
    check: "/etc/tuned/active_profile, the process, and the link that masks tuned.service",
    reach: Reach::Live,
    disruption: Disruption::BriefStall,
    values: Values::ON,
    settings: |ctx| {
        let tuned = ctx.facts.owners.tuned.as_ref().filter(|tuned| tuned.is_active() || tuned.masked);
        let mask = |_| {
            let link = Resource::Link { path: HostPath::new(TUNED_UNIT), target: MASK.into() };
            Setting::new("mask of its unit", link)
        };
        Ok(tuned.map(mask).into_iter().collect())
    },
};
