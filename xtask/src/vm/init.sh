#!/bin/busybox sh
# The first process: puts a layer in memory over the machine's files, and goes on there.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
echo "vm: up"
for module in /modules/*; do [ -e "$module" ] && insmod "$module"; done
mount -t virtiofs -o ro machine /lower || poweroff -f
mount -t tmpfs upper /upper
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /root || poweroff -f
for directory in dev proc sys; do mount --move /$directory /root/$directory; done
exec switch_root /root /bin/bash @SCRIPT@
