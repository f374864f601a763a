//! All operations at once, on caches that are made and dropped: a program for memory checkers.
//!
//! Each value carries a canary that its drop destroys, so that most reads of a dropped value are
//! detected even without a checker. Under AddressSanitizer `tests/run.sh` asks for more steps.
//! `EVERFRESH_STRESS_ROUNDS` is the number of steps of each thread. Default: 2 000.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::thread;

use everfresh::{Cache, Cached, CountingLoader, ManualClock, Pinned, Reader};

use crate::support::random::{Rng, rounds};
use crate::support::*;

const THREADS: u64 = 8;
const CACHES: u64 = 3;
const KEYS: u64 = 24;

/// The most values, readers and pins that each thread keeps.
const KEPT: usize = 16;

/// The caches that all threads use, and replace.
struct Scene {
    caches: Vec<Mutex<Cache<u64, Tracked>>>,
    loader: CountingLoader<u64, Tracked>,
    tally: Tally,
    clock: ManualClock,
}

impl Scene {
    fn new() -> Self {
        let (tally, clock) = (Tally::default(), ManualClock::new());
        let making = tally.clone();
        let loader = CountingLoader::new(move |_: &u64| making.make());
        let caches = (0..CACHES).map(|number| Mutex::new(cache(&clock, &loader, number)));
        Scene {
            caches: caches.collect(),
            loader,
            tally,
            clock,
        }
    }

    fn cache(&self, number: u64) -> Cache<u64, Tracked> {
        self.caches[number as usize].lock().unwrap().clone()
    }

    /// Other threads may hold the old cache, readers of it, or its values; the last owner drops it.
    fn replace(&self, number: u64) {
        let new = cache(&self.clock, &self.loader, number);
        let old = std::mem::replace(&mut *self.caches[number as usize].lock().unwrap(), new);
        drop(old);
    }
}

/// The first cache has room for a few of the keys, the second for half, the third for all.
fn cache(
    clock: &ManualClock,
    loader: &CountingLoader<u64, Tracked>,
    number: u64,
) -> Cache<u64, Tracked> {
    let capacity = [3, 12, 100][number as usize];
    let limited = builder(clock)
        .capacity(capacity)
        // The values that a listener gets are intact.
        .on_removal(|_: &u64, value: &Tracked, _| value.check());
    computing(limited, loader)
}

/// Values that a thread keeps while other threads remove them from the caches.
#[derive(Default)]
struct Kept {
    values: VecDeque<Cached<u64, Tracked>>,
    readers: VecDeque<Reader<u64, Tracked>>,
    pins: VecDeque<Pinned<u64, Tracked>>,
}

fn keep<T>(kept: &mut VecDeque<T>, new: impl IntoIterator<Item = T>) {
    kept.extend(new);
    while kept.len() > KEPT {
        kept.pop_front();
    }
}

impl Kept {
    fn step(&mut self, scene: &Scene, rng: &mut Rng) {
        let number = rng.below(CACHES);
        let (cache, key) = (scene.cache(number), rng.below(KEYS));
        match rng.below(100) {
            0..12 => cache.insert(key, scene.tally.make()),
            12..20 => drop(cache.invalidate(&key)),
            20 => cache.invalidate_all(),
            21..24 => drop(cache.sweep()),
            24..28 => scene.clock.advance(secs(rng.below(8))),
            28..30 => scene.loader.fail_next(1),
            30..36 => self.begin(refresh(&cache, key)),
            36..42 => self.begin(get(&cache, key)),
            42..52 => keep(&mut self.values, cache.get_if_present(&key)),
            52..54 => keep(&mut self.readers, [cache.reader()]),
            54..60 => keep(&mut self.pins, [cache.pin(key)]),
            60..70 => {
                for reader in &mut self.readers {
                    if let Ok(seen) = reader.get_blocking(&key) {
                        seen.check();
                    }
                }
            }
            70..80 => {
                for pin in &mut self.pins {
                    if let Ok(seen) = pin.get_blocking() {
                        seen.check();
                    }
                }
            }
            80 => scene.replace(number),
            81 => *self = Kept::default(),
            _ => keep(&mut self.values, cache.get_blocking(&key)),
        }
        self.values.iter().for_each(|value| value.check());
    }

    /// Polls once, and drops the future if it is not ready.
    fn begin(&mut self, mut reading: Reading<Tracked>) {
        if let std::task::Poll::Ready(read) = poll(&mut reading) {
            keep(&mut self.values, read);
        }
    }
}

#[test]
fn values_stay_intact_while_they_are_held_and_are_dropped_once() {
    let scene = Scene::new();
    thread::scope(|scope| {
        for stream in 0..THREADS {
            let scene = &scene;
            scope.spawn(move || {
                let (mut rng, mut kept) = (Rng::new(700 + stream), Kept::default());
                for _ in 0..rounds(2_000) {
                    kept.step(scene, &mut rng);
                }
            });
        }
    });
    let Scene { caches, tally, .. } = scene;
    drop(caches);
    until("every value is dropped", || tally.alive() == 0);
    assert!(tally.made() > 1_000 || rounds(2_000) < 1_000);
}
