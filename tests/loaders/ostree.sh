#!/bin/sh
# An emulated ostree machine, by the real ostree.
#
#   sh ostree.sh init DIR ARGUMENT...    makes it, with a deployment that has these kernel arguments
#   sh ostree.sh upgrade DIR             deploys another kernel, as an upgrade does
#
# Needs the package ostree. Deployments are immutable to others: they are made where that flag is to be had or not needed.
set -eu

verb=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
shift 2
export OSTREE_SYSROOT="$dir"
# No deployment runs, so that none is booted by a name of its own; the boot loader's files are all that is made.
commit() {
    tree=$(mktemp -d)
    mkdir -p "$tree/usr/lib/modules/$1" "$tree/usr/etc" "$tree/usr/lib"
    printf 'NAME=Fixture\nID=fixture\nPRETTY_NAME="Fixture %s"\nVERSION_ID=1\n' "$1" >"$tree/usr/lib/os-release"
    printf 'NAME=Fixture\nID=fixture\nPRETTY_NAME="Fixture %s"\nVERSION_ID=1\n' "$1" >"$tree/usr/etc/os-release"
    echo "kernel $1" >"$tree/usr/lib/modules/$1/vmlinuz"
    echo "initramfs $1" >"$tree/usr/lib/modules/$1/initramfs.img"
    ostree --repo="$dir/ostree/repo" commit --branch=fixture --tree=dir="$tree" --bootable \
        --subject="$1" --owner-uid=0 --owner-gid=0 >/dev/null
    rm -rf "$tree"
}

case $verb in
init)
    ostree admin init-fs --modern "$dir"
    ostree admin os-init --sysroot="$dir" fixture >/dev/null
    commit 6.1.0
    words=
    for word; do words="$words --karg-append=$word"; done
    # shellcheck disable=SC2086
    ostree admin deploy --sysroot="$dir" --os=fixture $words fixture >/dev/null
    ;;
upgrade)
    commit 6.2.0
    ostree admin deploy --sysroot="$dir" --os=fixture fixture >/dev/null
    ;;
*)
    echo "ostree.sh: no verb $verb" >&2
    exit 1
    ;;
esac
