//! Network interfaces that get other channels, and with them other interrupts.

use super::Step;
use crate::facts::{interrupts, irqs::directory};
use crate::formats::{HostPath, channels};
use crate::host::{Program, Read};
use crate::resources::{IRQ_TIMER, Value};

/// Whether a step gives an interface other channels.
fn interface(step: &Step) -> Option<&str> {
    match step {
        Step::Attribute { path, after: Value::Channels(_), .. } => channels::interface(path),
        _ => None,
    }
}

/// Channels before other attributes, since they give vectors back, and without the interrupts that are no more by then,
/// whose numbers may be others'. These come beside the steps.
pub(super) fn first(host: &dyn Read, steps: Vec<Step>) -> (Vec<Step>, Vec<HostPath>) {
    let changed: Vec<&str> = steps.iter().filter_map(interface).collect();
    let numbers = changed.into_iter().flat_map(|interface| interrupts(host, interface));
    let gone: Vec<_> = numbers.map(|number| directory(number).join("smp_affinity_list")).collect();
    let (mut first, mut rest): (Vec<_>, Vec<_>) =
        steps.into_iter().partition(|step| interface(step).is_some());
    rest.retain(|step| step.path().is_none_or(|path| !gone.contains(path)));
    first.append(&mut rest);
    (first, gone)
}

/// New interrupts go where the driver puts them: the timer, where there is one, has them moved.
pub(super) fn follow_up(host: &dyn Read, attributes: &[Step], files: &[Step]) -> Option<Program> {
    attributes.iter().find_map(interface)?;
    let timer = HostPath::new(IRQ_TIMER);
    let planned = files.iter().find_map(|step| match step {
        Step::File { path, after, .. } if *path == timer => Some(after.is_some()),
        _ => None,
    });
    planned.unwrap_or_else(|| host.file(&timer).is_ok()).then_some(Program::StartIrqTimer)
}
