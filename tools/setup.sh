#!/usr/bin/env bash
# Looks for the programs that a purpose needs and installs the Debian packages of those that are missing.
#   tools/setup.sh build|demo|test|bench|engine|dist|kernels|arm64|all
# Installs as root, or through sudo after asking on a terminal; otherwise prints the command and stops (exit 69).
# Exit 69 too where something is missing that no package provides (Rust).
set -euo pipefail
purpose=${1:-build}
PATH=$PATH:$HOME/.cargo/bin:/usr/local/go/bin:/usr/sbin:/sbin

# program:package. What the test suite can do without (node, go, prometheus) it skips, loudly; it is installed all the same.
build=(clang:clang bpf/bpf_helpers.h:libbpf-dev cc:build-essential make:make)
demo=(nginx:nginx-light curl:curl python3:python3)
tests=("${demo[@]}" pip3:python3-pip wrk:wrk node:nodejs prometheus:prometheus setpriv:util-linux unshare:util-linux nsenter:util-linux ip:iproute2 bpftool:bpftool
    debootstrap:debootstrap dpkg-deb:dpkg systemd-analyze:systemd gnutls-serv:gnutls-bin selfserv:libnss3-tools wget:wget apache2:apache2-bin haproxy:haproxy openssl/ssl.h:libssl-dev objcopy:binutils)
bench=("${demo[@]}" wrk:wrk node:nodejs bpftool:bpftool)
dist=("${build[@]}" musl-gcc:musl-tools objcopy:binutils dpkg-deb:dpkg xz:xz-utils)
# What tools/kernels.sh boots kernels with.
kernels=(qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio bpftool:bpftool strip:binutils)
# What tools/arm64.sh compiles with, and tools/kernels.sh boots kernels for arm64 with.
arm64=("${kernels[@]}" aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu ../aarch64-linux-gnu/include/stdio.h:libc6-dev-arm64-cross qemu-system-aarch64:qemu-system-arm)
# What tools/engine.sh compiles against and runs with (iptables: names of containers, in their own network), and what
# tools/base-images.sh makes images with.
engine=(cc:build-essential pkg-config:pkg-config seccomp.h:libseccomp-dev iptables:iptables ip:iproute2 debootstrap:debootstrap curl:curl)
case $purpose in
    build) wanted=("${build[@]}") ;;
    demo) wanted=("${build[@]}" "${demo[@]}") ;;
    test) wanted=("${build[@]}" "${tests[@]}" "${engine[@]}") ;;
    bench) wanted=("${build[@]}" "${bench[@]}") ;;
    engine) wanted=("${engine[@]}") ;;
    dist) wanted=("${dist[@]}") ;;
    kernels) wanted=("${build[@]}" "${kernels[@]}") ;;
    arm64) wanted=("${build[@]}" "${arm64[@]}") ;;
    all) wanted=("${build[@]}" "${tests[@]}" "${bench[@]}" "${engine[@]}" "${dist[@]}") ;;
    *) echo "usage: tools/setup.sh build|demo|test|bench|engine|dist|kernels|arm64|all" >&2; exit 64 ;;
esac

say() { echo "setup: $*" >&2; }

clang_is_new_enough() {
    local major
    major=$(clang -dumpversion 2>/dev/null | cut -d. -f1)
    [[ ${major:-0} -ge 14 ]] || { say "clang is version ${major:-unknown}, 14 or later is needed"; return 1; }
}

packages=() missing=()
for entry in "${wanted[@]}"; do
    program=${entry%%:*} package=${entry##*:}
    if [[ $program == *.h ]]; then
        [[ -e /usr/include/$program ]] && continue
    else
        command -v "$program" >/dev/null && continue
    fi
    missing+=("$program")
    [[ " ${packages[*]} " == *" $package "* ]] || packages+=("$package")
done

if (( ${#packages[@]} )); then
    say "missing: ${missing[*]}"
    install="apt-get install --yes --no-install-recommends ${packages[*]}"
    if ! command -v apt-get >/dev/null; then
        say "this is no Debian-like system; install the equivalents of: ${packages[*]}"
        exit 69
    fi
    as_root=()
    if [[ $(id -u) != 0 ]]; then
        as_root=(sudo)
        if ! command -v sudo >/dev/null || { [[ ! -t 0 ]] && ! sudo -n true 2>/dev/null; }; then
            say "run this as root, then try again:"
            say "  apt-get update && $install"
            exit 69
        fi
        if [[ -t 0 ]]; then
            read -r -p "setup: install the Debian packages ${packages[*]} with sudo? [Y/n] " answer
            [[ ${answer:-y} == [yY]* ]] || { say "stopped; the command is: sudo $install"; exit 69; }
        fi
    fi
    say "installing: ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    if ! "${as_root[@]}" $install >&2; then
        say "the package lists may be old, updating them"
        "${as_root[@]}" apt-get update >&2
        "${as_root[@]}" $install >&2
    fi
fi

[[ $purpose == engine ]] && { say "everything for '$purpose' is here"; exit 0; }
clang_is_new_enough || exit 69
if ! command -v cargo >/dev/null; then
    say "cargo is missing: install Rust 1.95 or later from https://rustup.rs, then try again"
    exit 69
fi
if [[ $purpose == test || $purpose == all ]] && ! command -v go >/dev/null; then
    say "no Go toolchain: tests that need the real Collector or a Go server will be skipped, and say so"
fi
say "everything for '$purpose' is here"
