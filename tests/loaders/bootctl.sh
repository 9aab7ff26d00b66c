#!/bin/sh
# What the real bootctl makes of the entries of an emulated machine, as JSON.
#
#   sh bootctl.sh DIR
#
# bootctl takes only a file system of its own for the boot partition: DIR/boot is copied into one, in a private mount
# namespace. Needs bootctl (package systemd-boot), util-linux, and root or unprivileged user namespaces.
set -eu

if [ "${1-}" = --alone ]; then
    mount -t tmpfs boot "$3"
    cp -a "$2/boot/." "$3"
    exec env SYSTEMD_RELAX_ESP_CHECKS=1 bootctl --esp-path="$3" --no-pager --json=short list
fi
dir=$(cd "$1" && pwd)
at=$(mktemp -d)
trap 'rmdir "$at"' EXIT
if [ "$(id -u)" -eq 0 ]; then map=; else map=--map-root-user; fi
unshare $map --mount -- sh "$0" --alone "$dir" "$at"
