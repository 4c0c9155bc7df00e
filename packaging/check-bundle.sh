#!/usr/bin/env bash
# Make Galley.app on Debian and hold what can be told of it without a Mac: its layout, Info.plist, icon and licences,
# and of the program what macOS reads before it runs. Where rcodesign is installed, its signature too.
#
#   packaging/check-bundle.sh [FILE]     FILE is a program that is linked already
#
# Otherwise the program is linked by check-macos.sh with the profile `inspected`.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=${XDG_CACHE_HOME:-$HOME/.cache}/galley-ci
export PATH=$tools/bin:$PATH
out=target/inspected-bundle
if [ $# -gt 0 ]; then
  packaging/bundle --out "$out" --binary "$1"
else
  packaging/bundle --out "$out" --profile inspected
fi

report=$(mktemp -d); trap 'rm -rf "$report"' EXIT
app=$out/Galley.app
packaging/check-macos.sh inspect "$app/Contents/MacOS/galley" >"$report/program"
cargo tree --locked --target aarch64-apple-darwin --edges normal --prefix none --format '{p}' >"$report/crates"
if [ -e "$app/Contents/_CodeSignature" ]; then
  # It warns of itself, and misses who signed: ad hoc nobody did. All else that it says is a problem.
  problems=$(rcodesign verify "$app/Contents/MacOS/galley" 2>&1 | grep -v -e '^(the verify command is known to be' \
    -e '^CMS error: missing further values' -e '^Error: problems reported during verification' || true)
  [ -z "$problems" ] || { printf 'check-bundle: rcodesign: %s\n' "$problems" >&2; exit 1; }
fi
python3 packaging/check_bundle.py "$app" "$report"
