#!/usr/bin/env bash
# Prints the crates that the two programs are linked with, their licences, and the texts that those ask to hand on.
# Texts that many crates share stand once. The crates must have been fetched (cargo fetch --locked).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PATH:$HOME/.cargo/bin LC_ALL=C
sources=$(echo "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/)
target=x86_64-unknown-linux-musl

crates=$(cargo tree --offline --locked --edges normal,no-proc-macro --target "$target" --prefix none --format '{p} | {l}' \
    --package spantap --package spantap-agent | sed 's/ (\*)$//; /^$/d; / (\/.*)/d' | sort -u)
echo "Spantap is linked with these crates of crates.io:"
echo
sed -E 's/^(\S+) v(\S+) \| (.*)$/  \1 \2: \3/' <<<"$crates"

declare -A holders=() texts=()
while read -r name version _; do
    folder=
    for source in $sources; do [[ -d $source$name-${version#v} ]] && folder=$source$name-${version#v} && break; done
    [[ $folder ]] || { echo "third-party: $name $version is not fetched: cargo fetch --locked" >&2; exit 69; }
    for text in "$folder"/{LICEN[CS]E*,COPYING*,NOTICE*,COPYRIGHT*,license*}; do
        [[ -f $text ]] || continue
        key=$(sha256sum <"$text")
        holders[$key]+=" $name"
        texts[$key]=$text
    done
done < <(sed 's/ | .*//' <<<"$crates")
for key in "${!texts[@]}"; do
    # Ordered by the first crate that brings the text, then by the text.
    echo "${holders[$key]}	$key"
done | sort | while IFS=$'\t' read -r names key; do
    printf '\n%s\n%s\n\n' "----------------------------------------------------------------------" "For:$names"
    cat "${texts[$key]}"
done
