#!/usr/bin/env bash
# Puts each seeded fault into a copy of the tree and demands that the simulation finds it, with a
# seed that breaks the claim that the fault names, and that the same seed finds it again.
#
#   run.sh          all of them, one after the other in one copy
#   run.sh NAME     one of them: NAME.patch
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.." || exit 1
readonly root=$PWD
readonly copy=$root/target/simulation
# So that git takes the copy for no part of the repository, and applies patches to it.
export GIT_CEILING_DIRECTORIES=$root/target

patches=("$root"/tests/simulation/mutations/*.patch)
if [ $# -gt 0 ]; then
    patches=("$root/tests/simulation/mutations/${1%.patch}.patch")
    [ -f "${patches[0]}" ] || { echo "there is no mutation $1"; exit 1; }
fi

header() { # PATCH FIELD
    sed -n "s/^$2: //p" "$1" | head -n 1
}

simulate() { # ARGUMENTS...
    timeout 120 "$copy/target/quick/simulation" "$@"
}

# Says why a patch is not found; nothing if it is.
try() { # PATCH
    local patch=$1 seeds claim seed problem
    seeds=$(header "$patch" Seeds)
    claim=$(header "$patch" Claim)
    git -C "$copy/tree" apply "$patch" >"$copy/log" 2>&1 || { echo "it does not apply"; return; }
    touch "$copy/before"
    if ! (cd "$copy/tree" && build) >"$copy/log" 2>&1; then
        problem="it does not compile"
    elif [ ! "$copy/target/quick/simulation" -nt "$copy/before" ]; then
        problem="cargo did not build it"
    elif simulate --seeds "$seeds" --first >"$copy/log" 2>&1; then
        problem="SURVIVED: every claim holds with $seeds seeds"
    else
        seed=$(sed -n 's/^replay: .*--seed \([0-9]*\)$/\1/p' "$copy/log")
        if [ -z "$seed" ] || ! grep -qF -- "$claim" "$copy/log"; then
            problem="another claim fails than '$claim'"
        elif simulate --seed "$seed" >"$copy/log" 2>&1 || ! grep -qF -- "$claim" "$copy/log"; then
            problem="seed $seed does not find it again"
        fi
    fi
    git -C "$copy/tree" apply --reverse "$patch"
    echo "${problem:-}"
}

# Quick to build and quick to run. Only what a fault can change is built again.
build() {
    CARGO_INCREMENTAL=1 cargo build -p simulation --profile quick --target-dir "$copy/target" \
        --config 'profile.quick.inherits="dev"' --config 'profile.quick.opt-level=1' \
        --config 'profile.quick.debug=false'
}

rm -rf "$copy/tree" && mkdir -p "$copy/tree" || exit 1
git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
    if [ -f "$file" ]; then printf '%s\0' "$file"; fi
done | tar --null --create --files-from=- | tar --extract --touch --directory "$copy/tree" || exit 1
cp Cargo.lock "$copy/tree" 2>/dev/null
(cd "$copy/tree" && build) || exit 1

failed=0
for patch in "${patches[@]}"; do
    started=$SECONDS
    problem=$(try "$patch")
    name=$(basename "$patch" .patch)
    if [ -z "$problem" ]; then
        printf 'found   %-40s %s s\n' "$name" $((SECONDS - started))
    else
        printf 'FAILED  %-40s %s\n%s\n' "$name" "$problem" "$(tail -n 25 "$copy/log")"
        failed=$((failed + 1))
    fi
done
printf '%s found, %s not\n' $((${#patches[@]} - failed)) "$failed"
[ "$failed" -eq 0 ]
