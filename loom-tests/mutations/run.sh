#!/usr/bin/env bash
# Proves that the models can fail: seeds each fault in a copy of the crate and demands that the
# model named in its patch turns red, for the reason named there.
#
#   loom-tests/mutations/run.sh            all of them
#   loom-tests/mutations/run.sh PATCH...   some, by file or by bare name
#
# A patch starts with what it breaks, and two lines for this script:
#   # red: MODULE::MODEL   the model that must fail, and the only one that is run
#   # says: TEXT           a part of what its failing assertion (or loom's deadlock report) says
# A patch that does not apply or not compile, a model that does not exist, passes, runs out of
# time or fails in other words: each counts as failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

scratch=$PWD/target/mutations
tree=$scratch/tree
log=$scratch/log
limit=120 # seconds a model may take to turn red

# Neither is needed to tell red from green, and both take time to build and to print.
export RUSTFLAGS="--cfg loom" CARGO_PROFILE_LOOM_DEBUG=0 RUST_BACKTRACE=0

patches=()
for name in "$@"; do
    for path in "$name" "loom-tests/mutations/$name" "loom-tests/mutations/$name.patch"; do
        [ -f "$path" ] && break
    done
    [ -f "$path" ] || { echo "no such patch: $name" >&2; exit 2; }
    patches+=("$(realpath "$path")")
done
[ $# -gt 0 ] || patches=("$PWD"/loom-tests/mutations/*.patch)

# What a commit of this moment would hold, and the versions that were resolved, if any.
copy_tree() {
    rm -rf "$tree" && mkdir -p "$tree" || return 1
    git ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do [ -f "$file" ] && printf '%s\0' "$file"; done |
        tar -c --null -T - | tar -x -C "$tree" || return 1
    [ ! -f Cargo.lock ] || cp Cargo.lock "$tree"
    cp -r "$tree/src" "$scratch/src.new" && rm -rf "$scratch/src" && mv "$scratch/src.new" "$scratch/src"
}

restore() { rm -rf "$tree/src" && cp -r "$scratch/src" "$tree/src"; }

header() { sed -n "s/^# $2: //p" "$1" | head -n 1; } # PATCH FIELD

# Builds the models of the copy and prints where they are.
build() {
    # Cargo goes by times, and a restored file may be older than the mutant built from it.
    touch "$tree/src/lib.rs"
    (cd "$tree" && cargo test -p loom-tests --profile loom --target-dir "$scratch/build" \
        --no-run --message-format=json-render-diagnostics 2>"$log") |
        sed -n 's/.*"name":"loom_tests".*"executable":"\([^"]*\)".*/\1/p'
}

# Prints why PATCH is not red; nothing if it is.
try() {
    local red says models status
    red=$(header "$1" red) says=$(header "$1" says)
    [ -n "$red" ] && [ -n "$says" ] || { echo "its header names no model or no reason"; return; }
    patch -d "$tree" -p1 --quiet --force --no-backup-if-mismatch <"$1" >"$log" 2>&1 ||
        { echo "it does not apply"; return; }
    models=$(build)
    [ -x "$models" ] || { echo "it does not compile"; return; }
    "$models" --list 2>/dev/null | grep -qxF "$red: test" || { echo "there is no such model"; return; }
    timeout "$limit" "$models" --exact "$red" --nocapture >"$log" 2>&1
    status=$?
    case $status in
    101) grep -qF -- "$says" "$log" || echo "it failed in other words" ;;
    0) echo "nothing turned red" ;;
    124) echo "not red within $limit s" ;;
    *) echo "it ended with status $status" ;;
    esac
}

copy_tree || { echo "cannot copy the tree to $tree" >&2; exit 2; }
[ -x "$(build)" ] || { echo "the unchanged crate does not compile:" >&2; cat "$log" >&2; exit 2; }

passed=0 failed=0
for patch in "${patches[@]}"; do
    started=$SECONDS
    reason=$(try "$patch")
    name=$(basename "$patch" .patch)
    if [ -z "$reason" ]; then
        passed=$((passed + 1))
        printf 'red     %-38s %-55s %3s s\n' "$name" "$(header "$patch" red)" $((SECONDS - started))
    else
        failed=$((failed + 1))
        printf 'FAILED  %-38s %-55s %s\n' "$name" "$(header "$patch" red)" "$reason"
        tail -n 12 "$log" | cut -c 1-160 | sed 's/^/        | /'
    fi
    restore || { echo "cannot restore $tree" >&2; exit 2; }
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
