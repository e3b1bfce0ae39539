#!/usr/bin/env bash
# Builds a current container engine from source packages alone (Go module proxy; one library from Debian), once per
# set of versions, and prints the folder that holds its programs. For tests and for machines where no package of an
# engine knows CAP_BPF and CAP_PERFMON. Exit 3: there is no Go toolchain. Progress goes to standard error.
#   tools/engine.sh              build if need be, print the folder
#   tools/engine.sh --path       print where it is or would be; build nothing
# tools/engine-run.sh starts and stops it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
moby=github.com/moby/moby/v2 moby_version=v2.0.0-beta.24
containerd=github.com/containerd/containerd/v2 containerd_version=v2.4.2
runc=github.com/opencontainers/runc runc_version=v1.5.2
# The last one that Go 1.26.8 builds.
compose=github.com/docker/compose/v5 compose_version=v5.5.1
key=$(echo "$moby_version $containerd_version $runc_version $compose_version" | sha256sum | cut -c1-12)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/spantap
folder=$cache/engine-$key

say() { echo "engine: $*" >&2; }

if [[ ${1:-} == --path ]]; then echo "$folder"; exit 0; fi
if [[ -x $folder/docker-compose ]]; then echo "$folder"; exit 0; fi

PATH=$PATH:/usr/local/go/bin
if ! command -v go >/dev/null; then
    say "no Go toolchain: the container engine cannot be built (install Go 1.26 or later from https://go.dev/dl)"
    exit 3
fi
"$root/tools/setup.sh" engine >&2

mkdir -p "$cache"
exec 9>"$cache/engine.lock"
flock -n 9 || { say "another build is running, waiting for it"; flock 9; }
if [[ -x $folder/docker-compose ]]; then echo "$folder"; exit 0; fi

work=$(mktemp -d "$cache/engine-build.XXXXXX")
trap 'rm -rf "$work"' EXIT
step() { # message, log, command ...
    local message=$1 log=$work/$2 start=$SECONDS; shift 2
    say "$message ..."
    "$@" >"$log" 2>&1 9>&- &
    local pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        (( (SECONDS - start) % 30 )) || say "  ... $((SECONDS - start)) s"
    done
    wait "$pid" || { local status=$?; say "failed:"; tail -n 30 "$log" >&2; return "$status"; }
}

say "building a container engine (moby $moby_version, compose $compose_version): 8 to 10 minutes, once"
cd "$work"
export GOFLAGS="-buildvcs=false -trimpath -ldflags=-s -ldflags=-w" GOBIN=$work/bin
step "1/5 containerd" containerd.log go install "$containerd/cmd/containerd@$containerd_version"
step "2/5 its shim" shim.log go install "$containerd/cmd/containerd-shim-runc-v2@$containerd_version"
step "3/5 runc" runc.log go install -tags seccomp "$runc@$runc_version"
step "4/5 dockerd and its proxy" dockerd.log go install "$moby/cmd/dockerd@$moby_version" "$moby/cmd/docker-proxy@$moby_version"
# `go install` refuses a module with replace or exclude lines, so it is built inside its own module.
step "5/5 docker compose: sources" compose-sources.log go mod download "$compose@$compose_version"
sources=$(go mod download -json "$compose@$compose_version" | sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p')
step "5/5 docker compose" compose.log go build -C "$sources" -o "$work/bin/docker-compose" ./cmd
# Whole or not at all.
rm -rf "$folder"
mv "$work/bin" "$folder"
say "done: $folder ($(du -sh "$folder" | cut -f1))"
echo "$folder"
