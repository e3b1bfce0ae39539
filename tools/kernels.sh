#!/usr/bin/env bash
# The end-to-end tests on stock kernels of Debian, each booted under QEMU; tables of kernels, hook sets, cases and features.
# Which features are on is asked of the agent's doctor, which loads all programs as a start does; which have to be on and which off
# stands in docs/kernels.md ("Features by kernel"): anything else is a failure.
#   tools/kernels.sh [KERNEL[:HOOKS[:PARAMETER]] …]   such as 6.1, 6.12:tracepoint, 7.2:fentry,kprobe, 6.12-arm64, 6.12:fentry:preempt=full
#                                                      (of the kernel's command line); without any: all of x86-64
# Environment: CASES (names of cases, with commas), FILTER (part of their names), SUITES (hard_traffic; differential, which takes all
# sets by itself; both with a comma), REQUESTS (of each load there), BIN_DIR (programs; target/debug),
# TESTS (folder with the compiled suites; without they are built), CPUS (of each machine, 2), MEMORY (2G), LIMIT (seconds for a kernel with one hook set, 900),
# TOTAL (seconds for all of them, no bound without), APPEND (added to the kernels' command lines), KEEP=1 (leaves the logs),
# SPANTAP_SKIPS (file for what is skipped).
# What runs on kernels for arm64 is built here, by tools/arm64.sh: BIN_DIR and TESTS are those of x86-64.
# Exit code: 0 all passed · 1 a case failed, a feature is not what docs/kernels.md says, or a kernel did not boot · 3 cannot be had here (said on standard error) ·
# 4 nothing failed, and time was too short for some of it (a SKIP for each).
# No disk, no modules, no network: kernel and initramfs alone. Kernels are kept in ~/.cache/spantap/kernels.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=${BIN_DIR:-$root/target/debug}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/spantap/kernels
PATH=$PATH:$HOME/.cargo/bin:/usr/local/go/bin:/usr/sbin:/sbin
# Longest time for a kernel with one hook set, seconds: everything is emulated, 10 to 50 times slower than a machine.
limit=${LIMIT:-900}
suites=${SUITES:-hard_traffic}

say() { echo "kernels: $*" >&2; }
skip() {
    say "SKIP: $*"
    [[ -z ${SPANTAP_SKIPS:-} ]] || echo "SKIP: kernels: $*" >>"$SPANTAP_SKIPS"
}
lacking() {
    skip "$*"
    exit 3
}

# Debian's suite of each kernel, its package, and the hook sets that it takes.
declare -A suite=([5.10]=bullseye [6.1]=bookworm [6.12]=trixie [7.2]=sid [6.1-arm64]=bookworm [6.12-arm64]=trixie [7.2-arm64]=sid)
declare -A package=([5.10]='linux-image-5.10.*-cloud-amd64' [6.1]='linux-image-6.1.0-[0-9]+-cloud-amd64'
    [6.12]='linux-image-6.12.*\+deb13-cloud-amd64' [7.2]='linux-binary-[7-9].*-cloud-amd64'
    [6.1-arm64]='linux-image-6.1.0-[0-9]+-cloud-arm64' [6.12-arm64]='linux-image-6.12.*\+deb13-cloud-arm64'
    [7.2-arm64]='linux-binary-[7-9].*-cloud-arm64')
declare -A sets=([5.10]=auto,kprobe [6.1]=auto,kprobe [6.12]=fentry,tracepoint,kprobe [7.2]=fentry,tracepoint,kprobe
    [6.1-arm64]=auto [6.12-arm64]=fentry,tracepoint,kprobe [7.2-arm64]=fentry,tracepoint,kprobe)
wanted=("$@")
(( ${#wanted[@]} )) || wanted=(5.10 6.1 6.12 7.2)

processor_of() { [[ $1 == *-arm64 ]] && echo arm64 || echo amd64; }
processors=$(for entry in "${wanted[@]}"; do processor_of "${entry%%:*}"; done | sort -u)
emulators=()
[[ $processors != *amd64* ]] || emulators+=(qemu-system-x86_64:qemu-system-x86)
[[ $processors != *arm64* ]] || emulators+=(qemu-system-aarch64:qemu-system-arm aarch64-linux-gnu-strip:binutils-aarch64-linux-gnu)
for program in "${emulators[@]}" busybox:busybox-static cpio:cpio apt-get:apt dpkg-deb:dpkg; do
    command -v "${program%%:*}" >/dev/null || lacking "${program%%:*} is missing: apt-get install ${program##*:}"
done
for program in spantap spantap-agent subject; do
    [[ $processors != *amd64* || -x $bin/$program ]] || { say "$bin/$program is not there: cargo build --workspace --bins"; exit 1; }
done

# Debian's archive by apt's own means, with a state of its own: nothing of this machine's packages is touched.
apt() {
    APT_CONFIG=$state/apt.conf "$@"
}

update_lists() { # processor
    state=$cache/apt
    [[ $1 == amd64 ]] || state+=-$1
    [[ -e $state/fresh && -n $(find "$state/fresh" -mmin -1440) ]] && return
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    local key=/usr/share/keyrings/debian-archive-keyring.gpg name
    [[ -e $key ]] || lacking "the keys of Debian's archive are missing: apt-get install debian-archive-keyring"
    : >"$state/sources.list"
    for name in bullseye bookworm trixie sid; do
        echo "deb [signed-by=$key] http://deb.debian.org/debian $name main" >>"$state/sources.list"
    done
    echo "deb [signed-by=$key] http://deb.debian.org/debian-security bullseye-security main" >>"$state/sources.list"
    cat >"$state/apt.conf" <<CONF
Dir::Etc::sourcelist "$state/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$state/lists";
Dir::Cache "$state/cache";
APT::Architecture "$1";
APT::Architectures "$1";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
CONF
    say "asking Debian's archive for its kernels"
    apt apt-get -q update >"$state/log" 2>&1 || lacking "Debian's archive cannot be asked: $(tail -n 1 "$state/log")"
    touch "$state/fresh"
}

# Sid drops versions as it moves; what has been fetched stays.
fetch() { # kernel
    local image=$cache/vmlinuz-$1 newest
    [[ -s $image ]] && return
    update_lists "$(processor_of "$1")"
    newest=$(apt apt-cache pkgnames | grep -E "^${package[$1]}\$" | sort -V | tail -n 1)
    [[ -n $newest ]] || lacking "Debian's archive has no ${package[$1]} in ${suite[$1]}"
    say "fetching $newest"
    take "$newest" '*/vmlinuz*' "$image"
}

# A file out of a package.
take() { # package, pattern of its name, where it is put
    local folder
    folder=$(mktemp -d "$cache/fetch.XXXXXX")
    (cd "$folder" && apt apt-get -q download "$1") >"$state/log" 2>&1 ||
        { rm -rf "$folder"; lacking "$1 cannot be fetched: $(tail -n 1 "$state/log")"; }
    dpkg-deb --fsys-tarfile "$folder"/*.deb | tar -xO --wildcards "$2" >"$folder/file"
    mv "$folder/file" "$3"
    rm -rf "$folder"
}

# A program and the libraries that it is linked with (static ones have none), at the place where it looks for them.
put() { # program, place in the guest
    local library
    mkdir -p "$guest$(dirname "$2")"
    cp -L "$1" "$guest$2"
    "${strip:-strip}" "$guest$2" 2>/dev/null || true
    { ldd "$1" 2>/dev/null || true; } | { grep -oE '/[^ ]+' || true; } | while read -r library; do
        [[ -e $guest$library ]] || install -D -m 755 "$library" "$guest$library"
    done
}

# The compiled file of tests/tests of that name.
compiled() { # cargo, name
    (cd "$root" && "$1" test -q -p spantap-tests --test "$2" --no-run --message-format=json |
        grep -o "\"executable\":\"[^\"]*$2[^\"]*\"" | cut -d'"' -f4)
}

make_guest() { # processor
    local tests suite collector= cargo=cargo bin=$bin strip=strip busybox guest=$work/guest-$1
    busybox=$(command -v busybox)
    if [[ $1 == arm64 ]]; then
        cargo=$root/tools/arm64.sh strip=aarch64-linux-gnu-strip busybox=$cache/busybox-arm64
        bin=${CARGO_TARGET_DIR:-$root/target}/aarch64-unknown-linux-musl/debug
        say "building what runs on arm64"
        (cd "$root" && "$cargo" build -q -p spantap -p spantap-agent -p spantap-tests --bins) || lacking "nothing can be built for arm64"
        if [[ ! -s $busybox ]]; then
            update_lists arm64
            take busybox-static '*/busybox' "$busybox"
        fi
    fi
    if [[ ,$suites, == *,hard_traffic,* ]]; then
        collector=$(COLLECTOR_ARCH=$([[ $1 == amd64 ]] || echo "$1") "$root/tools/collector.sh") || lacking "the Collector cannot be built: needs Go"
    fi
    mkdir -p "$guest"/{bin,proc,sys,dev,tmp,run,etc,root}
    install -m 755 "$busybox" "$guest/bin/busybox"
    put "$bin/spantap" /spantap/spantap
    put "$bin/spantap-agent" /spantap/spantap-agent
    put "$bin/subject" /spantap/subject
    for suite in ${suites//,/ }; do
        tests=
        [[ $1 != amd64 ]] || tests=${TESTS:+$TESTS/$suite}
        [[ $tests ]] || tests=$(compiled "$cargo" "$suite")
        [[ -x $tests ]] || { say "the tests could not be built: $suite"; exit 1; }
        put "$tests" "/spantap/$suite"
    done
    [[ ! $collector ]] || put "$collector" /spantap/otelcol
    if [[ $1 == amd64 ]]; then
        ! command -v setpriv >/dev/null || put "$(command -v setpriv)" /bin/setpriv
        ! command -v bpftool >/dev/null || put "$(command -v bpftool)" /bin/bpftool
    fi
    # Where the tests look for the repository.
    mkdir -p "$guest$root/tools"
    printf '#!/bin/sh\necho /spantap/otelcol\n' >"$guest$root/tools/collector.sh"
    chmod 755 "$guest$root/tools/collector.sh"
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$guest/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$guest/etc/group"
    echo '127.0.0.1 localhost' >"$guest/etc/hosts"
    install -m 755 "$root/tools/kernels-guest.sh" "$guest/init"
    (cd "$guest" && find . | cpio --quiet -o -H newc) >"$work/initramfs-$1"
}

# Code 124: it was stopped, because its time was over.
boot() { # kernel, hook sets, file for the results
    local console=ttyS0 machine=()
    local options="no_timer_check mitigations=off panic=-1 oops=panic quiet spantap.hooks=$2 spantap.filter=${FILTER:-} spantap.cases=${CASES:-} spantap.suites=$suites"
    options+=" spantap.requests=${REQUESTS:-} $parameter ${APPEND:-}"
    local seconds=$((limit * ($(tr -cd , <<<"$2" | wc -c) + 1)))
    [[ -z ${TOTAL:-} ]] || seconds=$((TOTAL - SECONDS < seconds ? TOTAL - SECONDS : seconds))
    (( seconds > 0 )) || return 124
    # Without cmpxchg16b where the kernel can do without (Linux 7 takes memory for the state of sockets and threads by it): QEMU 7.2
    # sometimes leaves half an address in the flags after it (seen in kmalloc of 6.12: "double fault").
    local processor=max,-cx16
    [[ $1 != 7.* ]] || processor=max
    machine=(qemu-system-x86_64 -cpu "$processor" -serial "file:$work/console-$1" -serial "file:$3")
    if [[ $1 == *-arm64 ]]; then
        # Its one serial port is the console. Signed pointers by a cheaper algorithm: the architecture's takes QEMU most of its time.
        console=ttyAMA0
        machine=(qemu-system-aarch64 -M virt,gic-version=3 -cpu max,pauth-impdef=on -serial "file:$work/console-$1"
            -chardev "file,id=results,path=$3" -device pci-serial,chardev=results)
    fi
    timeout --kill-after 10 "$seconds" "${machine[@]}" -accel tcg,thread=multi \
        -smp "${CPUS:-2}" -m "${MEMORY:-2G}" -nodefaults -display none -no-reboot \
        -kernel "$cache/vmlinuz-$1" -initrd "$work/initramfs-$(processor_of "$1")" -append "console=$console $options" </dev/null >"$work/qemu-$1" 2>&1
}

# What a case prints comes between its name and its verdict: the two in one line again, behind it.
join_verdicts() {
    awk '/^test .* \.\.\. / && !/ \.\.\. (ok|FAILED|ignored)$/ { at = index($0, " ... "); name = substr($0, 1, at + 4); $0 = substr($0, at + 5) }
        name != "" && /^(ok|FAILED|ignored)$/ { $0 = name $0; name = "" }
        { print }
        END { if (name != "") print name }'
}

# Names with commas between them, one to a line, sorted.
sorted() {
    tr -d ' \140' <<<"$1" | tr , '\n' | { grep -E '^[a-z]' || true; } | sort
}

# The features of one kind that docs/kernels.md has for a kernel and a hook set; code 1: it does not have the two.
expected() { # kernel, hook set, column of the table: 4 (on) or 5 (off)
    local row
    row=$(sed -n '/^## Features by kernel/,/^## /p' "$root/docs/kernels.md" |
        awk -F'|' -v kernel="$1" -v set="$2" -v column="$3" '
            { gsub(/[ \140]/, "", $2); gsub(/[ \140]/, "", $3) }
            index("," $2 ",", "," kernel ",") && index("," $3 ",", "," set ",") { print "row" $column }')
    [[ $row ]] || return 1
    sorted "${row#row}"
}

# What is wrong with the features that the agent told; nothing if they are as expected.
judge_features() { # kernel, hook set, what it told: "on: a, b; off: c"
    local kind column wanted told wrong=
    for kind in on:4 off:5; do
        column=${kind#*:} kind=${kind%:*}
        wanted=$(expected "$1" "$2" "$column") || { echo "docs/kernels.md does not say which features $1 has with $2"; return; }
        told=$(sorted "$(tr ';' '\n' <<<"$3" | sed -nE "s/^ *$kind: (.*)/\1/p")")
        wrong+=$(comm -13 <(echo "$wanted") <(echo "$told") | sed "/./s/.*/ & is $kind;/" | tr -d '\n')
        wrong+=$(comm -23 <(echo "$wanted") <(echo "$told") | sed "/./s/.*/ & is not $kind;/" | tr -d '\n')
    done
    [[ ! $wrong ]] || echo "features:${wrong%;}"
}

# What the kernel said first when it died.
oops() {
    grep -aE -m 1 'BUG|Oops|panic' "$work/console-$kernel" | tr -d '\r' || echo "its console says nothing"
}

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
work=$(mktemp -d "${TMPDIR:-/tmp}/spantap-kernels.XXXXXX")
trap '[[ ${KEEP:-} ]] && say "logs: $work" || rm -rf "$work"' EXIT
for entry in "${wanted[@]}"; do
    kernel=${entry%%:*}
    [[ -n ${suite[$kernel]:-} ]] || { say "no such kernel: $kernel; there are ${!suite[*]}"; exit 64; }
    fetch "$kernel"
done
for processor in $processors; do make_guest "$processor"; done

status=0 rows=() columns=() SECONDS=0
declare -A outcome=() verified=() features=()
for entry in "${wanted[@]}"; do
    IFS=: read -r kernel hooks parameter <<<"$entry"
    hooks=${hooks:-${sets[$kernel]}}
    result=$work/result-$kernel
    say "booting $kernel with $hooks${parameter:+, $parameter}"
    : >"$result" >"$work/console-$kernel"
    began=$SECONDS ended=0
    boot "$kernel" "$hooks" "$result" || ended=$?
    # Emulated processors sometimes fail: in a kernel that has not come to its first process yet, within seconds; later where one meets a
    # breakpoint in code that another has finished patching, and as boot() says. A fault of ours would show again.
    died=0
    for again in "once more" "a third time" "a last time"; do
        [[ $ended != 124 ]] && { ! grep -q '^== kernel' "$result" || grep -qaE 'Oops: int3|PANIC: double fault' "$work/console-$kernel"; } || break
        say "$kernel died ($(oops)); $again"
        died=$((died + 1)) ended=0
        : >"$result"
        boot "$kernel" "$hooks" "$result" || ended=$?
    done
    seconds=$((SECONDS - began))
    tr -d '\r' <"$result" | join_verdicts >"$result.text"
    release=$(sed -n 's/^== kernel //p' "$result.text")
    for set in ${hooks//,/ }; do
        part=$(sed -n "/^== begin $set\$/,/^== end $set /p" "$result.text")
        passed=$(grep -c '^test .* ok$' <<<"$part" || true)
        failed=$(grep '^test .* FAILED$' <<<"$part" | sed -E 's/^test +(.*[^ ]) +\.\.\. FAILED$/\1/' | sort -u | tr '\n' ' ' || true)
        # Which of the hook sets a name stands for was taken.
        taken=$(sed -nE 's/.* ([a-z-]+): [0-9]+ of [0-9]+ programs were loaded.*/\1/p' <<<"$part" | head -n 1)
        column=$kernel:${taken:-$set}${parameter:+:$parameter}
        columns+=("$column")
        while read -r name how; do
            outcome["$name|$column"]=$how
        done < <(sed -nE 's/^test +([^ ]+) +\.\.\. (ok|FAILED|ignored)$/\1 \2/p' <<<"$part")
        sum=0
        while read -r name instructions; do
            verified["$name|$column"]=$instructions
            sum=$((sum + instructions))
        done < <(sed -nE 's/.* programs\.([a-z0-9_]+) .*; ([0-9]+) instructions verified.*/\1 \2/p' <<<"$part")
        told=$(sed -nE 's/^ +[a-zA-Z]+ +programs\.features +(on|off): /\1: /p' <<<"$part" | head -n 1)
        for kind in on off; do
            for name in $(sorted "$(tr ';' '\n' <<<"$told" | sed -nE "s/^ *$kind: (.*)/\1/p")"); do
                features["$name|$column"]=$kind
            done
        done
        code=$(sed -nE "s/^== end $set ([0-9]+) after .*/\1/p" <<<"$part")
        # Known before the first case, also where the time was too short for the others.
        wrong=
        [[ -z $told && $code != 0 ]] || wrong=$(judge_features "$kernel" "${taken:-$set}" "$told")
        left=$(sed -n 's/^== left //p' <<<"$part")
        repeated=$(grep -ac '^again: ' <<<"$part" || true)
        verdict=ok short=
        if [[ -n $failed ]]; then verdict="FAILED: $failed"
        elif [[ $wrong ]]; then
            verdict="FAILED: $wrong"
            grep -aA 8 'degraded *programs\.' <<<"$part" >&2 || true
        elif [[ $code == 0 ]]; then
            [[ ${left:-0} == 0 ]] || verdict="$left programs left in the kernel"
        elif [[ -n $code ]]; then verdict="ended with code $code"
        elif [[ $ended == 124 ]]; then
            # Nothing has failed. A case that hangs fails by its own limit, which is shorter than that of a kernel.
            at=$(sed -nE 's/^test +([^ ]+) .*/\1/p' <<<"$part" | tail -n 1)
            verdict="no time left after $seconds s, in ${at:-$([[ -n $release ]] && echo the start || echo the boot)}" short=1
        elif [[ -z $release ]]; then verdict="did not boot"
        else verdict="did not end: $(oops)"
        fi
        [[ $verdict != ok || $repeated == 0 ]] || verdict="ok, $repeated repeated: the kernel skipped runs"
        [[ $verdict != ok* || $died == 0 ]] || verdict+=", after $died emulated ones died"
        if [[ $short ]]; then
            skip "$kernel $set: $verdict"
            [[ $status != 0 ]] || status=4
        elif [[ $verdict != ok* ]]; then
            status=1
            [[ ${KEEP:-} ]] || tail -n 60 "$result.text" "$work/console-$kernel" >&2
        fi
        rows+=("$kernel|${release:--}|${taken:-$set}${parameter:+:$parameter}|$passed|${sum/#0/-}|$seconds|$verdict")
    done
done
# A line for each name, a column for each kernel and hook set.
table() { # title, name of an array by name and column
    local -n cells=$2
    printf '%-34s' "$1"
    printf ' %-20s' "${columns[@]}"
    echo
    for name in $(printf '%s\n' "${!cells[@]}" | cut -d'|' -f1 | sort -u); do
        printf '%-34s' "$name"
        for column in "${columns[@]}"; do
            printf ' %-20s' "${cells["$name|$column"]:--}"
        done
        echo
    done
    echo
}
table case outcome
table 'instructions verified' verified
table feature features
printf '%-6s %-28s %-15s %6s %13s %8s  %s\n' kernel release hooks passed instructions seconds verdict
for row in "${rows[@]}"; do
    IFS='|' read -r a b c d e f g <<<"$row"
    printf '%-6s %-28s %-15s %6s %13s %8s  %s\n' "$a" "$b" "$c" "$d" "$e" "$f" "$g"
done
exit "$status"
