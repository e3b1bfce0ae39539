#!/usr/bin/env bash
# Fetches Node from the npm registry, each version once, and prints the path of its program; npm checks what it fetched.
#   tools/node.sh 22            the newest of 22 that links were measured with
# Exit 3: it cannot be had here (said on standard error): no npm, no network, no such program for this machine.
set -euo pipefail
declare -A versions=([20]=20.20.2 [22]=22.23.3 [24]=24.21.0)
version=${versions[${1:-}]:-}
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/spantap

say() { echo "node: $*" >&2; }

[[ -n $version ]] || { say "which version? one of ${!versions[*]}"; exit 64; }
case $(uname -m) in
    x86_64) machine=x64 ;;
    aarch64) machine=arm64 ;;
    *) say "there is no Node for $(uname -m)"; exit 3 ;;
esac
program=$cache/node-$version/node
if [[ -x $program ]]; then echo "$program"; exit 0; fi
command -v npm >/dev/null || { say "no npm: Node $version cannot be fetched (apt-get install npm)"; exit 3; }

mkdir -p "$cache"
exec 9>"$cache/node.lock"
flock 9
if [[ -x $program ]]; then echo "$program"; exit 0; fi
work=$(mktemp -d "$cache/node-fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "fetching Node $version ..."
if ! npm install --prefix "$work" --cache "$work/npm" --no-save --no-audit --no-fund --ignore-scripts --fetch-retries 1 \
    --fetch-timeout 60000 "node-linux-$machine@$version" >"$work/log" 2>&1 9>&-; then
    say "Node $version cannot be fetched:"
    tail -n 10 "$work/log" >&2
    exit 3
fi
mkdir -p "${program%/*}"
mv "$work/node_modules/node-linux-$machine/bin/node" "$program"
echo "$program"
