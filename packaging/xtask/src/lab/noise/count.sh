# Run in the host after lines that set: seconds; policy (idle, fifo, other); busy (the CPUs of the busy loops, with
# spaces between); housekeeping (a list); isolated_mask; and filters for trace events: on_target, on_cpu, on_mask,
# on_sender. Counts what happens on the isolated CPUs while the others work, and prints it.
set -eu
taskset -pc "$housekeeping" $$ >/dev/null
work=$(mktemp -d /run/noise.XXXXXX)
tracing=/sys/kernel/tracing
here=$tracing/instances/here
senders=$tracing/instances/senders
children=
guard=

finish() {
    kill $children $guard 2>/dev/null || true
    rm -rf "$work" /root/noise.load
    for instance in "$here" "$senders"; do
        [ ! -d "$instance" ] || { echo 0 >"$instance/events/enable"; rmdir "$instance"; } || true
    done
    echo >"$tracing/kprobe_events" || true
}
trap finish EXIT

# Load: forks and timers, disk, network.
(while :; do sleep 0.05; done) &
children="$children $!"
(while :; do dd if=/dev/zero of=/root/noise.load bs=64k count=64 conv=fsync; sleep 0.2; done) 2>/dev/null &
children="$children $!"
busybox nc -l -p 5001 >/dev/null &
children="$children $!"
(sleep 1; while :; do dd if=/dev/zero bs=16k count=8; sleep 0.1; done | busybox nc 127.0.0.1 5001) 2>/dev/null &
children="$children $!"

# What runs on the isolated CPUs, in one buffer; who on any CPU makes it run, with the way there, in another. Before the
# loops start: setting up the buffers waits for a kernel thread of every CPU, which a SCHED_FIFO loop would starve.
echo >"$tracing/kprobe_events"
mkdir "$here" "$senders"
for instance in "$here" "$senders"; do
    echo 0 >"$instance/tracing_on"
    echo 0 >"$instance/options/overwrite"
done
# KiB for each CPU: all of a quiet machine, the beginning of a loud one.
echo 256 >"$here/buffer_size_kb"
echo 128 >"$senders/buffer_size_kb"
echo "$isolated_mask" >"$here/tracing_cpumask"
for event in irq/irq_handler_entry sched/sched_switch timer/hrtimer_expire_entry timer/timer_expire_entry \
    timer/tick_stop workqueue/workqueue_execute_start; do
    echo 1 >"$here/events/$event/enable"
done
echo 1 >"$senders/options/stacktrace"
cat >"$tracing/kprobe_events" <<TEXT
p:lab/reschedule native_smp_send_reschedule target_cpu=%di:s32
p:lab/call_one native_send_call_func_single_ipi target_cpu=%di:s32
p:lab/call_many native_send_call_func_ipi target_mask=+0(%di):x64
p:lab/irq_work arch_irq_work_raise
TEXT
while read -r event filter; do
    echo "$filter" >"$senders/events/$event/filter"
    echo 1 >"$senders/events/$event/enable"
done <<TEXT
sched/sched_waking $on_target
workqueue/workqueue_queue_work $on_cpu
lab/reschedule $on_target
lab/call_one $on_target
lab/call_many $on_mask
lab/irq_work $on_sender
TEXT
loops=
for cpu in $busy; do
    case $policy in
        fifo) taskset -c "$cpu" chrt --fifo 1 /root/spin & ;;
        other) taskset -c "$cpu" /root/spin & ;;
        idle) continue ;;
    esac
    loops="$loops $cpu:$!"
    children="$children $!"
done
# Whatever waits for such a thread goes on when the loops are over.
(sleep $((seconds + 120)); kill $children) >/dev/null 2>&1 &
guard=$!

# Until what was just set up has come to rest.
sleep 5

snapshot() {
    mkdir "$work/$1"
    cd "$work/$1"
    cat /proc/interrupts >interrupts
    cat /proc/softirqs >softirqs
    cut -d ' ' -f 1 /proc/uptime >uptime
    grep -E '^cpu#|nr_switches' /sys/kernel/debug/sched/debug >switches
    for loop in $loops; do
        echo "${loop%:*}" $(sed -n 's/^\(non\)\?voluntary_ctxt_switches:\t//p' "/proc/${loop#*:}/status")
    done >loops
    cd /
}

for instance in "$here" "$senders"; do echo 1 >"$instance/tracing_on"; done
snapshot before
sleep "$seconds"
snapshot after
for instance in "$here" "$senders"; do echo 0 >"$instance/tracing_on"; done
kill $children 2>/dev/null || true
children=

for file in uptime interrupts softirqs switches loops; do
    for when in before after; do
        echo "== $file $when"
        cat "$work/$when/$file"
    done
done
echo "== trace here"
cat "$here/trace"
echo "== trace senders"
cat "$senders/trace"
echo "== dropped"
for instance in "$here" "$senders"; do
    sed -n 's/^dropped events: //p' "$instance"/per_cpu/cpu*/stats
done
