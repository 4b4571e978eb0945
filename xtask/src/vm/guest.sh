# Runs as the first process in the machine, where nothing is running yet. What it says to xtask begins with `vm:`.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
exec </dev/null
mkdir -p "/lib/modules/$(uname -r)" /dev/pts /dev/shm
mount --bind "$modules" "/lib/modules/$(uname -r)"
cp -r "$stage" /stage
for directory in /run /dev/shm /tmp; do mount -t tmpfs tmp $directory; done
mount -t devpts pts /dev/pts
ln -s /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${number%:*}" "/dev/${number#*:}"; done
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
modprobe -a tcp_diag tun udp_diag unix_diag 2>/dev/null
ip link set lo up
hostname vm
ulimit -n 65536
export REDIRECTOR_BIN=/stage/redirector REDIRECTOR_TEST_TOOLS="$test_tools"

# run DIRECTORY TEST ARGUMENTS…
run() {
    directory=$1 test=$2 threads=2
    shift 2
    # The tests of the kernel's side alone have their own ideas of time: a processor that is emulated does for one of them.
    if [ -n "$again" ] && [ "$test" != scenarios ]; then threads=1; fi
    echo "vm: runs $test"
    (cd "$directory" && exec "/stage/$test" --test-threads "$threads" "$@") 2>&1 | tee "/tmp/$test"
    status=${PIPESTATUS[0]}
    passed=$(sed -n 's/^test result: .* \([0-9]*\) passed.*/\1/p' "/tmp/$test")
    echo "vm: passed ${passed:-0}"
    [ "$status" = 0 ] && return
    names=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "/tmp/$test" | sort -u)
    # One that ended early has no result; of a failure whose line others broke, the result knows.
    count=$(sed -n 's/^test result: .* \([0-9]*\) failed.*/\1/p' "/tmp/$test")
    [ -n "$names" ] && [ "$(echo "$names" | wc -l)" = "$count" ] || echo "vm: failed $test"
    for name in $names; do
        # A processor that is emulated is slow: what has failed beside others may have starved.
        if [ -n "$again" ] && (cd "$directory" && exec "/stage/$test" --exact "$name") 2>&1 | tee /tmp/again &&
            grep -q '^test result: ok. 1 passed' /tmp/again; then
            echo "vm: again $test: $name"
        else
            echo "vm: failed $test: $name"
        fi
    done
}

"$REDIRECTOR_BIN" check | tee /tmp/check
[ "${PIPESTATUS[0]}" = 0 ] || echo "vm: failed redirector check"
more=
grep -q '^NO  *SO_NETNS_COOKIE ' /tmp/check && without_cookie
if grep -q '^ok  *inspection ' /tmp/check; then
    echo "vm: inspects"
    inspecting
else
    export REDIRECTOR_LAB_DATAPATHS=proxy,auto
    proxying
fi
echo "vm: end"
sync
echo o >/proc/sysrq-trigger
sleep 60
