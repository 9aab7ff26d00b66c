#!/bin/sh
# Run by mmdebstrap: strip.sh ROOT. Takes away what no program in the latency machine needs: each boot unpacks the rest
# from an archive, which is counted in instructions like everything else there.
set -eu
cd "$1"
rm -rf usr/share/doc usr/share/man usr/share/info usr/share/locale usr/share/i18n usr/share/perl* usr/share/X11 \
    usr/share/zoneinfo usr/share/bash-completion usr/share/lintian usr/share/common-licenses usr/share/keyrings \
    usr/share/debconf usr/share/dpkg usr/share/bug usr/share/menu usr/share/pixmaps usr/share/applications \
    usr/share/icons usr/share/python-wheels usr/lib/locale usr/lib/apt usr/lib/systemd usr/lib/udev \
    usr/lib/x86_64-linux-gnu/perl* usr/lib/x86_64-linux-gnu/libperl* usr/lib/x86_64-linux-gnu/gconv \
    usr/lib/x86_64-linux-gnu/dri usr/lib/x86_64-linux-gnu/systemd usr/lib/x86_64-linux-gnu/libapt* \
    usr/bin/perl* usr/bin/apt* usr/bin/dpkg* usr/bin/localedef usr/bin/systemd* usr/bin/journalctl usr/bin/systemctl \
    var/lib/apt var/lib/dpkg var/cache/* boot/*
for folder in test distutils lib2to3 idlelib ensurepip pydoc_data unittest config-; do
    rm -rf usr/lib/python3.*/"$folder"*
done
mkdir -p modules
