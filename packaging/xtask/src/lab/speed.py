# Runs a command several times and prints, of each: its exit status, seconds of wall clock, seconds of processor time and KiB
# of memory at most; of its own process and of the daemon that works for it (the file with its PID, or `-`).
import os, sys, time

file, times, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
ticks = os.sysconf("SC_CLK_TCK")


def daemon():
    """Processor time and peak memory of the daemon."""
    if file == "-":
        return 0.0, 0
    pid = open(file).read().strip()
    fields = open(f"/proc/{pid}/stat").read().rsplit(")")[-1].split()
    status = open(f"/proc/{pid}/status").read().split()
    # What it waited for, its own children, is in the third and the fourth.
    return sum(int(field) for field in fields[11:15]) / ticks, int(status[status.index("VmHWM:") + 1])


def run(words):
    """Exit status and usage of a command. Not by fork: to copy this process would count as the command's."""
    quiet = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in range(3)]
    _, status, usage = os.wait4(os.posix_spawnp(words[0], words, os.environ, file_actions=quiet), 0)
    return os.waitstatus_to_exitcode(status), usage


# What is started from here has at least the memory of this process for its maximum, and by a shell that shell's.
_, usage = run(["sh", "-c", '"$@"; exit', "sh"] + command)
peak = usage.ru_maxrss
for _ in range(times):
    before, _ = daemon()
    start = time.monotonic()
    status, usage = run(command)
    wall = time.monotonic() - start
    after, memory = daemon()
    cpu = usage.ru_utime + usage.ru_stime + after - before
    print(status, wall, cpu, max(peak, memory))
