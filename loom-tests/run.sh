#!/usr/bin/env bash
# Runs the models and prints how many executions each explored. An argument picks the models whose
# names contain it.
#
# Each model is a process, and as many run at once as there are cores. In one process they would
# wait for each other, because loom maps memory for every thread of every execution.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
export logs=target-loom/models
rm -rf "$logs" && mkdir -p "$logs" || exit 1

RUSTFLAGS="--cfg loom" cargo test -p loom-tests --lib --profile loom --target-dir target-loom \
    --no-run 2>&1 | tee "$logs/build" || exit 1
binary=$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$logs/build")
export binary

# They come first, because one that begins last would run alone. The order has no other meaning.
longest='load::against_insert
fifo::eviction_against_a_neighbour
eviction::two_loads_for_one_permit
load::three_callers'
"$binary" --list | sed -n 's/: test$//p' | grep -F -- "${1:-}" >"$logs/picked"
if ! [ -s "$logs/picked" ]; then
    echo "there is no model whose name contains '$1'"
    exit 1
fi
{ grep -xF "$longest" "$logs/picked"; grep -vxF "$longest" "$logs/picked"; } >"$logs/ordered"

# Its lines "test .." are those by which watched.sh names a model that hangs.
model() { # NAME
    local log=$logs/${1//::/.} status
    echo "test $1 ... "
    "$binary" --exact "$1" --nocapture >"$log" 2>&1
    status=$?
    echo "test $1 ... ended"
    if [ $status -eq 0 ] && grep ' executions' "$log"; then
        return 0
    fi
    printf 'FAILED  %s\n%s\n' "$1" "$(sed 's/^/        | /' "$log")"
    return 1
}
export -f model

bash tests/watched.sh xargs --arg-file="$logs/ordered" --max-procs="$(nproc)" -I NAME \
    bash -c 'model "$1"' model NAME | grep --line-buffered -v '^test .* \.\.\. '
status=$?
green=$(grep -rlE '^[a-z0-9_:]+: [0-9]+ executions' "$logs" | wc -l)
printf '%s of %s models passed\n' "$green" "$(wc -l <"$logs/picked")"
[ $status -eq 0 ]
