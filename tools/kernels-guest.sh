#!/bin/busybox sh
# The first process of a kernel that tools/kernels.sh has booted: runs the tests once with each hook set, says what came of it
# on the second serial port, turns the machine off.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
results=/dev/ttyS1
[ "$(uname -m)" != aarch64 ] || results=/dev/ttyS0
exec >$results 2>&1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t securityfs security /sys/kernel/security
mount -t tracefs trace /sys/kernel/tracing
mount -t debugfs debug /sys/kernel/debug
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /dev/shm /dev/pts
chmod 1777 /tmp /dev/shm
ip link set lo up
hostname guest
# A program that another thread interrupts on the same processor is skipped there. Here it runs many times as long as on a machine: turns
# of threads are made as much longer, or that would happen all the time.
scheduler=/sys/kernel/debug/sched
[ ! -e $scheduler/base_slice_ns ] || { echo 100000000 >$scheduler/base_slice_ns && echo NO_WAKEUP_PREEMPTION >$scheduler/features; }
echo "== kernel $(uname -r)"
sets=$(sed -n 's/.*spantap.hooks=\([^ ]*\).*/\1/p' /proc/cmdline)
cases=$(sed -n 's/.*spantap.cases=\([^ ]*\).*/\1/p' /proc/cmdline)
filter=$(sed -n 's/.*spantap.filter=\([^ ]*\).*/\1/p' /proc/cmdline)
# Without bpftool what the kernel has compiled of them is counted, which is more than one for some.
echo 1 >/proc/sys/net/core/bpf_jit_kallsyms
programs() {
    if [ -e /bin/bpftool ]; then bpftool prog show 2>/dev/null | grep -c '^[0-9]*: '; else grep -c 'bpf_prog_' /proc/kallsyms; fi
}
before=$(programs)
for set in $(echo "$sets" | tr , ' '); do
    echo "== begin $set"
    SPANTAP_HOOKS=$set /spantap/spantap-agent doctor 2>&1
    start=$(cut -d. -f1 /proc/uptime)
    SPANTAP_CASES=$cases SPANTAP_PATIENCE=5 SPANTAP_HOOKS=$set /spantap/hard_traffic --color=never $filter 2>&1
    code=$?
    sleep 1
    echo "== left $(($(programs) - before))"
    echo "== end $set $code after $(($(cut -d. -f1 /proc/uptime) - start)) s"
done
sync
# Closing the port waits until its last bytes are out.
exec >/dev/null 2>&1
poweroff -f
