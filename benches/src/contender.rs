//! The operations that benches need of a cache, written once for each cache.
//!
//! A [`Contender`] reads and writes one key. [`Typed`] adds the loops, compiled for each contender.
//! So a bench can hold all contenders as [`Subject`]s, and no loop makes a virtual call.

use std::hash::BuildHasher;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

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
    /// Reads all keys once to warm up and waits at the gate. Then reads them over and over for this
    /// time.
    fn read(&self, keys: &[u64], window: Duration, gate: &Barrier) -> Timed;
}

pub trait Subject: Reads {
    /// Inserts keys from 0 on. Returns how many of them the cache did not keep.
    fn fill(&self, keys: u64) -> u64;
    /// Times inserts of consecutive keys, for at most this time.
    fn inserts(&self, keys: Range<u64>, longest: Duration, gate: &Barrier) -> Timed;
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
    read_all(keys);
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

    fn inserts(&self, keys: Range<u64>, longest: Duration, gate: &Barrier) -> Timed {
        let pairs: Vec<(C::Key, V)> = keys.map(|n| (C::key(n), V::make(n))).collect();
        let mut done = 0;
        gate.wait();
        let since = Instant::now();
        for (key, value) in pairs {
            self.0.insert(&key, value);
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
