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
of() { sed -n "s/.*spantap\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
sets=$(of hooks) cases=$(of cases) filter=$(of filter) suites=$(of suites) requests=$(of requests)
# A program that another thread interrupts on the same processor is skipped there. Here it runs many times as long as on a machine: turns
# of threads are made as much longer, or that would happen all the time. The suite that counts what is skipped does without.
scheduler=/sys/kernel/debug/sched
case $suites in
*hard_traffic*)
    [ ! -e $scheduler/base_slice_ns ] || { echo 100000000 >$scheduler/base_slice_ns && echo NO_WAKEUP_PREEMPTION >$scheduler/features; }
    ;;
esac
echo "== kernel $(uname -r)"
echo "preemption: $(cat $scheduler/preempt 2>/dev/null), kernel.unprivileged_bpf_disabled: $(cat /proc/sys/kernel/unprivileged_bpf_disabled)"
# Without bpftool what the kernel has compiled of them is counted, which is more than one for some.
echo 1 >/proc/sys/net/core/bpf_jit_kallsyms
programs() {
    if [ -e /bin/bpftool ]; then bpftool prog show 2>/dev/null | grep -c '^[0-9]*: '; else grep -c 'bpf_prog_' /proc/kallsyms; fi
}
before=$(programs)
for set in $(echo "$sets" | tr , ' '); do
    echo "== begin $set"
    # With all that may be asked for: every program that there is goes through this kernel's verifier.
    SPANTAP_HOOKS=$set SPANTAP_LINKS_EXPERIMENTAL=tokio OTEL_EBPF_BPF_CONTEXT_PROPAGATION=headers SPANTAP_ACCEPT_WRONG_FIONREAD=true \
        /spantap/spantap-agent doctor 2>&1
    start=$(cut -d. -f1 /proc/uptime)
    code=0
    for suite in $(echo "$suites" | tr , ' '); do
        SPANTAP_CASES=$cases REQUESTS=$requests SPANTAP_PATIENCE=5 SPANTAP_HOOKS=$set /spantap/$suite --color=never $filter 2>&1 || code=$?
    done
    sleep 1
    echo "== left $(($(programs) - before))"
    echo "== end $set $code after $(($(cut -d. -f1 /proc/uptime) - start)) s"
done
sync
# Closing the port waits until its last bytes are out.
exec >/dev/null 2>&1
poweroff -f
