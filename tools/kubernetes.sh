#!/usr/bin/env bash
# Builds helm and the reader of manifests (tests/manifests) from the Go module proxy, once per content of that folder, and
# prints the folder with both programs. Exit 3: there is no Go toolchain. Progress goes to standard error.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/spantap
key=$(cat "$root"/tests/manifests/{go.mod,go.sum,main.go} | sha256sum | cut -c1-12)
programs=$cache/kubernetes-$key

say() { echo "kubernetes: $*" >&2; }

if [[ -d $programs ]]; then echo "$programs"; exit 0; fi
PATH=$PATH:/usr/local/go/bin
if ! command -v go >/dev/null; then
    say "no Go toolchain: helm cannot be built (install Go 1.26 or later from https://go.dev/dl)"
    exit 3
fi
mkdir -p "$cache"
exec 9>"$cache/kubernetes.lock"
flock -n 9 || { say "another build is running, waiting for it"; flock 9; }
if [[ -d $programs ]]; then echo "$programs"; exit 0; fi
say "building helm and the API's types: 2 to 4 minutes, once"
work=$(mktemp -d "$cache/kubernetes-build.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
cd "$root/tests/manifests"
if ! GOFLAGS=-buildvcs=false go build -trimpath -ldflags="-s -w" -o "$work/bin/" helm.sh/helm/v3/cmd/helm . \
    >"$work/log" 2>&1 9>&-; then
    say "failed:"
    tail -n 30 "$work/log" >&2
    exit 1
fi
mv "$work/bin" "$programs"
say "done: $programs"
echo "$programs"
