#!/usr/bin/env bash
# Makes what is handed out, in dist/: static, hardened programs as a tarball and as a Debian package, their debug information,
# the list of what is in them (SBOM, CycloneDX), and the hashes of it all. `make dist` is this script.
#   tools/dist.sh [OUTPUT_FOLDER]
# The same sources, compilers and versions give the same files in any folder and at any time: tools/reproduce.sh tries it.
# Exit 69: something is missing; 1: it was made, and is not what it should be.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
output=$(realpath -m "${1:-$root/dist}")
target=x86_64-unknown-linux-musl
export PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin LC_ALL=C TZ=UTC
SOURCE_DATE_EPOCH=$(tools/source-date.sh)
export SOURCE_DATE_EPOCH
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
name=spantap-$version-linux-x86_64

say() { echo "dist: $*" >&2; }

if ! rustc --print target-libdir --target "$target" 2>/dev/null | xargs -r test -d; then
    say "no Rust libraries for $target: rustup target add $target"; exit 69
fi
cyclonedx=$(tools/cargo-tool.sh cargo-cyclonedx)
cargo fetch --locked --quiet

say "building $version for $target"
# No path of this machine in the programs. Of several that fit, rustc takes the last, gcc too.
home=${CARGO_HOME:-$HOME/.cargo}
target_folder=${CARGO_TARGET_DIR:-$root/target}
rust_map=() c_map=()
map() { rust_map+=("--remap-path-prefix=$1=$2"); c_map+=("-ffile-prefix-map=$1=$2"); }
map "$home" /cargo
for folder in "$home"/registry/src/*/; do map "${folder%/}" /crates; done
map "$root" /spantap
map "$target_folder" /target
# static-pie, full RELRO and a stack that is not executable are what rustc does for this target; tools/check-binary.sh looks.
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS="${rust_map[*]} -C link-arg=-Wl,--build-id=sha1"
export CFLAGS_x86_64_unknown_linux_musl="${c_map[*]}"
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
cargo build --locked --profile dist --target "$target" --package spantap --package spantap-agent --bins
built=$target_folder/$target/dist

say "stripping; the debug information goes into files of its own"
work=$(mktemp -d)
trap 'rm -rf "$work"; rm -f "$root"/*/spantap-dist.cdx.json' EXIT
umask 022
mkdir -p "$work/bin" "$work/debug/$name-debug"
for program in spantap spantap-agent; do
    debug=$work/debug/$name-debug/$program.debug
    objcopy --only-keep-debug "$built/$program" "$debug"
    chmod 644 "$debug"
    objcopy --strip-all --add-gnu-debuglink="$debug" "$built/$program" "$work/bin/$program"
done
tools/check-binary.sh "$work"/bin/*

say "packing"
rm -rf "$output"
mkdir -p "$output"
tree=$work/tar/$name
mkdir -p "$tree"
install -D -m 755 -t "$tree/bin" "$work"/bin/*
install -m 644 LICENSE README.md "$tree"
install -m 644 docs/install.md "$tree/INSTALL.md"
tools/third-party.sh >"$tree/THIRD-PARTY.txt"
install -D -m 644 -t "$tree/systemd" packaging/systemd/*.service
install -D -m 644 -t "$tree/systemd/spantap-agent.service.d" packaging/systemd/spantap-agent.service.d/*.conf
install -D -m 644 packaging/systemd/sysusers.conf "$tree/systemd/sysusers.d/spantap.conf"
install -D -m 644 -t "$tree/etc" packaging/etc/spantap.yml packaging/etc/default-spantap
pack() { # folder, name
    tar --create --directory "$1" --format=gnu --sort=name --owner=0 --group=0 --numeric-owner \
        --mtime="@$SOURCE_DATE_EPOCH" --mode=go-w "$2" | gzip -9n >"$output/$2.tar.gz"
}
pack "$work/tar" "$name"
pack "$work/debug" "$name-debug"
packaging/debian/build.sh "$work/bin" "$output" "$version" >/dev/null

say "listing what is in it"
"$cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --target "$target" \
    --override-filename spantap-dist.cdx
for program in spantap:forwarder spantap-agent:probe-agent; do
    sed "s#path+file://$root/#path+file:///spantap/#g" "${program#*:}/spantap-dist.cdx.json" \
        >"$output/${program%:*}-$version.cdx.json"
done
(cd "$output" && sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS)

say "done, in bytes:"
(cd "$output" && stat -c '%10s  %n' -- *; cd "$work/bin" && stat -c '%10s  bin/%n' -- *) >&2
