#!/bin/busybox sh
# The first process of a recorded machine: brings up its devices, records it, sends the record through a
# virtio port (the serial port carries the kernel's messages) and powers off.
/bin/busybox mount -t proc -o nosuid,nodev,noexec proc /proc
/bin/busybox mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t tmpfs tmpfs /tmp
PATH=/bin:/sbin:/usr/bin:/usr/sbin
export PATH
# In a folder of its own: a real machine has no busybox in /usr/sbin.
busybox mkdir -p /tmp/bin
busybox --install -s /tmp/bin
PATH=/usr/bin:/tmp/bin:/bin

note() { echo "$*" >>/tmp/notes; }

while read -r module; do
    insmod "/modules/$module.ko" || note "module $module: not loaded"
done </modules/order
for link in lo eth0; do
    ip link set "$link" up || note "network device $link: not there"
done

. /machine.sh

# Boot leaves callbacks and half-started kernel threads; a machine at rest is what is to be recorded.
sleep 2
rtkvm-tune capture >/tmp/capture 2>/tmp/messages
status=$?
while read -r message; do
    note "rtkvm-tune: $message"
done </tmp/messages
read -r up rest </proc/uptime
note "up for $up s, online CPUs $(cat /sys/devices/system/cpu/online), nodes $(cat /sys/devices/system/node/online)"
insmod /modules/virtio_console.ko
until [ -e "$(echo /dev/vport*p1)" ]; do
    sleep 1
done
{
    cat /tmp/notes
    echo "capture begins"
    cat /tmp/capture
    echo "capture ends: status $status, $(wc -c </tmp/capture) bytes"
} >"$(echo /dev/vport*p1)"
poweroff -f
