//! More writes than the outbox of a process holds, made before its first connection.

use crate::claims::Claim;
use crate::node::{CAPACITY, Trouble};
use crate::origin::{Value, values_alive};
use crate::run::Run;
use crate::world::{Key, MS, SECOND};

/// How many writes an outbox holds.
const OUTBOX: u64 = 65_536;

/// The first key of those that only fill the outbox.
const FILL: Key = 1_000;

/// The keys that one process has stored before another one invalidates them.
const KEYS: Key = 4;

/// How many values may be alive beyond those in the caches: under way to the store.
const UNDER_WAY: i64 = 400;

pub fn run(run: &mut Run) {
    run.script.keys = (0..KEYS).collect();
    let healthy = run.start(0, 0, false);
    for key in 0..KEYS {
        run.nodes[&healthy].read(key);
    }
    run.go_until(4 * SECOND);
    let cut_off = run.start(0, 0, true);
    run.world.with(|state| state.trouble_begins(cut_off, true));
    let before = values_alive();
    // Values fill the outbox.
    for number in 0..OUTBOX {
        // Without the checker, which would remember each of them.
        run.nodes[&cut_off]
            .cache
            .insert(FILL + number, Value::new(number));
        if number % 4_096 == 0 {
            run.go_until(run.world.now() + MS);
        }
    }
    let alive = values_alive() - before;
    let most = CAPACITY as i64 + UNDER_WAY;
    if alive > most {
        let text = format!("{alive} values are alive, and process {cut_off} holds {CAPACITY}");
        run.world
            .with(|state| state.fail(Claim::WaitingWritesAreSmall, 0, None, text));
    }
    // These are given up, and those of the other process are still in the store.
    for key in 0..KEYS {
        run.nodes[&cut_off].write(key, false);
    }
    run.go_until(run.world.now() + 200 * MS);
    if let Some(node) = run.nodes.get_mut(&cut_off) {
        node.trouble = Trouble::Refused;
    }
    run.connect(cut_off);
    for key in 0..KEYS {
        run.nodes[&cut_off].read(key);
    }
    run.go_until(run.world.now() + SECOND / 2);
}
