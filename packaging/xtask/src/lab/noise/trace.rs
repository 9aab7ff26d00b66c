//! What the kernel's trace says: what ran on the isolated CPUs, and who made it run.

use std::collections::BTreeMap;

use rtkvm_tune::formats::CpuSet;

/// How often something happened on each CPU.
pub(in crate::lab) type Counts = BTreeMap<u32, u64>;
/// How often each thing happened.
pub(super) type Causes = BTreeMap<String, Counts>;

/// Functions every wake-up and every interrupt to another CPU goes through: they tell nothing.
const COMMON: [&str; 21] = [
    "trace_event_",
    "native_",
    "x2apic_",
    "arch_irq_work_raise",
    "irq_work_queue",
    "__irq_work_queue_local",
    "irq_work_single",
    "generic_exec_single",
    "__smp_call_single_queue",
    "smp_call_function_",
    "on_each_cpu_cond_mask",
    "try_to_wake_up",
    "wake_up_process",
    "wake_up_q",
    "default_wake_function",
    "ttwu_",
    "check_preempt_curr",
    "resched_curr",
    "__queue_work",
    "queue_work_on",
    "kprobe_",
];
/// How many functions of a way are named.
const DEPTH: usize = 4;

struct Event<'a> {
    task: &'a str,
    cpu: u32,
    name: &'a str,
    detail: &'a str,
    stack: Vec<&'a str>,
}

impl<'a> Event<'a> {
    /// A line such as `spin-705 [012] d..h. 56.220575: irq_handler_entry: irq=29 name=ahci`.
    fn parse(line: &'a str) -> Option<Event<'a>> {
        // The kernel writes at least three digits.
        let number =
            |at: usize| line[at + 2..].split_once("] ").map(|(text, _)| text).filter(|text| text.len() > 2);
        let found = |(at, _)| Some((at, number(at)?.parse().ok()?));
        let (at, cpu): (usize, u32) = line.match_indices(" [").find_map(found)?;
        let (_, rest) = line[at..].split_once(": ")?;
        let (name, detail) = rest.split_once(':')?;
        let (task, _pid) = line[..at].trim().rsplit_once('-')?;
        Some(Event { task, cpu, name, detail: detail.trim(), stack: Vec::new() })
    }

    /// The value of `key=value`, up to white space.
    fn field(&self, key: &str) -> Option<&'a str> {
        let (_, value) = self.detail.split_once(&format!("{key}="))?;
        value.split_whitespace().next()
    }

    /// The name of a task, which may have spaces, up to the next key.
    fn comm(&self, key: &str, next: &str) -> Option<&'a str> {
        let (_, rest) = self.detail.split_once(&format!("{key}="))?;
        Some(kind(rest.split_once(&format!(" {next}="))?.0))
    }

    /// Who did it, and where in the kernel: the functions nearest to it first.
    fn sender(&self) -> String {
        let telling = self.stack.iter().filter(|frame| !COMMON.iter().any(|known| frame.starts_with(known)));
        let way: Vec<&str> = telling.take(DEPTH).copied().collect();
        format!("by {} in {}", kind(self.task), if way.is_empty() { "?".into() } else { way.join(" < ") })
    }

    /// What it means for the CPU it happened on; nothing for what brings no interruption.
    fn ran(&self) -> Option<String> {
        Some(match self.name {
            "irq_handler_entry" => format!("interrupt of {}", self.field(" name")?),
            "hrtimer_expire_entry" => format!("hrtimer {}", self.field("function")?),
            "timer_expire_entry" => format!("timer {}", self.field("function")?),
            "tick_stop" if self.field("success")? == "0" => {
                format!("tick kept, because of {}", self.field("dependency")?)
            }
            "workqueue_execute_start" => format!("work {}", self.detail.rsplit_once(' ')?.1),
            "sched_switch" => match self.comm("next_comm", "next_pid")? {
                "swapper" | "spin" => return None,
                task => format!("switch to {task}"),
            },
            _ => return None,
        })
    }

    /// What it makes happen, and on which CPUs.
    fn sent(&self) -> Option<(String, CpuSet)> {
        let what = match self.name {
            "sched_waking" => format!("{} woken", self.comm("comm", "pid")?),
            "workqueue_queue_work" => format!("work {} queued", self.field("function")?),
            "reschedule" => "reschedule interrupt".to_owned(),
            "call_one" | "call_many" => "function call interrupt".to_owned(),
            "irq_work" => "irq_work".to_owned(),
            _ => return None,
        };
        let number = |key| self.field(key).and_then(|text| text.parse::<u32>().ok());
        let cpus = match self.name {
            "irq_work" => CpuSet::from_iter([self.cpu]),
            "workqueue_queue_work" => CpuSet::from_iter([number(" cpu")?]),
            "call_many" => CpuSet::parse_mask(self.field("target_mask")?.strip_prefix("0x")?).ok()?,
            _ => CpuSet::from_iter([number("target_cpu")?]),
        };
        Some((format!("{what} {}", self.sender()), cpus))
    }
}

/// A task's name without the number of its CPU or instance: `kworker/5:1` and `kworker/12:0H` are both `kworker`.
fn kind(task: &str) -> &str {
    match task.split_once('/') {
        Some(("kworker", rest)) if rest.starts_with('u') => "unbound kworker",
        Some(("irq", _)) | None => task,
        Some((name, _)) => name,
    }
}

fn events(text: &str) -> Vec<Event<'_>> {
    let mut found: Vec<Event> = Vec::new();
    for line in text.lines() {
        if let Some(frame) = line.strip_prefix(" => ") {
            if let Some(event) = found.last_mut() {
                event.stack.push(frame.trim());
            }
        } else if !line.contains(": <stack trace>") {
            found.extend(Event::parse(line));
        }
    }
    found
}

/// What ran, from the trace of the isolated CPUs.
pub(super) fn ran(text: &str) -> Causes {
    let mut causes = Causes::new();
    for event in events(text) {
        if let Some(what) = event.ran() {
            *causes.entry(what).or_default().entry(event.cpu).or_default() += 1;
        }
    }
    causes
}

/// Who made something run on the isolated CPUs, from the trace of all.
pub(super) fn sent(text: &str, isolated: &CpuSet) -> Causes {
    let mut causes = Causes::new();
    for (what, cpus) in events(text).iter().filter_map(Event::sent) {
        let counts = causes.entry(what).or_default();
        for cpu in cpus.intersection(isolated).iter() {
            *counts.entry(cpu).or_default() += 1;
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAN: &str = "\
# tracer: nop
#           TASK-PID     CPU#  |||||||  TIMESTAMP  FUNCTION
          <idle>-0       [002] d..h1..    56.045093: hrtimer_expire_entry: hrtimer=00000000450012ad function=tick_sched_timer now=53565378299
          <idle>-0       [012] d..h1..    56.045731: hrtimer_expire_entry: hrtimer=0000000008ce355e function=tick_sched_timer now=53566110233
          <idle>-0       [012] d..h1..    56.046031: hrtimer_expire_entry: hrtimer=0000000008ce355e function=tick_sched_timer now=53566110233
    kworker/15:2-454     [015] .......    56.053500: workqueue_execute_start: work struct 00000000247e6962: function psi_avgs_work
          <idle>-0       [010] d...1..    56.260784: tick_stop: success=1 dependency=NONE
          <idle>-0       [005] d...1..    56.260784: tick_stop: success=0 dependency=SCHED
            spin-705     [012] d...2..    56.220720: sched_switch: prev_comm=spin prev_pid=705 prev_prio=120 prev_state=R ==> next_comm=rcuc/12 next_pid=117 next_prio=98
         rcuc/12-117     [012] d...2..    56.220759: sched_switch: prev_comm=rcuc/12 prev_pid=117 prev_prio=98 prev_state=S ==> next_comm=spin next_pid=705 next_prio=120
   kworker/u34:0-89      [011] dn.h1..    56.220021: irq_handler_entry: irq=29 name=virtio0-req.3
       ktimers/6-69      [006] ...s.13    56.056603: timer_expire_entry: timer=00000000967dc342 function=process_timeout now=4294905690 baseclk=4294905689
  a name [1] x-77        [006] d...2..    56.056683: sched_switch: prev_comm=a name [1] x prev_pid=77 prev_prio=120 prev_state=S ==> next_comm=kworker/u32:1 next_pid=511 next_prio=120
";

    #[test]
    fn what_ran_is_named_without_the_numbers_of_its_cpu() {
        let causes = ran(RAN);
        let lines: Vec<String> = causes.iter().map(|(what, counts)| format!("{what}: {counts:?}")).collect();
        assert_eq!(
            lines,
            [
                "hrtimer tick_sched_timer: {2: 1, 12: 2}",
                "interrupt of virtio0-req.3: {11: 1}",
                "switch to rcuc: {12: 1}",
                "switch to unbound kworker: {6: 1}",
                "tick kept, because of SCHED: {5: 1}",
                "timer process_timeout: {6: 1}",
                "work psi_avgs_work: {15: 1}",
            ]
        );
    }

    const SENT: &str = "\
   (udev-worker)-481     [004] d...4..    56.046015: reschedule: (native_smp_send_reschedule+0x0/0x40) target_cpu=7
   (udev-worker)-481     [004] d...4..    56.046023: <stack trace>
 => native_smp_send_reschedule
 => check_preempt_curr
 => ttwu_do_wakeup
 => try_to_wake_up
 => wake_up_q
 => rt_mutex_slowunlock
 => finished_loading
 => load_module
 => __do_sys_finit_module
 => do_syscall_64
   (udev-worker)-469     [014] ....1..    56.053149: call_many: (native_send_call_func_ipi+0x0/0xb0) target_mask=0x2021
   (udev-worker)-469     [014] ....1..    56.053172: <stack trace>
 => native_send_call_func_ipi
 => smp_call_function_many_cond
 => on_each_cpu_cond_mask
 => text_poke_bp_batch
      ktimers/15-142     [015] d..s113    56.053411: workqueue_queue_work: work struct=00000000247e6962 function=psi_avgs_work workqueue=events req_cpu=8192 cpu=15
      ktimers/15-142     [015] d..s113    56.053419: <stack trace>
 => trace_event_raw_event_workqueue_queue_work
 => __queue_work
 => call_timer_fn
      ktimers/15-142     [015] d..s313    56.053427: sched_waking: comm=kworker/15:2 pid=454 prio=120 target_cpu=015
            spin-705     [012] d..h...    56.060889: irq_work: (arch_irq_work_raise+0x0/0x30)
";

    #[test]
    fn who_sent_it_is_named_with_the_way_there() {
        let causes = sent(SENT, &CpuSet::parse_list("2-7,10-15").unwrap());
        let lines: Vec<String> = causes.iter().map(|(what, counts)| format!("{what}: {counts:?}")).collect();
        assert_eq!(
            lines,
            [
                "function call interrupt by (udev-worker) in text_poke_bp_batch: {5: 1, 13: 1}",
                "irq_work by spin in ?: {12: 1}",
                "kworker woken by ktimers in ?: {15: 1}",
                "reschedule interrupt by (udev-worker) in rt_mutex_slowunlock < finished_loading < load_module < \
                 __do_sys_finit_module: {7: 1}",
                "work psi_avgs_work queued by ktimers in call_timer_fn: {15: 1}",
            ]
        );
    }
}
