# Runs a command several times in a host and prints, of each: its exit status, seconds of wall clock, seconds of processor
# time and KiB of memory at most; of its own process and of the daemon that works for it (a systemd unit, or `-`).
import os, resource, subprocess, sys, time

unit, times, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
ticks = os.sysconf("SC_CLK_TCK")


def daemon():
    """Processor time and peak memory of the unit's main process."""
    if unit == "-":
        return 0.0, 0
    show = ["systemctl", "show", "--property=MainPID", "--value", unit]
    pid = subprocess.run(show, capture_output=True, check=True, text=True).stdout.strip()
    fields = open(f"/proc/{pid}/stat").read().rsplit(")")[-1].split()
    status = open(f"/proc/{pid}/status").read().split()
    # What it waited for, its own children, is in the third and the fourth.
    return sum(int(field) for field in fields[11:15]) / ticks, int(status[status.index("VmHWM:") + 1])


for _ in range(times):
    before, _ = daemon()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        quiet = os.open("/dev/null", os.O_RDWR)
        for fd in range(3):
            os.dup2(quiet, fd)
        os.execvp(command[0], command)
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - start
    after, memory = daemon()
    cpu = usage.ru_utime + usage.ru_stime + after - before
    print(os.waitstatus_to_exitcode(status), wall, cpu, max(usage.ru_maxrss, memory))
