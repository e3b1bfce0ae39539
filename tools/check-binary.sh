#!/usr/bin/env bash
# Looks whether programs are built as those of `make dist` have to be: static and position-independent, full RELRO, no
# executable stack, no memory both writable and executable, stripped, with a build id and no path of the machine that built them.
#   tools/check-binary.sh PROGRAM...
# Says what is wrong; exit 1 then.
set -uo pipefail
export LC_ALL=C
status=0
wrong() { echo "$program: $*" >&2; status=1; }
(( $# )) || { echo "usage: tools/check-binary.sh PROGRAM..." >&2; exit 64; }
command -v readelf >/dev/null || { echo "readelf is missing (Debian: binutils)" >&2; exit 69; }

for program in "$@"; do
    before=$status
    status=0
    header=$(readelf -hW "$program") || { wrong "not an ELF file"; continue; }
    segments=$(readelf -lW "$program") sections=$(readelf -SW "$program") dynamic=$(readelf -dW "$program")
    grep -q 'Type: *DYN' <<<"$header" || wrong "not position-independent"
    grep -q 'FLAGS_1.*PIE' <<<"$dynamic" || wrong "not marked as PIE"
    ! grep -q ' INTERP ' <<<"$segments" || wrong "needs a dynamic loader"
    ! grep -q '(NEEDED)' <<<"$dynamic" || wrong "needs shared libraries"
    grep -q ' GNU_RELRO ' <<<"$segments" || wrong "no RELRO"
    grep -Eq '\(FLAGS\).*BIND_NOW|\(FLAGS_1\).*NOW' <<<"$dynamic" || wrong "RELRO is not full (no BIND_NOW)"
    grep -Eq ' GNU_STACK .* RW +0x' <<<"$segments" || wrong "the stack is executable, or it is not said that it is not"
    ! grep -Eq ' LOAD .* (RWE|WE) ' <<<"$segments" || wrong "a segment is writable and executable"
    ! grep -q TEXTREL <<<"$dynamic" || wrong "relocations in code"
    ! grep -Eq ' \.symtab | \.debug_(info|line|str) ' <<<"$sections" || wrong "not stripped"
    grep -q ' \.gnu_debuglink ' <<<"$sections" || wrong "does not name its debug information"
    grep -q ' \.note\.gnu\.build-id ' <<<"$sections" || wrong "no build id"
    for folder in "${HOME%/}/" "$(cd "$(dirname "$0")/.." && pwd)/" /root/ /home/; do
        found=$(grep -aoE -m1 "${folder//./\\.}[[:alnum:]_./-]{4,60}" "$program" | head -1)
        [[ -z $found ]] || { wrong "a path of this machine: $found"; break; }
    done
    if (( status == 0 )); then
        id=$(readelf -nW "$program" | sed -n 's/.*Build ID: //p')
        echo "$program: static-pie, full RELRO, stack not executable, stripped; $(stat -c %s "$program") bytes, build id $id"
        status=$before
    fi
done
exit "$status"
