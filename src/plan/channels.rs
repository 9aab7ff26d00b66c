//! Network interfaces that get other channels, and with them other interrupts.

use super::Step;
use crate::facts::irqs::DEFAULT_AFFINITY;
use crate::resources::Value;

/// Attributes in the order in which they are set. Channels give interrupt vectors back before interrupts need them, and get
/// interrupts where the default says, which therefore comes before them.
pub(super) fn first(steps: &mut [Step]) {
    steps.sort_by_key(|step| match step {
        Step::Attribute { path, .. } if path.as_str() == DEFAULT_AFFINITY => 0,
        Step::Attribute { after: Value::Channels(_), .. } => 1,
        _ => 2,
    });
}
