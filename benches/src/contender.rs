//! The operations that benches need of a cache, written once for each cache.
//!
//! A [`Contender`] reads and writes one key. [`Typed`] adds the loops, compiled for each contender.
//! So a bench can hold all contenders as [`Subject`]s, and no loop makes a virtual call.

use std::hash::BuildHasher;
use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::mixed::Mixed;
use crate::tail::{Histogram, Mix};

/// A value of the caches.
pub trait Value: Clone + Send + Sync + 'static {
    fn make(n: u64) -> Self;
    /// One byte of the value, so that a read really touches it.
    fn first(&self) -> u8;
}

impl Value for Arc<[u8; 64]> {
    fn make(n: u64) -> Self {
        Arc::new([n as u8; 64])
    }

    #[inline]
    fn first(&self) -> u8 {
        self[0]
    }
}

impl Value for [u8; 64] {
    fn make(n: u64) -> Self {
        [n as u8; 64]
    }

    #[inline]
    fn first(&self) -> u8 {
        self[0]
    }
}

/// A value with a niche, so that its absence takes no space of its own.
impl Value for NonZeroU64 {
    fn make(n: u64) -> Self {
        NonZeroU64::MIN.saturating_add(n)
    }

    #[inline]
    fn first(&self) -> u8 {
        self.get() as u8
    }
}

impl Value for u64 {
    fn make(n: u64) -> Self {
        n
    }

    #[inline]
    fn first(&self) -> u8 {
        *self as u8
    }
}

pub trait Hashing: BuildHasher + Clone + Default + Send + Sync + 'static {}
impl<S: BuildHasher + Clone + Default + Send + Sync + 'static> Hashing for S {}

#[derive(Clone, Copy)]
pub struct Config {
    pub capacity: usize,
    /// The time to live, for caches with expiry.
    pub ttl: Duration,
}

impl Config {
    /// Nothing expires during a bench, but every cache with expiry has to check.
    pub fn lasting(capacity: usize) -> Self {
        Config {
            capacity,
            ttl: Duration::from_secs(3_600),
        }
    }
}

pub trait Contender<V: Value>: Send + Sync + 'static {
    /// Makes the key before the clock runs.
    type Key;

    fn key(n: u64) -> Self::Key;
    fn get(&self, key: &Self::Key) -> Option<u8>;
    fn insert(&self, key: &Self::Key, value: V);
    fn invalidate(&self, key: &Self::Key);

    /// Reads a key in the way of a user, and inserts it if it is missing. Returns whether it was a
    /// hit.
    fn through(&self, n: u64, key: &Self::Key) -> bool {
        let hit = self.get(key).is_some();
        if !hit {
            self.insert(key, V::make(n));
        }
        hit
    }

    /// Waits for work in the background.
    fn settle(&self) {}

    fn len(&self) -> usize;
}

/// The measurements of one thread.
#[derive(Clone, Copy)]
pub struct Timed {
    /// Nanoseconds per operation.
    pub ns: f64,
    pub misses: u64,
}

pub trait Reads: Send + Sync {
    /// Reads the keys once to warm up and waits at the gate. Then reads them over and over for this
    /// time.
    fn read(&self, keys: &[u64], window: Duration, gate: &Barrier) -> Timed;
}

pub trait Subject: Reads {
    /// Inserts keys from 0 on. Returns how many of them the cache did not keep.
    fn fill(&self, keys: u64) -> u64;
    /// Times inserts of these keys, for at most this time.
    fn inserts(&self, keys: &[u64], longest: Duration, gate: &Barrier) -> Timed;
    /// Inserts these keys, and times their invalidation, for at most this time.
    fn invalidates(&self, keys: &[u64], longest: Duration, gate: &Barrier) -> Timed;
    /// Times a mix of reads and inserts. A read inserts its key if it is missing.
    fn mixes(&self, mix: &Mixed, window: Duration, gate: &Barrier) -> Timed;
    /// Reads one key.
    fn touch(&self, key: u64);
    /// Gets each key, and inserts it if it is missing. Calls back at each miss.
    fn replay(&self, trace: &[u32], missed: &mut dyn FnMut(u32));
    /// Times each hit of a mix of reads and inserts.
    fn tail(&self, mix: &Mix, hits: &mut Histogram);
    fn len(&self) -> usize;
}

pub struct Typed<V, C>(C, PhantomData<V>);

pub fn typed<V: Value, C: Contender<V>>(contender: C) -> Box<dyn Subject> {
    Box::new(Typed(contender, PhantomData))
}

pub fn per_operation(since: Instant, operations: usize) -> f64 {
    since.elapsed().as_nanos() as f64 / operations as f64
}

impl<V: Value, C: Contender<V>> Reads for Typed<V, C> {
    fn read(&self, keys: &[u64], window: Duration, gate: &Barrier) -> Timed {
        let keys: Vec<C::Key> = keys.iter().map(|&n| C::key(n)).collect();
        timed(&keys, window, gate, |key| self.0.get(key))
    }
}

/// The loop of [`Reads::read`]. It is limited by time, not by count: threads with a few reads each
/// would run one after the other and never meet.
#[inline]
pub fn timed<K>(
    keys: &[K],
    window: Duration,
    gate: &Barrier,
    mut read: impl FnMut(&K) -> Option<u8>,
) -> Timed {
    let mut read_all = |keys: &[K]| {
        let mut misses = 0;
        for key in keys {
            match read(key) {
                Some(byte) => _ = std::hint::black_box(byte),
                None => misses += 1,
            }
        }
        misses
    };
    // No longer than this, because a peer that is slow on many threads would take minutes.
    let warm = Instant::now() + window * 10;
    for part in keys.chunks(1_024) {
        read_all(part);
        if Instant::now() > warm {
            break;
        }
    }
    gate.wait();
    let since = Instant::now();
    let (mut done, mut misses) = (0, 0);
    for part in keys.chunks(1_024).cycle() {
        misses += read_all(part);
        done += part.len();
        if since.elapsed() >= window {
            break;
        }
    }
    Timed {
        ns: per_operation(since, done),
        misses,
    }
}

/// Times this for each item, for at most this time.
#[inline]
fn each<T>(items: Vec<T>, longest: Duration, gate: &Barrier, mut act: impl FnMut(T)) -> Timed {
    let mut items = items.into_iter();
    let mut done = 0;
    gate.wait();
    let since = Instant::now();
    // By reference, so that the items that are left are dropped after the clock is read.
    for item in items.by_ref() {
        act(item);
        done += 1;
        if done % 64 == 0 && since.elapsed() > longest {
            break;
        }
    }
    Timed {
        ns: per_operation(since, done),
        misses: 0,
    }
}

impl<V: Value, C: Contender<V>> Subject for Typed<V, C> {
    fn fill(&self, keys: u64) -> u64 {
        let mut missing = Vec::new();
        for attempt in 0..5 {
            let these = match attempt {
                0 => (0..keys).collect(),
                _ => std::mem::take(&mut missing),
            };
            for &n in &these {
                self.0.insert(&C::key(n), V::make(n));
            }
            self.0.settle();
            missing = (0..keys)
                .filter(|&n| self.0.get(&C::key(n)).is_none())
                .collect();
            if missing.is_empty() {
                break;
            }
        }
        missing.len() as u64
    }

    fn inserts(&self, keys: &[u64], longest: Duration, gate: &Barrier) -> Timed {
        let pairs: Vec<(C::Key, V)> = keys.iter().map(|&n| (C::key(n), V::make(n))).collect();
        each(pairs, longest, gate, |(key, value)| {
            self.0.insert(&key, value)
        })
    }

    fn invalidates(&self, keys: &[u64], longest: Duration, gate: &Barrier) -> Timed {
        let keys: Vec<(u64, C::Key)> = keys.iter().map(|&n| (n, C::key(n))).collect();
        for (n, key) in &keys {
            self.0.insert(key, V::make(*n));
        }
        self.0.settle();
        each(keys, longest, gate, |(_, key)| self.0.invalidate(&key))
    }

    fn mixes(&self, mix: &Mixed, window: Duration, gate: &Barrier) -> Timed {
        let reads: Vec<(u64, C::Key)> = mix.reads.iter().map(|&n| (n, C::key(n))).collect();
        let mut new = mix.inserts_from;
        let mut until_insert = mix.insert_every;
        let (mut done, mut misses) = (0, 0);
        gate.wait();
        let since = Instant::now();
        for (n, key) in reads.iter().cycle() {
            until_insert -= 1;
            if until_insert == 0 {
                until_insert = mix.insert_every;
                self.0.insert(&C::key(new), V::make(new));
                new += 1;
            } else if let Some(byte) = self.0.get(key) {
                std::hint::black_box(byte);
            } else {
                self.0.insert(key, V::make(*n));
                misses += 1;
            }
            done += 1;
            if done % 64 == 0 && since.elapsed() > window {
                break;
            }
        }
        Timed {
            ns: per_operation(since, done),
            misses,
        }
    }

    fn touch(&self, key: u64) {
        self.0.get(&C::key(key));
    }

    fn replay(&self, trace: &[u32], missed: &mut dyn FnMut(u32)) {
        for &n in trace {
            let key = C::key(u64::from(n));
            if self.0.get(&key).is_none() {
                self.0.insert(&key, V::make(u64::from(n)));
                missed(n);
            }
        }
    }

    fn tail(&self, mix: &Mix, hits: &mut Histogram) {
        let mut fresh = mix.inserts_from;
        let mut at = 0;
        while Instant::now() < mix.until {
            for _ in 0..64 {
                let n = mix.reads[at % mix.reads.len()];
                at += 1;
                if at.is_multiple_of(10) {
                    self.0.insert(&C::key(fresh), V::make(fresh));
                    fresh += 1;
                    continue;
                }
                let key = C::key(n);
                let since = Instant::now();
                let hit = self.0.through(n, &key);
                let took = since.elapsed();
                if hit {
                    hits.add(took);
                }
            }
        }
    }

    fn len(&self) -> usize {
        self.0.settle();
        self.0.len()
    }
}
