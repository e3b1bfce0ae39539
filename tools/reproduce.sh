#!/usr/bin/env bash
# Builds what `make dist` hands out from two clones of HEAD, in folders with names of different length, and compares the hashes.
#   tools/reproduce.sh
# Takes two release builds, so it runs when asked for only. Exit 1: they differ.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/spantap-reproduce.XXXXXX")
trap 'rm -rf "$work"' EXIT
for folder in one another/and/longer; do
    git clone --quiet --no-hardlinks "$root" "$work/$folder"
    env -u CARGO_TARGET_DIR "$work/$folder/tools/dist.sh" "$work/$folder/dist"
    # The second must not find the first one's objects.
    rm -rf "$work/$folder/target"
done
if diff "$work/one/dist/SHA256SUMS" "$work/another/and/longer/dist/SHA256SUMS"; then
    echo "reproduced: two clones, the same files"
    cat "$work/one/dist/SHA256SUMS"
else
    echo "not reproduced: the two clones gave different files" >&2
    exit 1
fi
