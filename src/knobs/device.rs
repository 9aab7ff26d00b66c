//! Devices of guests.

use super::boot::argument;
use super::values::word;
use super::{Disruption, Knob, Reach, Values};
use crate::profile::{Attachment, Guest};

pub(super) const KNOBS: &[Knob] = &[IOMMU];

const IOMMU: Knob = Knob {
    id: "device.iommu",
    summary: "Turn the IOMMU on for devices that are passed to guests",
    why: "A guest can have a device of its own only behind the IOMMU. The host's own devices are let past it, which \
        spares their drivers the mapping of each transfer.",
    source: "Linux admin-guide/kernel-parameters.txt (intel_iommu, iommu, iommu.passthrough)",
    since: "Linux 2.6.24; iommu=pt 2.6.32",
    check: "/proc/cmdline, and that /sys/kernel/iommu_groups is not empty",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::words(&[
        word("guests", "on where a guest of the profile has a device of its own"),
        word("pt", "on, whatever guests have"),
    ]),
    settings: |ctx| match &ctx.facts.processor {
        _ if ctx.value.word() == "guests" && !ctx.profile.guests.iter().any(has_device) => Ok(Vec::new()),
        processor if processor.is_intel() => {
            let mut settings = argument(ctx, "intel_iommu", "on", None)?;
            settings.extend(argument(ctx, "iommu", "pt", None)?);
            Ok(settings)
        }
        processor if processor.vendor.is_some() => argument(ctx, "iommu", "pt", None),
        _ => argument(ctx, "iommu.passthrough", "1", None),
    },
};

/// Whether a guest is given a device of the host.
fn has_device(guest: &Guest) -> bool {
    let of_network = |to: &Attachment| matches!(to, Attachment::VirtualFunction(_) | Attachment::Pool(_));
    !guest.hostdevs.is_empty() || guest.networks.iter().any(|network| of_network(&network.attachment))
}
