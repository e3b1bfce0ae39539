#!/usr/bin/env bash
# Makes a minimal Debian to install packages in, once a suite, and prints its folder. Nobody changes it: copy it.
#   tools/debian-base.sh [SUITE]     without SUITE: that of this machine, whose libraries the programs of a debug build need
# Exit 3: it cannot be made here (no root, no debootstrap, or one that does not know the suite). Progress goes to standard error.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
suite=${1:-$(. /etc/os-release && echo "${VERSION_CODENAME:-}")}
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/spantap
base=$cache/debian-$suite

say() { echo "debian-base: $*" >&2; }

[[ $(id -u) == 0 ]] || { say "root is needed for a chroot"; exit 3; }
if [[ -d $base ]]; then echo "$base"; exit 0; fi
command -v debootstrap >/dev/null || { say "debootstrap is missing (Debian: apt-get install debootstrap)"; exit 3; }
[[ -n $suite && -e /usr/share/debootstrap/scripts/$suite ]] || { say "debootstrap does not know '$suite'"; exit 3; }

mkdir -p "$cache"
exec 9>"$cache/debian-$suite.lock"
flock -n 9 || { say "another one is being made, waiting for it"; flock 9; }
if [[ -d $base ]]; then echo "$base"; exit 0; fi
say "making a minimal $suite: about a minute, once"
work=$(mktemp -d "$cache/debian-build.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
# What it mounts goes with the mount namespace, whatever happens.
if ! unshare --mount --propagation private debootstrap --variant=minbase "$suite" "$work/base" >"$work/log" 2>&1 9>&-; then
    say "failed:"
    tail -n 20 "$work/log" >&2
    exit 1
fi
rm -rf "$work"/base/var/cache/apt/*.bin "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/*
mv "$work/base" "$base"
say "done: $base"
echo "$base"
