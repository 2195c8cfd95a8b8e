#!/usr/bin/env bash
# Fuzzes every target, or those named, for so many seconds: fuzz/run.sh SECONDS [TARGET...]
# What is found stays in fuzz/artifacts; the corpora in the repository are not added to.
set -euo pipefail
cd "$(dirname "$0")"

seconds=$1
shift
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(cargo +nightly fuzz list)

found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
cargo +nightly fuzz build
for target in "${targets[@]}"; do
    mkdir -p "$found/$target"
    printf '\n== %s, %s s\n' "$target" "$seconds"
    cargo +nightly fuzz run "$target" "$found/$target" "corpus/$target" -- \
        -max_total_time="$seconds" -max_len=2048 -verbosity=0 -print_final_stats=1
done
