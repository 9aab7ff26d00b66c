#!/bin/sh
# Generates the boot files of an emulated Debian machine with the real grub-mkconfig.
#
#   sh mkconfig.sh DIR
#
# DIR is the root of that machine. Afterwards it holds, as on a machine booted with root=/dev/vda1:
#   etc/default/grub        Debian's own default file (created unless it is there)
#   boot/vmlinuz-*, initrd  empty stand-ins (created unless a vmlinuz-* is there)
#   boot/grub/grub.cfg      written by grub-mkconfig from those, from etc/default/grub.d/*.cfg, and by the scripts in
#                           etc/grub.d beside those of this machine
# Calling it again is the `update-grub` of that machine: edit etc/default/grub.d and call.
#
# grub-mkconfig knows no other root than /. So DIR/etc/default and DIR/boot are bound over /etc/default and
# /boot, and all scripts over /etc/grub.d, in a private mount namespace: this machine's own files are neither read nor written. grub-probe and
# grub-mkrelpath look at real disks, hence stand-ins that describe one ext4 partition, /dev/vda1.
#
# Needs the packages grub-common and grub2-common, and root or unprivileged user namespaces.
set -eu

fail() {
    echo "mkconfig.sh: $1" >&2
    exit 1
}

uuid=0f2c1d2e-7a51-4c7d-9d0b-5a1f3e6b8c90
partuuid=b7e6a1c4-01

if [ "${1-}" = --bound ]; then
    dir=$2
    fakes=$3
    mount --bind "$dir/etc/default" /etc/default
    mount --bind "$dir/boot" /boot
    mount --bind "$fakes/grub.d" /etc/grub.d
    mount --bind "$fakes/grub-probe" /usr/sbin/grub-probe
    mount --bind "$fakes/grub-mkrelpath" /usr/bin/grub-mkrelpath
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C grub-mkconfig -o /boot/grub/grub.cfg
fi

[ $# -eq 1 ] || fail "usage: mkconfig.sh DIR"
for file in /usr/sbin/grub-mkconfig /usr/share/grub/default/grub; do
    [ -e "$file" ] || fail "no $file: install grub2-common"
done
for file in /usr/sbin/grub-probe /usr/bin/grub-mkrelpath /usr/bin/grub-script-check /etc/grub.d/10_linux; do
    [ -e "$file" ] || fail "no $file: install grub-common"
done
command -v unshare >/dev/null || fail "no unshare: install util-linux"

mkdir -p "$1/etc/default/grub.d" "$1/boot/grub"
dir=$(cd "$1" && pwd)
[ -e "$dir/etc/default/grub" ] || cp /usr/share/grub/default/grub "$dir/etc/default/grub"
if ! ls "$dir"/boot/vmlinuz-* >/dev/null 2>&1; then
    : >"$dir/boot/vmlinuz-6.1.0-0-rt-amd64"
    : >"$dir/boot/initrd.img-6.1.0-0-rt-amd64"
fi

fakes=$(mktemp -d)
trap 'rm -rf "$fakes"' EXIT
cat >"$fakes/grub-probe" <<END
#!/bin/sh
for word; do
    case \$word in
    --target=*) target=\${word#--target=} ;;
    esac
done
case \${target-fs} in
device) echo /dev/vda1 ;;
fs) echo ext2 ;;
fs_uuid) echo $uuid ;;
partuuid) echo $partuuid ;;
partmap) echo msdos ;;
hints_string) echo "--hint-bios=hd0,msdos1 --hint-efi=hd0,msdos1 --hint-baremetal=ahci0,msdos1" ;;
compatibility_hint) echo hd0,msdos1 ;;
abstraction | cryptodisk_uuid) ;;
*) exit 1 ;;
esac
END
cat >"$fakes/grub-mkrelpath" <<'END'
#!/bin/sh
for word; do :; done
echo "$word"
END
chmod 755 "$fakes/grub-probe" "$fakes/grub-mkrelpath"
cp -a /etc/grub.d "$fakes/grub.d"
if [ -d "$dir/etc/grub.d" ]; then cp -a "$dir/etc/grub.d/." "$fakes/grub.d"; fi

if [ "$(id -u)" -eq 0 ]; then map=; else map=--map-root-user; fi
unshare $map --mount -- sh "$0" --bound "$dir" "$fakes" ||
    fail "grub-mkconfig failed, or no private mount namespace: run as root or allow user namespaces"
