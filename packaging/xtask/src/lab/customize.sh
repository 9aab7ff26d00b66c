#!/bin/sh
# Run by mmdebstrap: customize.sh ROOT. Turns a fresh Debian tree into a host that boots fast under emulation,
# can be reached through ssh with the key in $LAB_KEY, and boots by its own GRUB once `prepare.sh` ran in it.
set -eu
root=$1
echo lab >"$root/etc/hostname"
printf '127.0.0.1 localhost lab\n' >"$root/etc/hosts"
printf '/dev/vda1 / ext4 noatime,errors=remount-ro 0 0\n' >"$root/etc/fstab"

# The address that QEMU's user network forwards to. No route leads out of it.
cat >"$root/etc/systemd/network/lab.network" <<TEXT
[Match]
Name=en* eth*
[Network]
Address=10.0.2.15/24
LinkLocalAddressing=no
IPv6AcceptRA=no
TEXT
install -d -m 700 "$root/root/.ssh"
install -m 600 "$LAB_KEY" "$root/root/.ssh/authorized_keys"
cat >"$root/etc/ssh/sshd_config.d/lab.conf" <<TEXT
PermitRootLogin prohibit-password
UseDNS no
UsePAM no
Ciphers chacha20-poly1305@openssh.com,aes128-ctr
TEXT

# Only what the emulated disk needs: a small archive loads and unpacks sooner.
sed -i 's/^MODULES=.*/MODULES=list/; s/^COMPRESS=.*/COMPRESS=lz4/' "$root/etc/initramfs-tools/initramfs.conf"
printf 'virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n' >>"$root/etc/initramfs-tools/modules"

# The newest but one PREEMPT_RT kernel of the release. The newest is kept as a package, for the test of a kernel
# update, without drivers that the emulated machine has no use for: under emulation they would take minutes.
# Never 6.1.0-55, which is 6.1.192-1: once memory was short its ext4 fails at the next file (Debian bug 1154101).
kernels=$(chroot "$root" apt-cache pkgnames linux-image- | grep -Ex 'linux-image-[0-9.]+-[0-9]+-rt-amd64' |
    grep -vx linux-image-6.1.0-55-rt-amd64 | sort -V)
new=$(echo "$kernels" | tail -n 1)
old=$(echo "$kernels" | tail -n 2 | head -n 1)
[ "$old" != "$new" ] || { echo "the release has one PREEMPT_RT kernel only: $kernels" >&2; exit 1; }
chroot "$root" apt-get install --yes --quiet "$old"
update=$root/var/cache/lab
mkdir -p "$update"
(cd "$update" && chroot "$root" sh -c "cd /var/cache/lab && apt-get --quiet --option APT::Sandbox::User=root download $new")
dpkg-deb --raw-extract "$update"/*.deb "$update/tree"
rm "$update"/*.deb
for modules in "$update"/tree/lib/modules/*/kernel; do
    for unused in sound drivers/gpu drivers/media drivers/infiniband drivers/scsi drivers/staging drivers/iio drivers/usb \
        drivers/hid drivers/input drivers/mtd drivers/target drivers/video drivers/net/ethernet drivers/net/wireless \
        drivers/net/usb drivers/net/can drivers/net/phy drivers/isdn net/bluetooth net/sctp net/sched fs/xfs fs/btrfs; do
        rm -rf "${modules:?}/$unused"
    done
done
dpkg-deb --root-owner-group -Znone --build "$update/tree" "$update/kernel.deb"
rm -rf "$update/tree"

# no_timer_check: on a busy computer the emulated timer may not tick in the moment in which the kernel tries it.
# mitigations=off: a retpoline is slower than anything else under emulation, and protects nobody here.
# init_on_alloc=0: otherwise a huge page allocated at run time is zeroed, and takes real memory of the machine below.
cat >"$root/etc/default/grub" <<TEXT
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX="console=ttyS0 init_on_alloc=0 no_timer_check mitigations=off"
GRUB_TERMINAL=serial
GRUB_DISABLE_OS_PROBER=true
GRUB_DISABLE_RECOVERY=true
TEXT
mkdir -p "$root/boot/grub"

# For the test of what a guest does with its seed, which lets it start; it leaves the network and root's key alone.
printf 'datasource_list: [NoCloud, None]\nnetwork: {config: disabled}\ndisable_root: false\nssh_deletekeys: false\n' \
    >"$root/etc/cloud/cloud.cfg.d/99-lab.cfg"
touch "$root/etc/cloud/cloud-init.disabled"

# Every namespace, filter and BPF program of a service costs process 1 more than half of its time under emulation.
install -d "$root/etc/systemd/system/service.d" "$root/etc/systemd/system/libvirtd.service.d"
cat >"$root/etc/systemd/system/service.d/lab.conf" <<TEXT
[Service]
SystemCallFilter=
SystemCallArchitectures=
RestrictAddressFamilies=
RestrictNamespaces=no
RestrictRealtime=no
RestrictSUIDSGID=no
MemoryDenyWriteExecute=no
LockPersonality=no
ProtectSystem=no
ProtectHome=no
ProtectClock=no
ProtectControlGroups=no
ProtectHostname=no
ProtectKernelLogs=no
ProtectKernelModules=no
ProtectKernelTunables=no
ProtectProc=default
PrivateTmp=no
PrivateDevices=no
PrivateMounts=no
ReadWritePaths=
IPAddressDeny=
DeviceAllow=
DevicePolicy=auto
LoadCredential=
SetCredential=
TEXT
# Drivers that nothing here needs. Each tests itself, or waits for a device, and every CPU asks for the first seven.
for module in aesni_intel ghash_clmulni_intel crct10dif_pclmul crc32_pclmul sha512_ssse3 sha256_ssse3 sha1_ssse3 cfg80211 \
    ahci parport_pc ppdev iTCO_wdt i2c_i801 lpc_ich pcspkr psmouse evdev serio_raw button qemu_fw_cfg; do
    echo "blacklist $module"
done >"$root/etc/modprobe.d/lab.conf"

# It asks once whether there is KVM, and here it starts before udev has come to that.
printf '[Service]\nExecStartPre=-/sbin/modprobe --quiet kvm_amd\n' >"$root/etc/systemd/system/libvirtd.service.d/lab.conf"

chroot "$root" systemctl enable systemd-networkd ssh
# The peer to compare with; it starts when a test says so.
chroot "$root" systemctl disable tuned
chroot "$root" systemctl mask systemd-networkd-wait-online systemd-binfmt systemd-timesyncd e2scrub_reap \
    modprobe@drm modprobe@loop modprobe@efi_pstore modprobe@dm_mod modprobe@fuse modprobe@configfs sys-kernel-config.mount \
    sys-fs-fuse-connections.mount systemd-network-generator systemd-update-utmp systemd-update-utmp-runlevel \
    systemd-rfkill.socket systemd-initctl.socket systemd-fsckd.socket systemd-journald-audit.socket \
    systemd-user-sessions systemd-random-seed systemd-sysusers \
    getty@tty1 apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
rm -f "$root/etc/libvirt/qemu/networks/autostart/default.xml"
chroot "$root" passwd -d root
mkdir -p "$root/var/log/journal"

# What mmdebstrap told dpkg to leave out, our own package shall bring.
rm -f "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin
