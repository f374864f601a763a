#!/usr/bin/env bash
# Runs tests under Miri, which interprets the program and reports undefined behaviour. It needs a
# nightly toolchain with the components miri and rust-src.
#
# Miri takes hundreds of times as long as the processor, so only a few behaviours run, on one thread
# or few, with little in a cache.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# Without isolation the clocks and the randomness are those of the system. Threads of a pool may
# live on when the process ends. Crossbeam, below the pool, keeps the rules of Tree Borrows only,
# and turns addresses into numbers and back.
export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks"
MIRIFLAGS+=" -Zmiri-tree-borrows -Zmiri-permissive-provenance"
export EVERFRESH_STRESS_ROUNDS=10 EVERFRESH_SEED=1
exec bash tests/watched.sh cargo +nightly miri test --target-dir target/miri --test main -- \
    freshness:: drops::a_kept
