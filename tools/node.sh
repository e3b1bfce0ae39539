#!/usr/bin/env bash
# Fetches Node from the npm registry, each version once, and prints the path of its program; npm checks what it fetched.
#   tools/node.sh 22            the newest of 22 that links were measured with
#   tools/node.sh packages      the folder of packages that tests/subjects/node_packages lists, each as exact as its lock says
# Exit 3: it cannot be had here (said on standard error): no npm, no network, no such program for this machine.
set -euo pipefail
declare -A versions=([20]=20.20.2 [22]=22.23.3 [24]=24.21.0)
version=${versions[${1:-none}]:-}
lists=$(dirname "$0")/../tests/subjects/node_packages
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/spantap

say() { echo "node: $*" >&2; }

case $(uname -m) in
    x86_64) machine=x64 ;;
    aarch64) machine=arm64 ;;
    *) say "there is no Node for $(uname -m)"; exit 3 ;;
esac
if [[ ${1:-} == packages ]]; then
    what="the packages of $lists"
    result=$cache/node-packages-$(cat "$lists"/*.json | sha256sum | cut -c1-16)
    arguments=(ci)
elif [[ -n $version ]]; then
    what="Node $version"
    result=$cache/node-$version/node
    arguments=(install --no-save "node-linux-$machine@$version")
else
    say "what? packages, or one of the versions ${!versions[*]}"
    exit 64
fi
if [[ -e $result ]]; then echo "$result"; exit 0; fi
command -v npm >/dev/null || { say "no npm: $what cannot be fetched (apt-get install npm)"; exit 3; }

mkdir -p "$cache"
exec 9>"$cache/node.lock"
flock 9
if [[ -e $result ]]; then echo "$result"; exit 0; fi
work=$(mktemp -d "$cache/node-fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "fetching $what ..."
[[ $1 != packages ]] || cp "$lists"/*.json "$work/"
if ! npm "${arguments[@]}" --prefix "$work" --cache "$work/npm" --no-audit --no-fund --ignore-scripts --fetch-retries 1 \
    --fetch-timeout 60000 >"$work/log" 2>&1 9>&-; then
    say "$what cannot be fetched:"
    tail -n 10 "$work/log" >&2
    exit 3
fi
if [[ $1 == packages ]]; then
    mv "$work/node_modules" "$result"
else
    mkdir -p "${result%/*}"
    mv "$work/node_modules/node-linux-$machine/bin/node" "$result"
fi
echo "$result"
