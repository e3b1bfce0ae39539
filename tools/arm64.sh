#!/usr/bin/env bash
# Cargo with what static programs for arm64 take on a machine of another kind: a C compiler and its linker.
#   tools/arm64.sh build -p spantap -p spantap-agent …      programs in target/aarch64-unknown-linux-musl
# Exit 69: something is missing.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=$PATH:$HOME/.cargo/bin
target=aarch64-unknown-linux-musl
lacking() { echo "arm64: $*" >&2; exit 69; }
rustc --print target-libdir --target "$target" 2>/dev/null | xargs -r test -d || lacking "no Rust libraries for $target: rustup target add $target"
compiler=aarch64-linux-gnu-gcc
[[ $(uname -m) != aarch64 ]] || compiler=cc
command -v "$compiler" >/dev/null || lacking "no C compiler: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
export CC_aarch64_unknown_linux_musl=$compiler CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=$compiler
(( $# )) || { echo "usage: tools/arm64.sh COMMAND_OF_CARGO …" >&2; exit 64; }
cd "$root"
exec cargo "$1" --target "$target" "${@:2}"
