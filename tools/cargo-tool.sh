#!/usr/bin/env bash
# Installs a tool of crates.io into the user's cache folder, once a version, and prints the path of the program.
#   tools/cargo-tool.sh NAME [VERSION]      the versions that this project uses stand below
# Progress goes to standard error. Exit 69: it could not be built.
set -euo pipefail
name=${1:?usage: tools/cargo-tool.sh NAME [VERSION]}
case $name in
    cargo-deny) version=${2:-0.20.2} ;;
    cargo-cyclonedx) version=${2:-0.5.9} ;;
    *) version=${2:?"tools/cargo-tool.sh: which version of $name?"} ;;
esac
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/spantap
root=$cache/$name-$version
program=$root/bin/$name
PATH=$PATH:$HOME/.cargo/bin

say() { echo "$name: $*" >&2; }

if [[ -x $program ]]; then echo "$program"; exit 0; fi
mkdir -p "$cache"
exec 9>"$cache/$name.lock"
flock -n 9 || { say "another build is running, waiting for it"; flock 9; }
if [[ -x $program ]]; then echo "$program"; exit 0; fi

say "building version $version from crates.io, once: some minutes"
work=$(mktemp -d "$cache/$name-build.XXXXXX")
trap 'rm -rf "$work"' EXIT
# It runs for seconds: quick to build matters more than quick to run.
if ! CARGO_PROFILE_RELEASE_LTO=false CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
    CARGO_TARGET_DIR=$work cargo install --locked --root "$root" --version "$version" "$name" \
        >"$work/log" 2>&1 9>&-; then
    say "failed:"
    tail -n 30 "$work/log" >&2
    exit 69
fi
say "done: $program"
echo "$program"
