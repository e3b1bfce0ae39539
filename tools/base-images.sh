#!/usr/bin/env bash
# Makes stand-ins for the images that Dockerfile and docker-compose.yml start from, out of Debian packages, this machine's
# Rust toolchain and the Collector of tools/collector.sh: for machines that reach package registries but no image
# registry. An image that is there already and is no stand-in is left alone. Root, for debootstrap.
#   tools/base-images.sh            make what is missing or out of date
#   tools/base-images.sh --remove   remove the stand-ins
# It speaks to the engine of DOCKER_HOST (a unix:// address), /var/run/docker.sock without it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=$PATH:$HOME/.cargo/bin:/usr/local/go/bin:/usr/sbin:/sbin
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/spantap/base-images
suite=bookworm
label=org.spantap.stand-in
say() { echo "base-images: $*" >&2; }

host=${DOCKER_HOST:-unix:///var/run/docker.sock}
[[ $host == unix://* ]] || { say "DOCKER_HOST is $host; only unix:// addresses are served"; exit 64; }
api() { curl --silent --show-error --fail --unix-socket "${host#unix://}" "$@"; }
api --output /dev/null http://engine/_ping || { say "no engine answers at $host"; exit 69; }

# The names that the files use: the script makes what they ask for.
rust=$(sed -n 's/^FROM \(rust:[^ ]*\).*/\1/p' "$root/Dockerfile" | head -1)
image() { sed -n "s|^ *image: \($1:[^ ]*\)\$|\1|p" "$root/docker-compose.yml" | head -1; }
collector=$(image otel/opentelemetry-collector) nginx=$(image nginx) curl=$(image curlimages/curl)

if [[ ${1:-} == --remove ]]; then
    for name in "$rust" "spantap-stand-in/rust:${rust#*:}" "$collector" "$nginx" "$curl"; do
        [[ $(api "http://engine/images/$name/json" 2>/dev/null) == *"\"$label\""* ]] || continue
        api --request DELETE "http://engine/images/$name?force=1" >/dev/null && say "removed $name"
    done
    exit
fi

# Whether image $1 has to be made, if its recipe is $2.
wanted() {
    local found
    found=$(api "http://engine/images/$1/json" 2>/dev/null) || return 0
    [[ $found == *"\"$label\""* ]] || { say "$1 is there, left as it is"; return 1; }
    [[ $found != *"\"$label\":\"$2\""* ]]
}
# Standard input, a tar archive, becomes image $1 with the recipe $2; the rest are lines as of a Dockerfile.
import() {
    local name=$1 recipe=$2 change changes=(); shift 2
    for change in "LABEL $label=$recipe" "$@"; do changes+=(--data-urlencode "changes=$change"); done
    # The query is made by curl, which escapes it, and then used with the archive as the body.
    local query
    query=$(curl --silent --get --data-urlencode fromSrc=- --data-urlencode "repo=${name%:*}" --data-urlencode "tag=${name##*:}" \
        "${changes[@]}" --write-out '%{url_effective}' --output /dev/null --unix-socket "${host#unix://}" http://engine/_ping | cut -d'?' -f2-)
    api --request POST --header 'Content-Type: application/x-tar' --upload-file - \
        "http://engine/images/create?$query" | { ! grep '"error"' >&2; }
    say "made $name"
}
hash() { sha256sum | cut -c1-12; }
# A Debian with packages $2 as an archive; kept, one of each name.
debian() {
    local name=$1 packages=$2 archive work
    archive=$cache/$name-$(echo "$suite $packages" | hash).tar
    if [[ ! -f $archive ]]; then
        say "a Debian with ${packages//,/, } ..."
        mkdir -p "$cache/packages"
        rm -f "$cache/$name"-*.tar
        work=$(mktemp -d "$cache/debian.XXXXXX")
        if ! debootstrap --variant=minbase --cache-dir="$cache/packages" --include="$packages" "$suite" "$work/root" \
            >"$work/log" 2>&1; then
            tail -n 20 "$work/log" >&2; rm -rf "$work"
            exit 69
        fi
        rm -rf "$work/root/var/cache/apt/archives" "$work/root/usr/share/"{doc,man,locale}
        rm -rf "$cache/packages"
        # Devices are the engine's matter.
        tar --create --exclude=./dev/* --file "$archive.part" --directory "$work/root" .
        mv "$archive.part" "$archive"
        rm -rf "$work"
    fi
    echo "$archive"
}
[[ $(id -u) == 0 ]] || { say "making a Debian root takes root; run: sudo -E $0"; exit 77; }
"$root/tools/setup.sh" engine
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9

# Rust in two steps, because the packages of Cargo.lock, without which a build would need a network, change more often than
# the rest.
sysroot=$(rustc --print sysroot) arch=$(uname -m)
packages=ca-certificates,clang,gcc,libbpf-dev,libc6-dev,musl-tools
toolchain=spantap-stand-in/rust:${rust#*:}
recipe=$( { rustc --version; echo "$packages $suite"; } | hash)
if wanted "$toolchain" "$recipe"; then
    [[ $(rustc --version) == *" ${rust//[!0-9.]/}"* ]] || say "note: $rust will hold $(rustc --version)"
    [[ -d $sysroot/lib/rustlib/$arch-unknown-linux-musl ]] || rustup target add "$arch-unknown-linux-musl" >&2
    archive=$(debian rust "$packages")
    say "Rust ..."
    over=$(mktemp -d "$cache/over.XXXXXX")
    trap 'rm -rf "$over" "$over.tar"' EXIT
    mkdir -p "$over/usr/local/lib/rustlib" "$over/usr/local/bin"
    cp "$sysroot"/bin/{cargo,rustc} "$over/usr/local/bin/"
    cp --archive "$sysroot"/lib/*.so* "$over/usr/local/lib/"
    cp --archive "$sysroot/lib/rustlib/$arch-unknown-linux-"{gnu,musl} "$over/usr/local/lib/rustlib/"
    cp "$archive" "$over.tar"
    tar --append --file "$over.tar" --directory "$over" usr
    import "$toolchain" "$recipe" 'ENV CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' <"$over.tar"
    rm -rf "$over" "$over.tar"
fi
recipe=$( { echo "$recipe"; cat "$root/Cargo.lock"; } | hash)
if wanted "$rust" "$recipe"; then
    (cd "$root" && cargo fetch --locked) >&2
    over=$(mktemp -d "$cache/over.XXXXXX")
    trap 'rm -rf "$over"' EXIT
    printf 'FROM %s\nLABEL %s=%s\nCOPY registry /usr/local/cargo/registry\n' "$toolchain" "$label" "$recipe" >"$over/Dockerfile"
    tar --create --file - --directory "$over" Dockerfile \
        --directory "${CARGO_HOME:-$HOME/.cargo}" --exclude=registry/src registry \
        | api --request POST --header 'Content-Type: application/x-tar' --upload-file - \
            "http://engine/build?version=1&rm=1&t=$rust" >"$over/log"
    if grep '"error"' "$over/log" >&2; then exit 1; fi
    say "made $rust"
fi

packages=curl,nginx-light
recipe=$(echo "$packages $suite" | hash)
for name in "$nginx" "$curl"; do
    wanted "$name" "$recipe" || continue
    import "$name" "$recipe" 'CMD ["nginx", "-g", "daemon off;"]' <"$(debian demo "$packages")"
done

program=$("$root/tools/collector.sh")
recipe=$(echo "$program" | hash)
if wanted "$collector" "$recipe"; then
    # Where the real image has them; the program is linked to glibc.
    over=$(mktemp -d "$cache/over.XXXXXX")
    trap 'rm -rf "$over"' EXIT
    chmod 755 "$over"
    cp "$program" "$over/otelcol"
    while read -r library; do
        mkdir -p "$over/$(dirname "$library")"
        cp --dereference "$library" "$over$library"
    done < <(ldd "$program" 2>/dev/null | grep -o '/[^ ]*')
    tar --create --file - --directory "$over" . | import "$collector" "$recipe" \
        'ENTRYPOINT ["/otelcol"]' 'CMD ["--config", "/etc/otelcol/config.yaml"]' 'USER 10001:10001'
fi
say "done"
