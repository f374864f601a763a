#!/usr/bin/env bash
# Runs the models and prints how many executions each explored. An argument picks the models whose
# names contain it.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
log=target-loom/models.log
mkdir -p target-loom

export RUSTFLAGS="--cfg loom"
models=(cargo test -p loom-tests --lib --profile loom --target-dir target-loom)
"${models[@]}" --no-run || exit 1

: >"$log"
bash tests/watched.sh "${models[@]}" -- "$@" --nocapture >>"$log" 2>&1 &
tests=$!
# Each line as it comes; the rest is shown only if something is red.
tail --pid=$tests -n +1 -f "$log" | grep --line-buffered ' executions'
if wait $tests; then
    grep '^test result' "$log"
else
    grep -v ' executions\|^test .* ok$' "$log"
    exit 1
fi
