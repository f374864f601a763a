//! The result of a read.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use crate::protocol::entries::Condition;
use crate::protocol::entry::Entry;
use crate::protocol::times::Times;
use crate::sync::{Held, StrongArc};
use crate::time::clock::Tick;

/// A cached value, read in place: it derefs to the value and neither clones nor copies it.
///
/// It may be sent to another thread and held across an `.await`. A later refresh or `invalidate`
/// does not change it. It keeps its entry alive, the key and the value, and no other.
///
/// `K` and `V` stand in the order of [`Cache<K, V>`](crate::Cache): the types of the key and of the
/// value. For [`Fresh<V>`](crate::Fresh) `K` is `()`.
///
/// # Cost
///
/// A thread that holds more than seven at once pays a shared reference count for each further one.
/// To keep many for a long time, clone the values.
///
/// # To clone the value
///
/// `cached.clone()` clones the handle, not the value. For the value write `V::clone(&cached)` or
/// `(*cached).clone()`.
///
/// # Comparing and serializing
///
/// Two of them are equal if their values are; keys, ages and sources do not count. With the feature
/// `serde` it serializes as its value.
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
/// assert_eq!(again.key(), "hello");
/// assert_eq!(again.source(), Source::Fresh);
/// let kept: usize = usize::clone(&again); // again.clone() is a second handle
/// assert_eq!(kept, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cached<K, V> {
    entry: Held<Entry<K, V>>,
    stamp: Stamp,
}

/// The time and the source of a read, in one word, so that a hit that is moved has no padding to
/// copy.
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
/// Of another shape on purpose. The result of a call lies in memory, and a hit that could share
/// that memory would be written there and read back at once, which stalls the processor for as long
/// as the look-up takes.
pub(crate) struct Kept<K, V> {
    entry: StrongArc<Entry<K, V>>,
    stamp: Stamp,
}

impl<K, V> Kept<K, V> {
    pub(crate) fn new(entry: StrongArc<Entry<K, V>>, read_at: Tick, source: Source) -> Self {
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

/// Whether a value was fresh or stale when it was read. Past its hard limit it is never served.
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
        /// The time since the soft limit.
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

    /// Whether the value was before its soft limit.
    pub fn is_fresh(self) -> bool {
        self == Freshness::Fresh
    }

    /// Whether the value was past its soft limit.
    pub fn is_stale(self) -> bool {
        !self.is_fresh()
    }
}

/// The way by which a read got its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// It was resident and fresh.
    Fresh,
    /// It was resident and fresh, and this read started an early refresh.
    Early,
    /// It was resident and stale. A refresh is running, or this read started one, unless the
    /// breaker or a full queue put it off.
    Stale,
    /// It was resident and stale, and the last refresh failed (stale-if-error).
    AfterFailure,
    /// This read loaded it.
    Loaded,
    /// This read waited for the load or refresh of another caller.
    Coalesced,
    /// This read waited for the store, which had it from another or an earlier process.
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

    /// `entry` has a value.
    pub(crate) fn owned(entry: StrongArc<Entry<K, V>>, read_at: Tick, source: Source) -> Self {
        Self::new(Held::owned(entry), read_at, source)
    }

    /// The key, as it was when the value was loaded or inserted.
    pub fn key(&self) -> &K {
        &self.entry.key
    }

    /// Whether the value was fresh when it was read.
    pub fn freshness(&self) -> Freshness {
        Freshness::of(&self.entry.times(), self.stamp.read_at())
    }

    /// How much longer the value stays fresh, counted from the read; zero for a stale value.
    ///
    /// The value may be replaced before that time is over, by an early refresh or by a write.
    ///
    /// # Example
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use everfresh::{Cache, Loaded};
    /// # let cache: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build()?;
    /// cache.insert(3, Loaded::new(9).fresh_for(Duration::from_secs(60)));
    /// let seconds = cache.get_blocking(&3)?.fresh_remaining().as_secs();
    /// let header = format!("Cache-Control: max-age={seconds}");
    /// # assert!(seconds <= 60 && header.len() > 23);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fresh_remaining(&self) -> Duration {
        fresh_remaining(&self.entry.times(), self.stamp.read_at())
    }

    /// The age of the value when it was read, counted from the end of its load.
    pub fn age(&self) -> Duration {
        self.entry.times().age(self.stamp.read_at())
    }

    /// The time that a load of the value takes: the moving average that X-Fetch uses. Zero for a
    /// value that was inserted.
    pub fn cost(&self) -> Duration {
        Duration::from_nanos(self.entry.times().cost())
    }

    /// The way by which the read got the value.
    pub fn source(&self) -> Source {
        self.stamp.source()
    }

    pub(crate) fn parts(&self) -> (&Entry<K, V>, Stamp) {
        (&self.entry, self.stamp)
    }
}

/// How much longer a value stays fresh.
pub(crate) fn fresh_remaining(times: &Times, read_at: Tick) -> Duration {
    Duration::from_nanos(times.fresh_until().saturating_sub(read_at))
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
    /// Clones the handle, by one shared reference count. For the value write `V::clone(&cached)` or
    /// `(*cached).clone()`.
    fn clone(&self) -> Self {
        Cached {
            entry: Held::owned(self.entry.arc().clone()),
            stamp: self.stamp,
        }
    }
}

impl<K, V: PartialEq> PartialEq for Cached<K, V> {
    /// Compares the values.
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<K, V: Eq> Eq for Cached<K, V> {}

#[cfg(feature = "serde")]
impl<K, V: serde::Serialize> serde::Serialize for Cached<K, V> {
    /// Serializes the value.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
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
