# Everything that apply could change, and much that it must not, as one JSON object: a path and its text, or the text's hash.
# One process: under emulation each further one takes as long as reading a hundred files.
import glob, hashlib, json, os, re

HASHED = ["/etc", "/boot", "/usr/lib/systemd", "/usr/lib/tmpfiles.d", "/usr/lib/sysctl.d", "/var/lib/rtkvm-tune"]
READ = """
/proc/irq/default_smp_affinity /proc/irq/*/smp_affinity_list /sys/devices/virtual/workqueue/cpumask
/sys/devices/virtual/workqueue/*/cpumask /proc/sys/kernel/*_watchdog /proc/sys/kernel/hung_task_timeout_secs
/proc/sys/kernel/timer_migration /proc/sys/kernel/numa_balancing /sys/kernel/rcu_normal /sys/kernel/mm/ksm/run
/sys/kernel/mm/transparent_hugepage/enabled /sys/devices/system/cpu/cpu*/power/pm_qos_resume_latency_us
/sys/devices/system/cpu/cpu*/power/energy_perf_bias /sys/devices/system/machinecheck/machinecheck0/ignore_ce
/sys/devices/system/cpu/cpufreq/policy*/scaling_governor /sys/devices/system/node/node*/hugepages/*/nr_hugepages
/proc/sys/vm/* /proc/sys/kernel/sched_* /sys/module/kvm/parameters/* /sys/devices/system/cpu/cpu*/online
"""
THREAD = re.compile(r"\d+ \((?:ksoftirqd|ktimers|rcuc|rcub)/\d+\) ")
POLICIES = {0: "OTHER", 1: "FIFO"}


def read(path):
    with open(path, "rb") as file:
        return file.read()


state = {}
for top in HASHED:
    for folder, folders, files in os.walk(top):
        for path in (os.path.join(folder, name) for name in folders + files):
            if os.path.islink(path):
                state[path] = "-> " + os.readlink(path)
            elif os.path.isfile(path):
                state[path] = hashlib.sha1(read(path)).hexdigest()
for path in (path for pattern in READ.split() for path in glob.glob(pattern)):
    try:
        state[path] = read(path).decode().rstrip("\n")
    except OSError:
        # Some can be written only.
        continue
for path in glob.glob("/proc/[0-9]*/stat"):
    try:
        text = read(path).decode(errors="replace")
    except OSError:
        # It has ended.
        continue
    if THREAD.match(text):
        fields = text.rsplit(")")[-1].split()
        priority, policy = fields[37], int(fields[38])
        state[path] = POLICIES.get(policy, str(policy)) + (" " + priority if policy else "")
print(json.dumps(state))
