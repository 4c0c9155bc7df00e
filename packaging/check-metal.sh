#!/usr/bin/env bash
# Check the Metal kernels' types and address spaces with clang as C++14, the language Metal's own is made of.
# Uses the compiler that `check-macos.sh setup` fetches; run it from the project's root.
set -euo pipefail

zig=${XDG_CACHE_HOME:-$HOME/.cache}/macos-check/zig/zig
[ -x "$zig" ] || packaging/check-macos.sh setup
out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
cp src/ops/kernels.metal "$out/kernels.cpp"
ZIG_GLOBAL_CACHE_DIR=$out ZIG_LOCAL_CACHE_DIR=$out "$zig" c++ -std=c++14 -nostdinc -nostdinc++ \
  -Itests/metal-shim/address-spaces -Wall -Wextra -Werror -Wno-unknown-attributes \
  -c "$out/kernels.cpp" -o "$out/kernels.o"
