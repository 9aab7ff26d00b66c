//! Devices of guests.

use super::boot::argument;
use super::values::word;
use super::{Disruption, Knob, Reach, Values};

pub(super) const KNOBS: &[Knob] = &[IOMMU];

const IOMMU: Knob = Knob {
    id: "device.iommu",
    summary: "Turn the IOMMU on for devices that are passed to guests",
    why: "A guest can have a device of its own only behind the IOMMU. \"pt\" lets the host's own devices past it, which \
        spares their drivers the mapping of each transfer.",
    source: "Linux admin-guide/kernel-parameters.txt (intel_iommu, iommu, iommu.passthrough)",
    since: "Linux 2.6.24; iommu=pt 2.6.32",
    check: "/proc/cmdline, and that /sys/kernel/iommu_groups is not empty",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::opt_in(&[word("pt", "on for guests, passed by the host's own devices")]),
    settings: |ctx| match &ctx.facts.processor {
        processor if processor.is_intel() => {
            let mut settings = argument(ctx, "intel_iommu", "on", None)?;
            settings.extend(argument(ctx, "iommu", "pt", None)?);
            Ok(settings)
        }
        processor if processor.vendor.is_some() => argument(ctx, "iommu", "pt", None),
        _ => argument(ctx, "iommu.passthrough", "1", None),
    },
};
