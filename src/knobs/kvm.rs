//! Options of KVM's modules.

use super::boot::argument;
use super::values::risky;
use super::{Context, Disruption, Knob, Reach, Setting, Values, attribute, unfit};
use crate::facts::modules::path;
use crate::formats::HostPath;
use crate::profile::Diagnostic;
use crate::resources::{Attribute, OwnedFile, Resource, Value};

pub(super) const KNOBS: &[Knob] =
    &[PLE_GAP, PAUSE_FILTER, CLOCK_SYNC, NX_HUGE_PAGES, HALT_POLL, MIN_TIMER_PERIOD];

const PLE_GAP: Knob = Knob {
    id: "kvm.ple-gap",
    summary: "Let a vCPU spin without leaving the guest (Intel)",
    why: "A guest that waits in a spin loop of PAUSE instructions is otherwise stopped, for the CPU to run another vCPU \
        meanwhile. On a CPU of its own there is none, and the way out and back takes microseconds.",
    source: "Linux arch/x86/kvm/vmx/vmx.c (ple_gap); Intel SDM, PAUSE-loop exiting; TuneD realtime-virtual-host",
    since: "Linux 2.6.33",
    check: "/sys/module/kvm_intel/parameters/ple_gap is 0",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| options(ctx, "kvm_intel", "kvm_amd", &["ple_gap"], Value::Number(0)),
};

const PAUSE_FILTER: Knob = Knob {
    id: "kvm.pause-filter",
    summary: "Let a vCPU spin without leaving the guest (AMD)",
    why: "A guest that waits in a spin loop of PAUSE instructions is otherwise stopped, for the CPU to run another vCPU \
        meanwhile. On a CPU of its own there is none, and the way out and back takes microseconds.",
    source: "Linux arch/x86/kvm/svm/svm.c (pause_filter_count, pause_filter_thresh); AMD APM volume 2",
    since: "Linux 2.6.33; as parameters 4.17",
    check: "/sys/module/kvm_amd/parameters/pause_filter_count and pause_filter_thresh are 0",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| {
        let names = ["pause_filter_count", "pause_filter_thresh"];
        options(ctx, "kvm_amd", "kvm_intel", &names, Value::Number(0))
    },
};

const CLOCK_SYNC: Knob = Knob {
    id: "kvm.clock-sync",
    summary: "Do not interrupt every vCPU each five minutes to set its clock",
    why: "A worker asks all vCPUs of a guest to take the time anew, by an interrupt to each. It corrects what drifts \
        between kvmclock and an adjusted host clock by parts per million; guests that need exact time use PTP or NTP.",
    source: "Linux arch/x86/kvm/x86.c (kvmclock_periodic_sync); TuneD realtime-virtual-host",
    since: "Linux 4.2",
    check: "/sys/module/kvm/parameters/kvmclock_periodic_sync is N",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| options(ctx, "kvm", "", &["kvmclock_periodic_sync"], Value::Choice("N".into())),
};

const NX_HUGE_PAGES: Knob = Knob {
    id: "kvm.nx-huge-pages",
    summary: "Choose whether KVM guards the host against the iTLB multihit erratum",
    why: "The guard forbids a guest to execute from huge pages: each that it does is divided into pages of 4 KiB while \
        the guest waits, and from time to time put together again. Only processors with the erratum have it on.",
    source: "Linux admin-guide/hw-vuln/multihit.rst; TuneD realtime-virtual-host",
    since: "Linux 5.4",
    check: "/sys/module/kvm/parameters/nx_huge_pages is N",
    reach: Reach::Live,
    disruption: Disruption::BriefStall,
    values: Values::opt_in(&[risky(
        "off",
        "guests execute from huge pages",
        "a guest can stop the whole machine by a machine check (iTLB multihit, CVE-2018-12207)",
    )]),
    settings: |ctx| {
        let (module, name) = ("kvm", "nx_huge_pages");
        match ctx.facts.modules.parameter(module, name) {
            Ok((value, writable)) if writable || value == "N" => {
                Ok(vec![attribute(name, path(module, name).to_string(), Value::Choice("N".into()))])
            }
            Ok((value, _)) => Ok(vec![unfit(name, "N", format!("it is {value} and cannot be written"))]),
            Err(error) => Ok(vec![unfit(name, "N", format!("{} {error}", path(module, name)))]),
        }
    },
};

const HALT_POLL: Knob = Knob {
    id: "kvm.halt-poll",
    summary: "Choose how long the host polls for work after a vCPU halts",
    why: "A vCPU that halts is woken sooner while its CPU polls, which costs power and, with a sibling thread in use, \
        speed there. The kernel's 200,000 ns fit CPUs of their own; guests with poll-control poll by themselves.",
    source: "Linux virt/kvm/halt-polling.rst",
    since: "Linux 4.0",
    check: "/sys/module/kvm/parameters/halt_poll_ns",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::opt_in_number(0..=1_000_000, "ns"),
    settings: |ctx| running(ctx, "halt_poll_ns"),
};

const MIN_TIMER_PERIOD: Knob = Knob {
    id: "kvm.min-timer-period",
    summary: "Choose the shortest period of a guest's periodic local timer",
    why: "The kernel lengthens shorter ones to 200 us, so that a guest cannot keep its host busy with timers. A guest \
        that ticks faster than 5 kHz needs less.",
    source: "Linux arch/x86/kvm/x86.c (min_timer_period_us)",
    since: "Linux 3.15",
    check: "/sys/module/kvm/parameters/min_timer_period_us",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::opt_in_number(1..=10_000, "us"),
    settings: |ctx| running(ctx, "min_timer_period_us"),
};

/// A parameter of kvm that can be written while it runs.
fn running(ctx: &Context, name: &str) -> Result<Vec<Setting>, Vec<Diagnostic>> {
    let wanted = ctx.value.number();
    Ok(vec![match ctx.facts.modules.parameter("kvm", name) {
        Ok(_) => attribute(name, path("kvm", name).to_string(), Value::Number(wanted)),
        Err(error) => unfit(name, wanted.to_string(), format!("{} {error}", path("kvm", name))),
    }])
}

/// Options that a module takes while it is loaded: a file for modprobe, or kernel arguments where it is built in, and
/// the running values. Nothing where the other vendor's module is there instead.
fn options(
    ctx: &Context,
    module: &'static str,
    other: &str,
    names: &[&str],
    want: Value,
) -> Result<Vec<Setting>, Vec<Diagnostic>> {
    let modules = &ctx.facts.modules;
    if modules.has(other) && !modules.has(module) {
        return Ok(Vec::new());
    }
    let text = want.for_kernel();
    let assigned = |name: &&str| format!("{name}={text}");
    let wanted = names.iter().map(assigned).collect::<Vec<_>>().join(" ");
    let unread = names.iter().find_map(|name| Some((name, modules.parameter(module, name).err()?)));
    if let Some((name, error)) = unread {
        let why = match modules.has(module) {
            true => format!("{} {error}", path(module, name)),
            false => format!("{module} is not loaded, so that its options are not known"),
        };
        return Ok(vec![unfit(module, wanted, why)]);
    }
    let mut settings = Vec::new();
    if modules.is_built_in(module) {
        for name in names {
            settings.extend(argument(ctx, &format!("{module}.{name}"), &text, None)?);
        }
    } else {
        let content = format!("{WRITTEN}options {module} {wanted}\n");
        // A name of its own for each, as a knob that is kept takes its file away.
        let name = names[0].replace('_', "-");
        let path = HostPath::new(format!("/etc/modprobe.d/rtkvm-tune-{name}.conf"));
        let file = Resource::File(OwnedFile { path, content, mode: 0o644 });
        settings.push(Setting { note: Some(INITRAMFS), ..Setting::new("modprobe", file) });
    }
    settings.extend(names.iter().map(|name| {
        let writable = modules.parameter(module, name).is_ok_and(|(_, writable)| writable);
        let resource = Resource::Attribute(Attribute {
            path: path(module, name),
            want: want.clone(),
            fixed: None,
            until_boot: !writable,
        });
        Setting::new(format!("parameter {name}"), resource)
    }));
    Ok(settings)
}

const WRITTEN: &str = "# Written by rtkvm-tune; changes are lost at the next apply.\n";
const INITRAMFS: &str = "options of kvm are taken when it is loaded: where the initramfs has it (`lsinitramfs`, `lsinitrd`), \
    make that anew before the reboot by `update-initramfs -u` or `dracut -f`";
