#!/usr/bin/env bash
# Prints the time of the sources in seconds since 1970, for builds that must not depend on when they are made: that of the
# last commit, or without git that of the manifest of the workspace.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
git -C "$root" log -1 --format=%ct 2>/dev/null || stat -c %Y "$root/Cargo.toml"
