//! Network interfaces that get other channels, and with them other interrupts.

use super::Step;
use crate::facts::interrupts;
use crate::facts::irqs::{directory, is_interrupt};
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

/// Channels before other attributes, since they give vectors back, and without what is made anew with them: interrupts, whose
/// numbers may be others' by then, and queues. What comes beside the steps tells it of a path.
pub(super) fn first(host: &dyn Read, steps: Vec<Step>) -> (Vec<Step>, impl Fn(&HostPath) -> bool) {
    let changed: Vec<String> = steps.iter().filter_map(interface).map(str::to_owned).collect();
    let numbers = changed.iter().flat_map(|interface| interrupts(host, interface));
    let irqs: Vec<_> = numbers.map(|number| directory(number).join("smp_affinity_list")).collect();
    let queues: Vec<_> = changed.iter().map(|interface| channels::queues(interface)).collect();
    let gone = move |path: &HostPath| irqs.contains(path) || queues.iter().any(|dir| path.is_below(dir));
    let (mut first, mut rest): (Vec<_>, Vec<_>) =
        steps.into_iter().partition(|step| interface(step).is_some());
    rest.retain(|step| !step.path().is_some_and(&gone));
    first.append(&mut rest);
    (first, gone)
}

/// Whether something is of the kind that other channels make anew.
pub fn is_made_anew(path: &HostPath) -> bool {
    is_interrupt(path) || channels::is_of_a_queue(path)
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
