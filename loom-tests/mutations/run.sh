#!/usr/bin/env bash
# Puts each seeded fault into a copy of the tree and demands that the model it names turns red, by
# the assertion it names.
#
#   run.sh          all of them, in as many copies at once as there are cores, at most four
#   run.sh NAME     one of them: NAME.patch
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
export root=$PWD
export work=$root/target/mutations
# So that git takes a copy for no part of the repository, and applies patches to it.
export GIT_CEILING_DIRECTORIES=$root/target

patches=("$root"/loom-tests/mutations/*.patch)
if [ $# -gt 0 ]; then
    patches=("$root/loom-tests/mutations/${1%.patch}.patch")
    [ -f "${patches[0]}" ] || { echo "there is no mutation $1"; exit 1; }
fi
copies=$(nproc)
copies=$((copies > 4 ? 4 : copies))
copies=$((copies > ${#patches[@]} ? ${#patches[@]} : copies))

# The dependencies are those of the models. What a fault can change is built in its own, quicker
# way, and so is never taken for the real thing, nor the other way round. Of the models, only the
# file with the named one is built: one file takes a third of the time of all.
build() { # COPY MODULE; prints the path of the test binary
    local package quick=()
    for package in everfresh loom-tests; do
        quick+=(--config "profile.loom.package.$package.opt-level=0")
        quick+=(--config "profile.loom.package.$package.debug=false")
    done
    sed "/^mod /{/^mod \(fixture\|$2\);/!d}" loom-tests/src/lib.rs \
        >"$1/tree/loom-tests/src/lib.rs" || return 1
    (cd "$1/tree" && CARGO_INCREMENTAL=1 RUSTFLAGS="--cfg loom" cargo test "${quick[@]}" \
        -p loom-tests --lib --profile loom --target-dir "$1/target" --no-run) \
        >"$1/log" 2>&1 || return 1
    sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$1/log"
}

# Whether the build took the fault in: both the library and the test binary are newer.
built() { # COPY BINARY
    [ "$2" -nt "$1/before" ] &&
        [ -n "$(find "$1/target/loom/deps" -name 'libeverfresh-*.rlib' -newer "$1/before")" ]
}

header() { # PATCH FIELD
    sed -n "s/^$2: //p" "$1" | head -n 1
}

# Says why a patch is not caught; nothing if it is.
try() { # COPY PATCH
    local copy=$1 patch=$2 model red binary status
    model=$(header "$patch" Model)
    red=$(header "$patch" Red)
    if [ -z "$model" ] || [ -z "$red" ]; then
        echo "its header names no model or no assertion"
        return
    fi
    touch "$copy/before"
    git -C "$copy/tree" apply "$patch" >"$copy/log" 2>&1 || { echo "it does not apply"; return; }
    if ! binary=$(build "$copy" "${model%%::*}"); then
        echo "it does not compile"
    elif ! built "$copy" "$binary"; then
        echo "cargo did not build it"
    else
        timeout 120 "$binary" --exact "$model" --nocapture >"$copy/log" 2>&1
        status=$?
        if grep -q '^running 0 tests' "$copy/log"; then
            echo "there is no model $model"
        elif [ $status -eq 0 ]; then
            echo "SURVIVED: $model is green"
        elif [ $status -eq 124 ]; then
            echo "SURVIVED: $model found nothing in 120 s"
        elif ! grep -qF -- "$red" "$copy/log"; then
            echo "$model is red for another reason than '$red'"
        fi
    fi
    git -C "$copy/tree" apply --reverse "$patch"
}

# Tries a patch in the copy that xargs gave to this process, and prints the outcome in one piece.
report() { # PATCH
    local copy=$work/$COPY name problem started=$SECONDS
    name=$(basename "$1" .patch)
    problem=$(try "$copy" "$1")
    if [ -z "$problem" ]; then
        printf 'caught  %-36s by %s, %s s\n' \
            "$name" "$(header "$1" Model)" $((SECONDS - started))
        return
    fi
    printf 'FAILED  %-36s %s\n%s\n' \
        "$name" "$problem" "$(tail -n 25 "$copy/log" | sed 's/^/        | /')"
    return 1
}
export -f build built header try report

# The copies are newer than everything built before, so cargo trusts nothing that an earlier run
# left.
prepare() { # COPY
    mkdir -p "$1/tree" "$1/target/loom" || return 1
    git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
        if [ -f "$file" ]; then printf '%s\0' "$file"; fi
    done | tar --null --create --files-from=- | tar --extract --touch --directory "$1/tree" ||
        return 1
    cp Cargo.lock "$1/tree" 2>/dev/null
    # Registry dependencies only need a copy: their names do not depend on the folder.
    cp -a target-loom/loom/{.fingerprint,build,deps} "$1/target/loom"
}

# The dependencies are built once, for all copies. The models have built them already, if they ran.
(RUSTFLAGS="--cfg loom" cargo build -p loom-tests --profile loom --target-dir target-loom) || exit 1
rm -rf "$work"
for ((copy = 0; copy < copies; copy++)); do
    prepare "$work/$copy" || exit 1
done

# Faults of one module follow each other, because a module that was built before is built quicker.
for patch in "${patches[@]}"; do
    printf '%s\t%s\0' "$(header "$patch" Model)" "$patch"
done | sort --zero-terminated | cut --zero-terminated --fields=2 |
    xargs --null --max-procs="$copies" --process-slot-var=COPY -I PATCH \
        bash -c 'report "$1"' report PATCH | tee "$work/outcome"
passed=$(grep -c '^caught ' "$work/outcome")
failed=$((${#patches[@]} - passed))
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
