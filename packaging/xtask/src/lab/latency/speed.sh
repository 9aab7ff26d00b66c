# What an audit and a second apply cost, each bound to CPU 0, so that nothing else has instructions meanwhile. Sourced by the
# machine's first process.

# Nothing starts units here. Neither a second apply nor TuneD asks for one while it is measured.
printf '#!/bin/sh\n' >/usr/bin/systemctl
printf '#!/bin/sh\n' >/usr/bin/udevadm
chmod 755 /usr/bin/systemctl /usr/bin/udevadm
taskset -pc 0 $$ >/dev/null

cost() {
    name=$1
    shift
    python3 /speed.py "$@" >"/run/$name" 2>/dev/console
    echo "status $?" >>"/run/$name"
    mark "$name done"
}

rtkvm-tune apply /profile.toml >/run/apply 2>&1
echo "status $?" >>/run/apply
mark applied
cost "rtkvm-tune verify" - "$runs" rtkvm-tune verify /profile.toml
cost "rtkvm-tune apply" - "$runs" rtkvm-tune apply /profile.toml
rtkvm-tune revert >>/run/apply 2>&1
echo "status $?" >>/run/apply

mkdir -p /run/dbus /run/tuned
for_tuned
dbus-daemon --system --fork
command tuned --daemon --pid=/run/tuned/tuned.pid --log=/run/tuned.log
tuned-adm profile realtime-virtual-host >/run/adm 2>&1
echo "status $?" >>/run/adm
mark tuned
cost "tuned-adm verify" /run/tuned/tuned.pid "$runs" tuned-adm verify
cost "tuned-adm profile" /run/tuned/tuned.pid "$runs" tuned-adm profile realtime-virtual-host
for file in apply adm tuned.log "rtkvm-tune verify" "rtkvm-tune apply" "tuned-adm verify" "tuned-adm profile" marks; do
    echo "== $file"
    cat "/run/$file"
done >/dev/ttyS1
echo "== end" >/dev/ttyS1
