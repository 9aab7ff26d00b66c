//! What leaving out a knob changed in the machine of docs/latency.md: what `cargo xtask lab latency --knobs` found.

/// Knobs by their ids, and what was measured without each.
const MEASURED: &[(&str, &str)] = &[];

impl super::Knob {
    /// What was measured without it, in the machine of docs/latency.md; nothing where it does not apply there.
    pub fn measured(&self) -> Option<&'static str> {
        MEASURED.iter().find(|(id, _)| *id == self.id).map(|(_, text)| *text)
    }
}

#[cfg(test)]
mod tests {
    use super::MEASURED;
    use crate::knobs;

    #[test]
    fn each_measured_name_is_a_knob_and_stands_once() {
        for (at, (id, text)) in MEASURED.iter().enumerate() {
            assert!(knobs::all().any(|knob| knob.id == *id), "{id} is no knob");
            assert!(MEASURED[..at].iter().all(|(other, _)| other != id), "{id} stands twice");
            assert!(text.ends_with('.'), "{id}: whole sentences");
        }
    }
}
