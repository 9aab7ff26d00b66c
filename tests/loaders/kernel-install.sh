#!/bin/sh
# Adds a kernel to an emulated machine with systemd-boot by the real kernel-install.
#
#   sh kernel-install.sh DIR VERSION
#
# DIR is the root of that machine. kernel-install reads DIR/etc/kernel and writes DIR/boot/loader/entries; of this machine
# it has only the plugin that makes entries. Needs the package systemd.
set -eu

dir=$(cd "$1" && pwd)
image=$(mktemp)
trap 'rm -f "$image"' EXIT
echo kernel >"$image"
mkdir -p "$dir/boot/$(cat "$dir/etc/machine-id")/$2"
export KERNEL_INSTALL_LAYOUT=bls KERNEL_INSTALL_VERBOSE=0 KERNEL_INSTALL_CONF_ROOT="$dir/etc/kernel"
export KERNEL_INSTALL_BOOT_ROOT="$dir/boot" KERNEL_INSTALL_STAGING_AREA=/nonexistent
KERNEL_INSTALL_MACHINE_ID=$(cat "$dir/etc/machine-id")
KERNEL_INSTALL_ENTRY_TOKEN=$KERNEL_INSTALL_MACHINE_ID
export KERNEL_INSTALL_MACHINE_ID KERNEL_INSTALL_ENTRY_TOKEN
# The other plugins look at the modules of the machine that runs.
/usr/lib/kernel/install.d/90-loaderentry.install add "$2" "$dir/boot/$KERNEL_INSTALL_MACHINE_ID/$2" "$image"
