//! The settings of a cache, checked once, by `build`.

use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use foldhash::quality::RandomState;

use crate::cache::Cache;
use crate::error::BuildError;
use crate::fleet::{Connect, SecondLevel};
use crate::load::admission::AdmissionSettings;
use crate::load::batches::Collects;
use crate::load::engine::RunJob;
use crate::load::runner::Runner;
use crate::load::runtime::Home;
use crate::load::state::{GroupBy, Weigher};
use crate::protocol::removal::{Cause, Listener};
use crate::sync::Arc;
use crate::time::clock::Clock;

/// Makes the start of loads, and says where they run.
type MakeStart<K, V> = Box<dyn FnOnce(Runner) -> Result<Made<K, V>, BuildError>>;

/// What runs the loads of a cache.
pub(super) struct Made<K, V> {
    pub(super) start: RunJob<K, V>,
    pub(super) home: Arc<Home>,
    /// With a loader that takes many keys.
    pub(super) batches: Option<Arc<dyn Collects>>,
}

/// Configures a [`Cache`]; made by [`Cache::builder`].
///
/// Nothing is checked before [`build`](Self::build), and nothing panics. One loader is required. If
/// several are given, the last one counts.
///
/// | the loader | given with |
/// |---|---|
/// | computes | [`compute`](Self::compute), [`try_compute`](Self::try_compute) if it may fail |
/// | computes, with the previous value or the cache | [`compute_with`](Self::compute_with) |
/// | waits | [`load`](Self::load), [`try_load`](Self::try_load) if it may fail |
/// | waits, with a client | [`load_on`](Self::load_on), [`try_load_on`](Self::try_load_on) |
/// | is a type of its own | [`loader`](Self::loader), by the trait [`Loader`](crate::Loader) |
/// | comes with each read | [`without_loader`](Self::without_loader) |
///
/// Loaders that compute run on the threads of a [`pool`](Self::pool), the others on an async
/// runtime.
///
/// A time limit of [`Duration::MAX`] is for ever, and so is one above nine years.
pub struct Builder<K, V, S = RandomState> {
    pub(super) settings: Settings,
    pub(super) hasher: S,
    pub(super) weigher: Option<Weigher<K, V>>,
    pub(super) group_by: Option<GroupBy<K>>,
    pub(super) listener: Option<Listener<K, V>>,
    pub(super) level: Option<Connect<K, V>>,
    pub(super) loader: Option<MakeStart<K, V>>,
}

/// The settings that do not depend on the types of key and value. The code that checks them is
/// compiled once, not for each cache.
pub(super) struct Settings {
    pub(super) runner: Runner,
    pub(super) admission: AdmissionSettings,
    pub(super) capacity: Option<usize>,
    pub(super) max_weight: Option<u64>,
    pub(super) fresh_for: Duration,
    pub(super) stale_for: Duration,
    pub(super) stale_if_error_for: Option<Duration>,
    pub(super) load_timeout: Duration,
    pub(super) close_timeout: Duration,
    pub(super) backoff: (Duration, Duration),
    pub(super) beta: f64,
    pub(super) jitter: f64,
    pub(super) not_found_for: Duration,
    pub(super) forced_every: Duration,
    pub(super) max_depth: usize,
    pub(super) negative_capacity: Option<u64>,
    pub(super) clock: Option<Clock>,
    pub(super) has_loader: bool,
}

impl Settings {
    fn new() -> Self {
        Settings {
            runner: Runner {
                name: "everfresh".to_owned(),
                pool: None,
                threads: None,
                thread_name: None,
                spawner: None,
                keep_late_loads: None,
                run_on_caller: None,
                batch: None,
            },
            admission: AdmissionSettings::default(),
            capacity: None,
            max_weight: None,
            fresh_for: Duration::from_secs(60),
            stale_for: Duration::from_secs(60),
            stale_if_error_for: None,
            load_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            backoff: (Duration::from_millis(100), Duration::from_secs(30)),
            beta: 1.0,
            jitter: 0.0,
            not_found_for: Duration::from_secs(1),
            forced_every: Duration::ZERO,
            max_depth: 128,
            negative_capacity: None,
            clock: None,
            has_loader: true,
        }
    }
}

impl<K, V> Cache<K, V> {
    /// Starts to configure a cache: 10 000 entries, fresh for 60 s, then stale for 60 s.
    pub fn builder() -> Builder<K, V> {
        Builder {
            settings: Settings::new(),
            hasher: RandomState::default(),
            weigher: None,
            group_by: None,
            listener: None,
            level: None,
            loader: None,
        }
    }
}

impl<K, V, S> Builder<K, V, S> {
    /// The name of the cache in metrics, traces and thread names. Default: `"everfresh"`.
    ///
    /// It must not contain a NUL character, because the name of a thread cannot.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.runner.name = name.into();
        self
    }

    /// The largest number of resident values; the limit holds at every moment.
    ///
    /// Default: 10 000. With [`max_weight`](Self::max_weight) the default follows the weight.
    /// [`build`](Self::build) allocates about 34 bytes for each entry, and 8 KB for the loads under
    /// way. The first eviction allocates 6 more for each entry, and at most 26 KB to choose how to
    /// evict. A capacity for which there is not enough memory is a [`BuildError`]. At most 13 of
    /// the keys that share one hash are resident.
    ///
    /// A load takes no value's place while it runs. Where keys of many loads share one set of the
    /// table, further callers wait until one of these loads ends. A read inside a load does not
    /// wait: its load runs at once, its result goes to that read alone and is not kept, and another
    /// such read of the same key loads again. An insert is always kept; it may take the place of a
    /// load, whose callers still get the result, which is then not kept.
    pub fn capacity(mut self, entries: usize) -> Self {
        self.settings.capacity = Some(entries);
        self
    }

    /// Limits the weight of all values together, besides their number. Default: no limit.
    ///
    /// A value is weighed once, when it is loaded or inserted. A value that is heavier than the
    /// whole cache goes to its callers and is not kept. A value that was removed from the cache no
    /// longer counts, even if a [`Reader`](crate::Reader), a [`Pinned`](crate::Pinned) or a
    /// [`Cached`](crate::Cached) still holds it.
    ///
    /// Weights above half a million are rounded up by at most 4 millionths, so that all values
    /// together never exceed the limit. With a limit that is a power of two, or below half a
    /// million, this rounding never refuses a value.
    ///
    /// # Room for entries
    ///
    /// The number of entries stays limited. Without [`capacity`](Self::capacity) the cache holds
    /// one entry for each 1 024 of weight, and at least 65 536. So the number limits the cache only
    /// if there are more than 65 536 values that weigh less than 1 024 on average.
    /// [`build`](Self::build) allocates the table: 2.3 MB up to a weight of 64 MiB, 37 MB for 1
    /// GiB. For many lighter values, or for a smaller table, set `capacity` as well. Above a weight
    /// of 2^34 it is required.
    ///
    /// # Example
    ///
    /// ```
    /// # use everfresh::Cache;
    /// let pages: Cache<u64, String> = Cache::builder()
    ///     .max_weight(64 << 20, |_id, page: &String| page.len() as u32)
    ///     .compute(|id: &u64| format!("page {id}"))
    ///     .build()?;
    /// pages.get_blocking(&7)?;
    /// assert_eq!(pages.weight(), 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_weight<F>(mut self, weight: u64, weigher: F) -> Self
    where
        F: Fn(&K, &V) -> u32 + Send + Sync + 'static,
    {
        self.settings.max_weight = Some(weight);
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// A function that is called with each value that is removed, and the cause.
    ///
    /// It is not called with the values that remain when the cache is dropped, for example at the
    /// end of the program.
    ///
    /// The listener runs after the removal, once for each value, in no particular order. The call
    /// that removes a value also runs the listener, so a slow listener makes writes slow. Such a
    /// call reports as many values as it removed, and at most one that an earlier call left. With
    /// several threads these may be values that another call removed. A call that removes no value
    /// never runs the listener.
    ///
    /// The listener may call the cache. Values that it removes are reported after it returns: up to
    /// 64 by the call that runs it, the others by later calls. A panic in it is caught and dropped.
    ///
    /// # Example
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use everfresh::{Cache, Cause};
    ///
    /// let (gone, removed) = mpsc::channel();
    /// let cache: Cache<u64, u64> = Cache::builder()
    ///     .on_removal(move |key, value, cause| { let _ = gone.send((*key, *value, cause)); })
    ///     .compute(|n: &u64| n * n)
    ///     .build()?;
    /// cache.insert(3, 10);
    /// cache.invalidate(&3);
    /// assert_eq!(removed.recv()?, (3, 10, Cause::Invalidated));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_removal<F>(mut self, listener: F) -> Self
    where
        F: Fn(&K, &V, Cause) + Send + Sync + 'static,
    {
        self.listener = Some(Box::new(listener));
        self
    }

    /// The soft limit: how long a value is fresh. Default: 60 s.
    ///
    /// [`Duration::MAX`] is for ever: such a value is never stale and never refreshed.
    pub fn fresh_for(mut self, duration: Duration) -> Self {
        self.settings.fresh_for = duration;
        self
    }

    /// How long after its fresh time a value is still served while a refresh runs
    /// (stale-while-revalidate, RFC 5861). Default: 60 s.
    ///
    /// Unless [`stale_if_error_for`](Self::stale_if_error_for) is set, a value is served equally
    /// long when its refresh fails.
    ///
    /// The hard limit is the fresh time plus the longer of the two windows. Past it a value is
    /// never served, with one exception: a caller that waited for a load gets its value for 100 ms
    /// after the load ended, even if the value expires sooner. With [`Duration::MAX`] there is no
    /// hard limit.
    pub fn stale_for(mut self, duration: Duration) -> Self {
        self.settings.stale_for = duration;
        self
    }

    /// How long after its fresh time a value is still served when its refresh fails
    /// (stale-if-error, RFC 5861). Default: as long as [`stale_for`](Self::stale_for), and never
    /// shorter.
    ///
    /// After `stale_for` and before the end of this window, callers wait for the refresh and get
    /// the old value if it fails.
    pub fn stale_if_error_for(mut self, duration: Duration) -> Self {
        self.settings.stale_if_error_for = Some(duration);
        self
    }

    /// The longest time that a load or refresh may take. After it the waiting callers get an error
    /// that [`is_timeout`](crate::Error::is_timeout). Default: 30 s.
    ///
    /// The timeout never comes early. It comes late by at most two steps of the [`Clock`], plus the
    /// time that the system needs to wake a thread. A load that had to wait for its turn gets the
    /// full time from its start, and its callers wait as long. If its turn does not come within
    /// `load_timeout` it never runs, and its callers get the same error.
    ///
    /// # At the deadline
    ///
    /// - A time-out is a failure: the key rests for its [`backoff`](Self::backoff). Then the next
    ///   caller may start another load.
    /// - The future of an async load is dropped, unless [`keep_late_loads`](Self::keep_late_loads)
    ///   is set. It is dropped when its runtime polls it, so a loader that blocks the thread of the
    ///   runtime goes on.
    /// - A computation cannot be interrupted. It goes on and keeps its thread, perhaps beside the
    ///   next load of the same key.
    /// - With a store, the lease is given back, so other processes may load the key at once.
    ///
    /// Slow is not down: the result of a load that goes on is published when it comes, if no
    /// other result for the key was published since this load began, and if the key was not
    /// written, invalidated or evicted since. A late failure changes nothing.
    ///
    /// With [`Duration::MAX`] a load that hangs keeps its callers and its key for ever.
    ///
    /// # fork
    ///
    /// The timeout also bounds reads in a child process that was made by `fork` without `exec`. The
    /// child can read the values that were resident. It has no thread of its parent, so neither the
    /// pool nor a runtime runs a load there, and a read that needs one ends with the timeout. Build
    /// a cache after the fork instead. Fork while no other thread uses the cache, because a lock
    /// that another thread holds at that moment stays locked in the child.
    pub fn load_timeout(mut self, duration: Duration) -> Self {
        self.settings.load_timeout = duration;
        self
    }

    /// How long [`close`](crate::Cache::close) waits for the loads that are under way, their
    /// results and the pending writes. Default: 5 s.
    ///
    /// After the limit, `close` waits for the last answers of the store, at most 1 s. Keep both
    /// together below the time that the system gives a program to end, so that the leases are given
    /// back in any case.
    pub fn close_timeout(mut self, duration: Duration) -> Self {
        self.settings.close_timeout = duration;
        self
    }

    /// Lets an async load go on after its [`load_timeout`](Self::load_timeout). Default: false, its
    /// future is dropped.
    ///
    /// For an origin that is slow but whose answers are worth the wait: the late result is
    /// published like that of a computation. A load that hangs then keeps what it holds, such as a
    /// connection, and after the backoff the next load takes another. It also keeps its permit: as
    /// many hung loads as [`max_loads`](Self::max_loads) stop the loads of the cache. With
    /// `compute` this setting would have no effect, so `build` refuses it.
    ///
    /// # Example
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use everfresh::Cache;
    /// let reports: Cache<u64, String> = Cache::builder()
    ///     .load_timeout(Duration::from_secs(2))
    ///     .keep_late_loads(true)
    ///     .spawner(|load| { std::thread::spawn(|| futures_lite::future::block_on(load)); })
    ///     .load(async |id: &u64| format!("report {id}"))
    ///     .build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep_late_loads(mut self, keep: bool) -> Self {
        self.settings.runner.keep_late_loads = Some(keep);
        self
    }

    /// The backoff of a key after its loader failed or timed out: `first`, doubled with each
    /// further failure up to `longest`, less a random part of up to a half. Default: 100 ms to 30
    /// s.
    ///
    /// During the backoff a stale value is served, and callers of a key without a value get the
    /// error of the last attempt at once. `refresh` does not wait for it.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.backoff = (first, longest);
        self
    }

    /// How long the cache remembers that a key was not found, after the loader returned `None` or
    /// [`Loaded::not_found`](crate::Loaded::not_found). Default: 1 s.
    pub fn not_found_for(mut self, duration: Duration) -> Self {
        self.settings.not_found_for = duration;
        self
    }

    /// The least time between two loads that callers force. Default: none.
    ///
    /// Callers force a load by `refresh`, `refresh_if` and by a read with
    /// [`max_age`](crate::ReadTerms::max_age). Within this time after the last value of the key was
    /// made, or after the beginning of an attempt that made none, such a call starts none. It gets
    /// the value at hand, also a stale one. Without a value that may be served it gets the
    /// remembered error, and so does a read with `max_age` whose value is older than this time. A
    /// load that is under way is joined in any case. However many callers come at once, one load
    /// runs.
    ///
    /// It does not limit [`refresh_from_now`](Cache::refresh_from_now), whose result must be newer
    /// than the call, nor loads of keys that have neither a value nor an error.
    ///
    /// # For requests that anyone can make
    ///
    /// The limit is per key, so it is one for a [`Fresh`](crate::Fresh), and thus for everything
    /// that its value holds: a request that names an unknown signing key makes a program refresh
    /// the set of keys, and a thousand forged requests make it do so once. A `Cache` whose keys are
    /// the ids of signing keys has no such limit, because each made-up id is a key of its own and
    /// causes its own load. The example `signing_keys.rs` does it.
    ///
    /// # Example
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use std::sync::atomic::{AtomicU64, Ordering};
    /// # use everfresh::Fresh;
    /// let loads = AtomicU64::new(0);
    /// let keys: Fresh<u64> = Fresh::builder()
    ///     .forced_at_most_every(Duration::from_secs(10))
    ///     .compute(move |&()| loads.fetch_add(1, Ordering::Relaxed))
    ///     .build_fresh()?;
    /// for _ in 0..1_000 {
    ///     assert_eq!(*keys.refresh_blocking()?, 0);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn forced_at_most_every(mut self, duration: Duration) -> Self {
        self.settings.forced_every = duration;
        self
    }

    /// The largest number of negative entries: keys that were not found or whose loads fail.
    /// Default: the [`capacity`](Self::capacity), but at least 1 000.
    ///
    /// Negative entries take no room from values. It must be at least 1, because a key without a
    /// negative entry has no backoff. All remembered errors together take at most 64 MB, by the
    /// size of their texts: large errors leave room for fewer keys, and the text of an error above
    /// 4 MB is not kept.
    pub fn negative_capacity(mut self, keys: u64) -> Self {
        self.settings.negative_capacity = Some(keys);
        self
    }

    /// How early X-Fetch refreshes before the soft limit. Default: 1, the published optimum. More
    /// is earlier, and 0 turns early refreshes off.
    ///
    /// At `r` reads a second and a load that takes `c` seconds the refresh starts on average
    /// `beta * c * (ln(r * beta * c) + 0.577)` seconds early, at most half the fresh time.
    pub fn beta(mut self, beta: f64) -> Self {
        self.settings.beta = beta;
        self
    }

    /// The part of the fresh time, 0 to 1, of which a random share is subtracted from each value's
    /// fresh time, so that values that were loaded together do not become stale together. Default:
    /// 0.
    pub fn jitter(mut self, part: f64) -> Self {
        self.settings.jitter = part;
        self
    }

    /// The source of time. Default: [`Clock::coarse`] where the soft limit is at least 400 ms, else
    /// [`Clock::precise`].
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.settings.clock = Some(clock.into());
        self
    }

    /// The hash function of keys. Default: foldhash with a random seed. For keys that an attacker
    /// chooses, use [`std::hash::RandomState`].
    pub fn hasher<T: BuildHasher>(self, hasher: T) -> Builder<K, V, T> {
        Builder {
            settings: self.settings,
            hasher,
            weigher: self.weigher,
            group_by: self.group_by,
            listener: self.listener,
            level: self.level,
            loader: self.loader,
        }
    }
}

impl<K, V, S> Builder<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// A second level: values outlive the process, and a fleet of processes shares one refresh.
    /// Default: none. See [`docs::store`](crate::docs::store).
    pub fn store(mut self, level: SecondLevel<K, V>) -> Self {
        self.level = Some(level.connect());
        self
    }
}
