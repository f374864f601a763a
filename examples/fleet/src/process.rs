//! One process of the fleet: a cache with a store. It executes commands, one per line, and reports
//! events.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use everfresh::SecondLevel;
use everfresh::store::{Namespace, RedisStore, Store};
use everfresh::{Cache, Error, Loaded, Request, Source};
use futures_lite::future::block_on;
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::keys::{FRESH, LASTING, LOAD, SLOW, SLOW_LOAD, STALE, hash, micros, random};
use crate::log::Event;
use crate::witness::Witness;

/// The first argument of a process of the fleet; not for users.
pub const HIDDEN: &str = "--process-of-the-fleet";

const READERS: usize = 2;
const HOUR: Duration = Duration::from_secs(3_600);

/// Writes a line. If the reader has ended, this process ends too.
pub fn say(line: &impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

pub fn run(mut words: impl Iterator<Item = String>) -> ExitCode {
    let mut word = || words.next().unwrap_or_default();
    let started = Worker::start(&word(), &word(), &word());
    let process = match started {
        Ok(process) => process,
        Err(error) => {
            eprintln!("fleet: {error}");
            return ExitCode::FAILURE;
        }
    };
    say(&"ready");
    let mut busy = Busy::default();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let mut words = line.split(' ');
        let verb = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.flat_map(str::parse).collect();
        match (verb, &numbers[..]) {
            ("get", [key]) => process.get(*key),
            ("watch", [key, id]) => process.watch(*key, *id),
            ("invalidate", [key]) => process.invalidate(*key),
            ("read", [from, keys]) => busy.read(&process, *from, *keys),
            ("write", [from, keys]) => busy.write(&process, *from, *keys),
            ("rest", []) => busy.rest(&process),
            ("state", []) => say(&format!(
                "state {}",
                u8::from(process.store.state().is_up())
            )),
            _ => break,
        }
    }
    if let Err(error) = process.cache.close_blocking() {
        eprintln!("fleet: {error}");
    }
    ExitCode::SUCCESS
}

#[derive(Clone)]
struct Worker {
    cache: Cache<u64, u64>,
    store: Arc<Witness>,
    namespace: Namespace,
    loading: Arc<AtomicU64>,
}

impl Worker {
    fn start(
        url: &str,
        namespace: &str,
        lease_ms: &str,
    ) -> Result<Worker, Box<dyn std::error::Error>> {
        let store = Witness::new(RedisStore::builder(url).connect_blocking()?);
        let lease = Duration::from_millis(lease_ms.parse()?);
        let loading = Arc::new(AtomicU64::new(0));
        let namespace_ = Namespace::new(namespace)?;
        let loader = {
            let (store, loading, namespace) = (store.clone(), loading.clone(), namespace_.clone());
            move |request: &Request<u64, u64>| load(request, &store, &namespace, &loading)
        };
        let cache = Cache::builder()
            .name("fleet")
            .capacity(10_000)
            .fresh_for(FRESH)
            .stale_for(STALE)
            .beta(0.0) // no early refresh: every refresh here is of a stale value
            .threads(4)
            .store(SecondLevel::new(store.clone(), namespace)?.lease(lease))
            .compute_with(loader)
            .build()?;
        Ok(Worker {
            cache,
            store,
            namespace: namespace_,
            loading,
        })
    }

    fn get(&self, key: u64) {
        match self.cache.get_blocking(&key) {
            Ok(value) => say(&format!("got {key} {}", *value)),
            Err(error) => say(&format!("got {key} - {error}")),
        }
    }

    /// Reads until the cache no longer serves a value.
    fn watch(&self, key: u64, id: u64) {
        say(&"watching");
        let process = self.clone();
        thread::spawn(move || {
            while process
                .cache
                .get_if_present(&key)
                .is_some_and(|value| *value == id)
            {
                thread::sleep(Duration::from_micros(100));
            }
            say(&format!("gone {}", micros()));
        });
    }

    fn invalidate(&self, key: u64) {
        let at = micros();
        let sent = block_on(self.cache.invalidate_everywhere(&key));
        say(&format!("invalidated {at} {}", u8::from(sent.is_ok())));
    }
}

/// The origin: slow, and shared by all processes. It returns a number that no other load returns.
fn load(
    request: &Request<u64, u64>,
    store: &Witness,
    namespace: &Namespace,
    loading: &AtomicU64,
) -> Result<Loaded<u64>, std::convert::Infallible> {
    loading.fetch_add(1, Ordering::SeqCst);
    let (key, id) = (*request.key(), number());
    let hash = hash(namespace, key);
    say(&Event::Load {
        hash,
        base: store.base(hash).map(|epoch| epoch.micros()),
        id,
        previous: request.previous().copied(),
        at: micros(),
    });
    thread::sleep(if key >= SLOW { SLOW_LOAD } else { LOAD });
    loading.fetch_sub(1, Ordering::SeqCst);
    say(&Event::Loaded { hash, id });
    let loaded = Loaded::new(id);
    Ok(match (LASTING..SLOW).contains(&key) {
        true => loaded.fresh_for(HOUR),
        false => loaded,
    })
}

/// A number that no other call in any process returns.
fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static FIRST: OnceLock<u64> = OnceLock::new();
    let first = *FIRST.get_or_init(|| random().random_range(0..1 << 30) << 32);
    first + NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Threads that read and write until the command `rest`.
#[derive(Default)]
struct Busy {
    stop: Arc<AtomicBool>,
    readers: Vec<JoinHandle<ReadCounts>>,
    writers: Vec<JoinHandle<()>>,
}

/// Reads by outcome.
#[derive(Default)]
struct ReadCounts {
    reads: u64,
    stale: u64,
    waited: u64,
    failed: u64,
}

impl Busy {
    fn read(&mut self, process: &Worker, from: u64, keys: u64) {
        for _ in 0..READERS {
            let (process, stop) = (process.clone(), self.stop.clone());
            self.readers.push(thread::spawn(move || {
                let (zipf, mut rng) = (Zipf::new(keys), random());
                let mut seen = ReadCounts::default();
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..20 {
                        seen.count(&process.cache.get_blocking(&(from + zipf.draw(&mut rng))));
                    }
                    thread::sleep(Duration::from_micros(500));
                }
                seen
            }));
        }
    }

    /// Invalidates a key, reads the value after it, and inserts now and then.
    fn write(&mut self, process: &Worker, from: u64, keys: u64) {
        let (process, stop) = (process.clone(), self.stop.clone());
        self.writers.push(thread::spawn(move || {
            let mut rng = random();
            while !stop.load(Ordering::Relaxed) {
                let key = from + rng.random_range(0..keys);
                if rng.random_range(0..4) == 0 {
                    let _ = block_on(process.cache.insert_everywhere(key, number()));
                } else {
                    let at = micros();
                    let _ = block_on(process.cache.invalidate_everywhere(&key));
                    if let Ok(value) = process.cache.get_blocking(&key) {
                        let hash = hash(&process.namespace, key);
                        say(&Event::After {
                            hash,
                            id: *value,
                            at,
                        });
                    }
                }
                thread::sleep(Duration::from_millis(rng.random_range(10..60)));
            }
        }));
    }

    fn rest(&mut self, process: &Worker) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            let _ = writer.join();
        }
        let mut all = ReadCounts::default();
        for reader in self.readers.drain(..) {
            if let Ok(seen) = reader.join() {
                all.reads += seen.reads;
                all.stale += seen.stale;
                all.waited += seen.waited;
                all.failed += seen.failed;
            }
        }
        while process.loading.load(Ordering::SeqCst) > 0 {
            thread::sleep(Duration::from_millis(1));
        }
        self.stop = Arc::default();
        say(&format!(
            "seen {} {} {} {}",
            all.reads, all.stale, all.waited, all.failed
        ));
    }
}

impl ReadCounts {
    fn count<K>(&mut self, read: &Result<everfresh::Cached<K, u64>, Error>) {
        self.reads += 1;
        match read {
            Ok(value) => {
                self.stale += u64::from(value.freshness().is_stale());
                let at_once = matches!(
                    value.source(),
                    Source::Fresh | Source::Early | Source::Stale | Source::AfterFailure
                );
                self.waited += u64::from(!at_once);
            }
            Err(_) => self.failed += 1,
        }
    }
}

/// Draws keys; the n-th is drawn 1/n as often as the first.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(keys: u64) -> Zipf {
        let mut sum = 0.0;
        let sums = (1..=keys).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Zipf(sums.collect())
    }

    fn draw(&self, rng: &mut SmallRng) -> u64 {
        let all = self.0.last().copied().unwrap_or(1.0);
        let at = rng.random_range(0.0..all);
        self.0.partition_point(|sum| *sum <= at) as u64
    }
}
