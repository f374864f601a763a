#!/usr/bin/env bash
# Puts each seeded fault into a copy of the tree and demands that the model it names turns red, by
# the assertion it names.
#
#   run.sh          all of them
#   run.sh NAME     one of them: NAME.patch
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
root=$PWD
tree=$root/target/mutations

patches=("$root"/loom-tests/mutations/*.patch)
if [ $# -gt 0 ]; then
    patches=("$root/loom-tests/mutations/${1%.patch}.patch")
    [ -f "${patches[0]}" ] || { echo "there is no mutation $1"; exit 1; }
fi

# The copy is newer than everything built before, so cargo trusts nothing that an earlier run left.
rm -rf "$tree" && mkdir -p "$tree"
git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
    if [ -f "$file" ]; then printf '%s\0' "$file"; fi
done | tar --null --create --files-from=- | tar --extract --touch --directory "$tree" || exit 1
cp Cargo.lock "$tree" 2>/dev/null
cd "$tree" || exit 1
# So that git takes the copy for no part of the repository, and applies patches to it.
export GIT_CEILING_DIRECTORIES=$root/target

# The dependencies are those of the models. What a fault can change is built in its own, quicker
# way, and so is never taken for the real thing, nor the other way round.
quick=()
for package in everfresh loom-tests; do
    quick+=(--config "profile.loom.package.$package.opt-level=0")
    quick+=(--config "profile.loom.package.$package.debug=false")
done
log=$tree.log
before=$tree.before

build() { # prints the path of the test binary
    RUSTFLAGS="--cfg loom" cargo test "${quick[@]}" -p loom-tests --lib --profile loom \
        --target-dir "$root/target-loom" --no-run >"$log" 2>&1 || return 1
    sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$log"
}

header() { # PATCH FIELD
    sed -n "s/^$2: //p" "$1" | head -n 1
}

# Says why a patch is not caught; nothing if it is.
try() { # PATCH
    local patch=$1 model red binary status
    model=$(header "$patch" Model)
    red=$(header "$patch" Red)
    if [ -z "$model" ] || [ -z "$red" ]; then
        echo "its header names no model or no assertion"
        return
    fi
    touch "$before"
    git apply "$patch" >"$log" 2>&1 || { echo "it does not apply"; return; }
    if ! binary=$(build); then
        echo "it does not compile"
    elif [ ! "$binary" -nt "$before" ]; then
        echo "cargo did not build it"
    else
        timeout 120 "$binary" --exact "$model" --nocapture >"$log" 2>&1
        status=$?
        if grep -q '^running 0 tests' "$log"; then
            echo "there is no model $model"
        elif [ $status -eq 0 ]; then
            echo "SURVIVED: $model is green"
        elif [ $status -eq 124 ]; then
            echo "SURVIVED: $model found nothing in 120 s"
        elif ! grep -qF -- "$red" "$log"; then
            echo "$model is red for another reason than '$red'"
        fi
    fi
    git apply --reverse "$patch"
}

passed=0
failed=0
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    started=$SECONDS
    problem=$(try "$patch")
    if [ -z "$problem" ]; then
        passed=$((passed + 1))
        printf 'caught  %-36s by %s, %s s\n' \
            "$name" "$(header "$patch" Model)" $((SECONDS - started))
    else
        failed=$((failed + 1))
        printf 'FAILED  %-36s %s\n' "$name" "$problem"
        tail -n 25 "$log" | sed 's/^/        | /'
    fi
done
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
