//! What a read returns.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use crate::protocol::entries::Condition;
use crate::protocol::entry::Entry;
use crate::protocol::times::Times;
use crate::sync::{Arc, Held};
use crate::time::clock::Tick;

/// A cached value, read in place: it derefs to the value and neither clones nor copies it.
///
/// It may be sent to another thread and held across an `.await`. What it shows stays as it was
/// at the read: a later refresh or `invalidate` does not change it. It keeps its value alive, and only that one.
///
/// A thread that holds more than eight at once pays a shared reference count for each further one; to keep many for long,
/// clone the value.
///
/// `K` is the key type of the cache it came from, `()` for a value without one.
///
/// # Example
///
/// ```
/// use everfresh::{Cache, Source};
///
/// let lengths: Cache<String, usize> = Cache::builder()
///     .compute(|text: &String| text.len())
///     .build()?;
/// assert_eq!(lengths.get_blocking("hello")?.source(), Source::Loaded);
/// let again = lengths.get_blocking("hello")?;
/// assert_eq!(*again, 5);
/// assert_eq!(again.source(), Source::Fresh);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cached<K, V> {
    entry: Held<Entry<K, V>>,
    stamp: Stamp,
}

/// When a value was read and where it came from, in one word: a hit that is moved about has no padding to copy.
#[derive(Clone, Copy)]
pub(crate) struct Stamp(u64);

impl Stamp {
    const SOURCE_BITS: u32 = 3;
    /// 73 years of ticks.
    const LATEST: Tick = u64::MAX >> Self::SOURCE_BITS;
    const SOURCES: [Source; 7] = [
        Source::Fresh,
        Source::Early,
        Source::Stale,
        Source::AfterFailure,
        Source::Loaded,
        Source::Coalesced,
        Source::Store,
    ];

    #[inline]
    pub(crate) fn new(read_at: Tick, source: Source) -> Self {
        Stamp(read_at.min(Self::LATEST) << Self::SOURCE_BITS | source as u64)
    }

    pub(crate) fn read_at(self) -> Tick {
        self.0 >> Self::SOURCE_BITS
    }

    pub(crate) fn source(self) -> Source {
        let number = self.0 as usize & ((1 << Self::SOURCE_BITS) - 1);
        debug_assert_eq!(Self::SOURCES[number] as usize, number);
        Self::SOURCES[number]
    }
}

/// A [`Cached`] as the slow half of a read returns it.
///
/// Of another shape on purpose: what a call returns lies in memory, and a hit that could share that memory would be written
/// there and read back at once, which stalls the processor for as long as the look-up takes.
pub(crate) struct Kept<K, V> {
    entry: Arc<Entry<K, V>>,
    stamp: Stamp,
}

impl<K, V> Kept<K, V> {
    pub(crate) fn new(entry: Arc<Entry<K, V>>, read_at: Tick, source: Source) -> Self {
        Kept {
            entry,
            stamp: Stamp::new(read_at, source),
        }
    }

    pub(crate) fn source(&self) -> Source {
        self.stamp.source()
    }
}

impl<K, V> From<Kept<K, V>> for Cached<K, V> {
    #[inline(always)]
    fn from(kept: Kept<K, V>) -> Self {
        Cached {
            entry: Held::owned(kept.entry),
            stamp: kept.stamp,
        }
    }
}

/// Whether a value was fresh or stale when it was read; past its hard limit it is never served.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use everfresh::{Cache, Freshness, Loaded};
///
/// let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
/// cache.insert(3, Loaded::new(9).fresh_for(Duration::ZERO)); // stale at once
/// match cache.get_blocking(&3)?.freshness() {
///     Freshness::Stale { by } => println!("stale for {by:?}; a refresh is running"),
///     Freshness::Fresh => unreachable!(),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Before the soft limit.
    Fresh,
    /// Between the soft and the hard limit.
    Stale {
        /// How far past the soft limit.
        by: Duration,
    },
}

impl Freshness {
    pub(crate) fn of(times: &Times, read_at: Tick) -> Self {
        match read_at.checked_sub(times.fresh_until()) {
            None => Freshness::Fresh,
            Some(by) => Freshness::Stale {
                by: Duration::from_nanos(by),
            },
        }
    }

    /// Before the soft limit.
    pub fn is_fresh(self) -> bool {
        self == Freshness::Fresh
    }

    /// Past the soft limit.
    pub fn is_stale(self) -> bool {
        !self.is_fresh()
    }
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// It was here and fresh.
    Fresh,
    /// It was here and fresh, and this read started an early refresh.
    Early,
    /// It was here and stale; a refresh is running, or this read started one.
    Stale,
    /// It was here and stale, and the last refresh failed (stale-if-error).
    AfterFailure,
    /// This read loaded it.
    Loaded,
    /// This read waited while another caller loaded or refreshed it.
    Coalesced,
    /// This read waited for the store, where another process, or an earlier one, had put it.
    Store,
}

impl From<Condition> for Source {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::Fresh => Source::Fresh,
            Condition::Early => Source::Early,
            Condition::Stale => Source::Stale,
            Condition::AfterFailure => Source::AfterFailure,
        }
    }
}

impl<K, V> Cached<K, V> {
    /// `entry` has a value.
    #[inline]
    pub(crate) fn new(entry: Held<Entry<K, V>>, read_at: Tick, source: Source) -> Self {
        debug_assert!(!entry.is_loading());
        Cached {
            entry,
            stamp: Stamp::new(read_at, source),
        }
    }

    /// The same with a counted reference.
    pub(crate) fn kept(self) -> Kept<K, V> {
        Kept {
            entry: self.entry.into_arc(),
            stamp: self.stamp,
        }
    }

    /// Whether it was fresh when it was read.
    pub fn freshness(&self) -> Freshness {
        Freshness::of(&self.entry.times, self.stamp.read_at())
    }

    /// How old it was when it was read, counted from the end of its load.
    pub fn age(&self) -> Duration {
        self.entry.times.age(self.stamp.read_at())
    }

    /// How long its load takes: the moving average that X-Fetch goes by, zero for a value that was inserted.
    pub fn cost(&self) -> Duration {
        Duration::from_nanos(self.entry.times.cost())
    }

    /// Where it came from.
    pub fn source(&self) -> Source {
        self.stamp.source()
    }

    pub(crate) fn parts(&self) -> (&Entry<K, V>, Stamp) {
        (&self.entry, self.stamp)
    }
}

impl<K, V> Deref for Cached<K, V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        match self.entry.value() {
            Some(value) => value,
            None => unreachable!("a Cached is only made from an entry with a value"),
        }
    }
}

impl<K, V> AsRef<V> for Cached<K, V> {
    fn as_ref(&self) -> &V {
        self
    }
}

impl<K, V> Clone for Cached<K, V> {
    /// Counts a reference; the value is not cloned.
    fn clone(&self) -> Self {
        Cached {
            entry: Held::owned(self.entry.arc().clone()),
            stamp: self.stamp,
        }
    }
}

impl<K, V: fmt::Debug> fmt::Debug for Cached<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("value", &**self)
            .field("freshness", &self.freshness())
            .field("source", &self.source())
            .finish()
    }
}

impl<K, V: fmt::Display> fmt::Display for Cached<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
