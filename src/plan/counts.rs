//! How many settings stand in which way, and what follows for the exit status.

use super::{Item, Plan, Step};
use crate::formats::HostPath;
use crate::resources::State;
use serde::Serialize;

/// Counts over the items of a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Not there yet.
    pub add: usize,
    /// There with another value.
    pub change: usize,
    /// Set by us once, and nothing asks for it any more.
    pub remove: usize,
    /// As they should be.
    pub in_line: usize,
    /// Set, and waiting for a boot.
    pub reboot_pending: usize,
    /// Set, and waiting for the interrupt that it is about.
    pub pending: usize,
    /// It would disturb guests that run.
    pub waiting: usize,
    /// Given to the running kernel, which did not take it.
    pub rejected: usize,
    /// Set by somebody else.
    pub foreign: usize,
    /// Not to be told.
    pub unverifiable: usize,
    /// To be done by hand.
    pub by_hand: usize,
    /// Cannot be set here.
    pub not_applicable: usize,
    /// Checks that fail: what no program can set, so that no exit status tells of it.
    pub unmet: usize,
}

impl Plan {
    /// Whether another plan has the same steps.
    pub fn does_the_same(&self, other: &Plan) -> bool {
        self.steps.len() == other.steps.len()
            && self.steps.iter().zip(&other.steps).all(|(one, two)| one.is_like(two))
    }

    /// The first path that one of two plans changes otherwise than the other.
    pub fn other_path<'p>(&'p self, other: &'p Plan) -> Option<&'p HostPath> {
        let lacks = |one: &'p Plan, two: &'p Plan| {
            one.steps.iter().find(|step| !two.steps.iter().any(|there| step.is_like(there)))
        };
        lacks(self, other).or_else(|| lacks(other, self)).and_then(Step::path)
    }

    /// Counts over the items.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for item in &self.items {
            if item.is_check() {
                counts.unmet += usize::from(matches!(item.observed.state, State::ByHand(_)));
                continue;
            }
            let slot = match &item.observed.state {
                State::InLine => &mut counts.in_line,
                State::Missing => &mut counts.add,
                State::Differs(_) => &mut counts.change,
                State::RebootPending => &mut counts.reboot_pending,
                State::Pending(_) => &mut counts.pending,
                State::Waiting(_) => &mut counts.waiting,
                State::Rejected(_) => &mut counts.rejected,
                State::Foreign(_) => &mut counts.foreign,
                State::Unverifiable(_) => &mut counts.unverifiable,
                State::NotApplicable(_) => &mut counts.not_applicable,
                State::ByHand(_) => &mut counts.by_hand,
                State::Obsolete => &mut counts.remove,
            };
            *slot += 1;
        }
        counts
    }

    /// Whether something that is wanted takes effect at the next boot only.
    pub fn needs_reboot(&self) -> bool {
        self.items.iter().any(Item::needs_reboot)
    }

    /// The exit status of an audit: 0 in line, 1 differs, 3 nothing missing but a reboot. What cannot be told is no
    /// difference.
    pub fn status(&self) -> u8 {
        let counts = self.counts();
        match counts {
            _ if counts.add + counts.change + counts.remove + counts.by_hand > 0 => 1,
            _ if counts.waiting + counts.rejected + counts.foreign > 0 => 1,
            _ if counts.reboot_pending > 0 => 3,
            _ => 0,
        }
    }
}
