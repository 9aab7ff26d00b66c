#!/bin/sh
# First process of the machine. /state sets: phase (probe, measure, speed), base (untuned, tuned, ours), seconds,
# turn, shift, runs.
# What it finds leaves by the second serial port; the first one carries the kernel's messages.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t debugfs debugfs /sys/kernel/debug
. /state
stty -F /dev/ttyS1 raw -echo
ip link set lo up

mark() {
    read -r up rest </proc/uptime
    echo "$up $1" >>/run/marks
}

port() { printf "$2" | dd of=/dev/port bs=1 seek="$1" conv=notrunc 2>/dev/null; }

# A deadline of the virtual clock every $turn periods of 1.193182 MHz: a processor's turn ends there at the latest. The
# i8254's counter 0 in mode 2; nothing hears its interrupt, since the kernel was told disable_timer_pin_1.
short_turns() {
    port 67 '\064'
    port 64 "\\$(printf %03o "$turn")"
    port 64 '\000'
}

# What TuneD finds of this machine.
for_tuned() {
    echo "isolated_cores=1" >/etc/tuned/realtime-virtual-host-variables.conf
    mkdir -p /etc/default /boot/grub
    : >/etc/default/grub
    # Without these it does not say which kernel arguments it wants.
    printf '### BEGIN /etc/grub.d/00_header ###\n### END /etc/grub.d/00_header ###\n' >/boot/grub/grub.cfg
}

# TuneD, in the place of its service: it applies the profile and ends.
tuned() {
    for_tuned
    sed -i 's/^daemon *=.*/daemon = 0/' /etc/tuned/tuned-main.conf
    echo realtime-virtual-host >/etc/tuned/active_profile
    echo manual >/etc/tuned/profile_mode
    command tuned --no-dbus --profile realtime-virtual-host --log=/run/tuned.log
}

# Timers, processes, sockets, memory and files, block requests, and caches that are dropped: all on CPU 0.
load() {
    cd /tmp || return
    taskset -c 0 stress-ng --no-rand-seed --timer 1 --timer-freq 2000 --fork 1 --sock 1 --vm 1 --vm-bytes 32M \
        --hdd 1 --hdd-bytes 8M --timeout 0 >/run/stress 2>&1 &
    taskset -c 0 sh -c 'while :; do
        dd if=/dev/nullb0 of=/dev/null bs=64k count=64
        dd if=/dev/zero of=/dev/nullb0 bs=64k count=64 conv=fsync
    done' >/dev/null 2>&1 &
    taskset -c 0 sh -c 'while :; do echo 3 >/proc/sys/vm/drop_caches; sleep 0.05; done' &
    cd /
}

snapshot() {
    mkdir "/run/$1"
    cat /proc/interrupts >"/run/$1/interrupts"
    cat /proc/softirqs >"/run/$1/softirqs"
    grep -E '^cpu#|nr_switches' /sys/kernel/debug/sched/debug >"/run/$1/switches"
}

measure() {
    name=$1
    shift
    snapshot "$name-before"
    "$@" >"/run/$name" 2>&1
    echo "status $?" >>"/run/$name"
    snapshot "$name-after"
    mark "$name done"
}

print() {
    for file in apply tuned.log stress; do
        [ ! -e "/run/$file" ] || { echo "== $file"; cat "/run/$file"; }
    done
    echo "== marks"
    cat /run/marks
    echo "== cmdline"
    cat /proc/cmdline
    for name in cyclictest oslat; do
        echo "== $name"
        cat "/run/$name"
        for table in interrupts softirqs switches; do
            for when in before after; do
                echo "== $name $table $when"
                cat "/run/$name-$when/$table"
            done
        done
    done
    echo "== end"
}

mark started
if [ "$phase" = probe ]; then
    rtkvm-tune capture >/run/capture 2>/dev/console
    tuned
    for file in /run/capture /etc/tuned/bootcmdline /run/tuned.log; do
        echo "== ${file##*/}"
        cat "$file"
    done >/dev/ttyS1
    echo "== end" >/dev/ttyS1
elif [ "$phase" = speed ]; then
    . /speed.sh
else
    while read -r module; do
        case $module in
            null_blk) insmod "/modules/$module.ko" queue_mode=2 irqmode=2 nr_devices=1 gb=1 submit_queues=2 ;;
            *) insmod "/modules/$module.ko" ;;
        esac
    done </modules/order
    case $base in
        tuned) tuned ;;
        ours)
            rtkvm-tune apply --runtime /profile.toml >/run/apply 2>&1
            echo "status $?" >>/run/apply
            ;;
    esac
    mark set
    taskset -pc 0 $$ >/dev/null
    short_turns
    load
    sleep "$shift"
    mark loaded
    measure cyclictest taskset -c 0 cyclictest --default-system -m -q -p95 --policy=fifo -a 1 -t 1 --mainaffinity=0 \
        -i 200 -D "$seconds" -h 2000
    measure oslat taskset -c 0,1 oslat -c 1 -C 0 -f 1 -D "$seconds" -q -b 128
    print >/dev/ttyS1
fi
# Until the port has sent it all.
sleep 0.2
echo o >/proc/sysrq-trigger
sleep 10
