#!/usr/bin/env bash
# Builds the Collector of collector-config/builder.yaml with the Collector's own builder, once per content of that
# manifest, and prints the path of the program. Exit 3: there is no Go toolchain. Progress goes to standard error.
#   tools/collector.sh          build if need be, print the path
#   tools/collector.sh --path   print where it is or would be; build nothing
# Environment: COLLECTOR_ARCH (the processor that it is for, as Go names it; this machine's).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
manifest=$root/collector-config/builder.yaml
version=$(sed -n 's/^  version: //p' "$manifest")
key=$(sha256sum "$manifest" | cut -c1-12)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/spantap
# Its name is what Spantap leaves alone by default, as Beyla does.
program=$cache/otelcol-$version-$key${COLLECTOR_ARCH:+-$COLLECTOR_ARCH}/otelcol

say() { echo "collector: $*" >&2; }

if [[ ${1:-} == --path ]]; then echo "$program"; exit 0; fi
if [[ -x $program ]]; then echo "$program"; exit 0; fi

PATH=$PATH:/usr/local/go/bin
if ! command -v go >/dev/null; then
    say "no Go toolchain: the test Collector cannot be built (install Go 1.25 or later from https://go.dev/dl)"
    exit 3
fi

mkdir -p "$cache"
exec 9>"$cache/otelcol.lock"
flock -n 9 || { say "another build is running, waiting for it"; flock 9; }
if [[ -x $program ]]; then echo "$program"; exit 0; fi

work=$(mktemp -d "$cache/otelcol-build.XXXXXX")
# Go makes module directories read-only only in its module cache, which stays; the work folder goes.
trap 'rm -rf "$work"' EXIT
step() { # message, log, command ...
    local message=$1 log=$work/$2 start=$SECONDS; shift 2
    say "$message ..."
    "$@" >"$log" 2>&1 9>&- &
    local pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        (( (SECONDS - start) % 20 )) || say "  ... $((SECONDS - start)) s"
    done
    wait "$pid" || { local status=$?; say "failed:"; tail -n 30 "$log" >&2; return "$status"; }
}

say "building the OpenTelemetry Collector $version for the tests: 2 to 4 minutes, once"
cd "$work"
export GOFLAGS=-buildvcs=false
step "1/3 its builder" builder.log env GOBIN="$work/bin" go install "go.opentelemetry.io/collector/cmd/builder@v$version"
step "2/3 sources and modules" generate.log "$work/bin/builder" --skip-compilation --config "$manifest"
cd build
step "3/3 compiling" compile.log env GOARCH="${COLLECTOR_ARCH:-}" go build -trimpath -ldflags="-s -w" -o "$work/otelcol" .
mkdir -p "${program%/*}"
mv "$work/otelcol" "$program"
say "done: $program"
echo "$program"
