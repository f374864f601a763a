//! A small cache, moments in the life of its entries, and whole calls as the public API makes them.

use std::sync::Arc;
use std::time::Duration;

use everfresh::Error;
pub use everfresh::model::time_out;
use everfresh::model::{
    Answer, Begun, ClaimGuard, DropLater, Entries, Entry, EvictionState, Flight, Held, Lifetime,
    Limits, Made, Outcome, Place, Published, Read, Removals, Times, Timing, Weight, generation,
};
use loom::future::block_on;

pub type Cache = Entries<u8, u64>;
pub type Item = Entry<u8, u64>;

const SECOND: u64 = 1_000_000_000;

/// Moments in the life of an entry created at 0: stale from 10 s, expired from 20 s. A claim lasts
/// 2 s, and a dropped claim rests for 1 s.
pub const CREATED: u64 = 0;
pub const STALE: u64 = 11 * SECOND;
/// After the rest of a claim made at `STALE`, before its deadline.
pub const STALE_RESTED: u64 = STALE + 3 * SECOND / 2;
/// After the deadline of a claim made at `STALE`.
pub const STALE_LATE: u64 = STALE + 3 * SECOND;
pub const EXPIRED: u64 = 21 * SECOND;
/// Just before the hard limit: a claim made now still runs at `EXPIRED`.
pub const EXPIRING: u64 = 20 * SECOND - 1;
/// After the deadline of a claim made at `EXPIRED`.
pub const EXPIRED_LATE: u64 = EXPIRED + 3 * SECOND;

/// The key of every model that needs only one.
pub const KEY: u8 = 1;
/// A key in the other shard, if there are two.
pub const OTHER: u8 = 2;
/// The value of `KEY` at the start.
pub const OLD: u64 = 100;

const TIMING: Timing = Timing {
    claim_for: 2 * SECOND,
    timeout: Duration::from_secs(2),
    rest_for: SECOND,
};

/// One set with two ways, and no limit on the weight.
fn limits(entries: usize) -> Limits {
    Limits {
        entries,
        weight: u64::MAX,
        ways: 2,
        shards: 1,
    }
}

/// An empty cache of one set with two ways.
pub fn empty() -> Arc<Cache> {
    Arc::new(Entries::new(limits(2), TIMING, Removals::new(None)))
}

pub fn with_capacity(capacity: usize) -> Arc<Cache> {
    Arc::new(Entries::new(limits(capacity), TIMING, Removals::new(None)))
}

/// A cache of two shards with one set each: that of `KEY`, which has the larger part of an odd
/// limit, and that of `OTHER`.
pub fn in_shards(entries: usize) -> Arc<Cache> {
    let limits = Limits {
        ways: 4,
        shards: 2,
        ..limits(entries)
    };
    Arc::new(Entries::new(limits, TIMING, Removals::new(None)))
}

/// A cache of two ways with a limit on the total weight.
pub fn with_max_weight(weight: u64) -> Arc<Cache> {
    let limits = Limits {
        weight,
        ..limits(2)
    };
    Arc::new(Entries::new(limits, TIMING, Removals::new(None)))
}

/// A cache that holds `KEY`, and whose dropped claims do not rest.
pub fn without_rest() -> Arc<Cache> {
    let cache = Arc::new(Entries::new(
        limits(2),
        Timing {
            rest_for: 0,
            ..TIMING
        },
        Removals::new(None),
    ));
    assert!(put(&cache, KEY, OLD, CREATED));
    cache
}

/// A cache that holds `KEY`.
pub fn filled() -> Arc<Cache> {
    let cache = empty();
    assert!(put(&cache, KEY, OLD, CREATED));
    cache
}

fn times(created: u64) -> Times {
    Times::new(Lifetime {
        created,
        fresh_for: 10 * SECOND,
        stale_for: 10 * SECOND,
        error_for: 10 * SECOND,
        early_for: 0,
        cost: 0,
    })
}

/// Never zero, so that no tag looks like that of an empty way.
pub fn hash(key: u8) -> u64 {
    u64::from(key) + 1
}

/// A value that is not in a cache.
pub fn value(key: u8, value: u64) -> Arc<Item> {
    weighing(key, value, 0, CREATED, generation(hash(key), CREATED))
}

/// A value without uses.
fn weighing(key: u8, value: u64, weight: u32, created: u64, generation: u8) -> Arc<Item> {
    let eviction_state = EvictionState {
        uses: 0,
        generation,
        weight: Weight::new(weight),
    };
    Arc::new(Entry::ready(
        key,
        value,
        times(created),
        Vec::new(),
        eviction_state,
    ))
}

/// A user's insert.
pub fn put(cache: &Cache, key: u8, value: u64, now: u64) -> bool {
    put_weighing(cache, key, value, 0, now)
}

pub fn put_weighing(cache: &Cache, key: u8, value: u64, weight: u32, now: u64) -> bool {
    let generation = generation(hash(key), now);
    let new = weighing(key, value, weight, now, generation);
    cache.insert(hash(key), &new, now)
}

/// Uses a value until eviction promotes it.
pub fn use_often(cache: &Cache, key: u8) {
    let (_, entry) = find(cache, key).expect("the value is there");
    (0..3).for_each(|_| entry.touch());
}

/// Moves a value into the main queue.
pub fn promote(cache: &Cache, key: u8) {
    let (place, _) = find(cache, key).expect("the value is there");
    let seen = cache.table.seen_at(place);
    assert!(seen.is_some_and(|(_, seen)| cache.table.promote(place, seen)));
}

/// Whether the value of a key is in the main queue.
pub fn is_promoted(cache: &Cache, key: u8) -> bool {
    let (place, _) = find(cache, key).expect("the value is there");
    let seen = cache.table.seen_at(place);
    seen.is_some_and(|(_, seen)| seen.is_promoted(place))
}

/// Evicts one value and gives its permit back; false if it found none.
pub fn evict(cache: &Cache, now: u64) -> bool {
    evict_from(cache, 0, now)
}

/// The same, beginning with this shard.
pub fn evict_from(cache: &Cache, shard: usize, now: u64) -> bool {
    let evicted = cache.evict_by_queue(shard, now, &mut DropLater::new());
    evicted.is_some()
}

pub fn invalidate(cache: &Cache, key: u8) -> bool {
    cache.remove(hash(key), |other| *other == key).is_some()
}

pub fn find(cache: &Cache, key: u8) -> Option<(Place, Held<Item>)> {
    cache.find(hash(key), |other| *other == key)
}

/// The value of a key, whatever its age; `None` for a load under way.
pub fn peek(cache: &Cache, key: u8) -> Option<u64> {
    find(cache, key)?.1.value().copied()
}

/// The next step of a read that found an entry.
pub fn classify(cache: &Arc<Cache>, found: (Place, Held<Item>), now: u64) -> Read<u8, u64> {
    let (place, entry) = found;
    match cache.fast_state(&entry, now, |_| false) {
        Some(condition) => Read::Serve {
            entry,
            condition,
            claim: None,
        },
        None => cache.classify(place, entry, now),
    }
}

pub fn read(cache: &Arc<Cache>, key: u8, now: u64) -> Read<u8, u64> {
    find(cache, key).map_or(Read::Missing, |found| classify(cache, found, now))
}

/// The claim of a read, if the read won one.
pub fn won(read: Read<u8, u64>) -> Option<ClaimGuard<u8, u64>> {
    match read {
        Read::Serve { claim, .. } => claim,
        Read::Load(claim, _) => Some(claim),
        _ => None,
    }
}

/// A claim that no other thread contests, for the start of a model.
pub fn claim(cache: &Arc<Cache>, now: u64) -> ClaimGuard<u8, u64> {
    won(read(cache, KEY, now)).expect("no other thread contests this claim")
}

/// The first step of a caller of a missing key.
pub fn begun(cache: &Arc<Cache>, key: u8, now: u64) -> Begun<u8, u64> {
    cache.begin(key, hash(key), 0, now, &mut DropLater::new())
}

/// The load of a missing key that no other thread contests.
pub fn begin(cache: &Arc<Cache>, key: u8, now: u64) -> ClaimGuard<u8, u64> {
    ours(begun(cache, key, now)).expect("no other thread contests this load")
}

pub fn ours(begun: Begun<u8, u64>) -> Option<ClaimGuard<u8, u64>> {
    match begun {
        Begun::Ours(claim) => Some(claim),
        _ => None,
    }
}

pub fn publish(claim: ClaimGuard<u8, u64>, value: u64, now: u64) -> Published {
    publish_weighing(claim, value, 0, now)
}

/// The end of a job whose load returned a value.
pub fn publish_weighing(
    claim: ClaimGuard<u8, u64>,
    value: u64,
    weight: u32,
    now: u64,
) -> Published {
    let old = claim.entry();
    let eviction_state = old.eviction_state(Weight::new(weight));
    let new = Entry::ready(old.key, value, times(now), Vec::new(), eviction_state);
    claim.publish(Arc::new(new), Made::Here, now)
}

/// Ends a claim as a load that found no value; returns whether it removed exactly the claimed
/// entry.
pub fn end_without_value(claim: ClaimGuard<u8, u64>) -> bool {
    let mut left = None;
    claim.remove(time_out(), Answer::NotFound, |it| left = Some(it));
    left.expect("`commit` is called")
}

/// Ends a claim as a load that failed.
pub fn fail(claim: ClaimGuard<u8, u64>, until: u64) {
    claim.fail(time_out(), until);
}

/// Of a late load with the value 1 and the load that may have taken it over, with the value 2, one
/// result is published.
pub fn assert_first_counts(cache: &Cache, late: Published, took_over: Option<Published>) {
    let first = match (late, took_over) {
        (Published::Yes, None | Some(Published::TakenOver)) => 1,
        (Published::TakenOver, Some(Published::Yes)) => 2,
        other => panic!("not exactly one result was published: {other:?}"),
    };
    assert_eq!(peek(cache, KEY), Some(first));
}

/// The deadline of a load that goes on. Its claim rests until then.
pub fn expire(claim: &ClaimGuard<u8, u64>, until: u64) {
    claim.expiry().expire(time_out(), until);
}

pub fn wait(flight: &Flight<u8, u64>) -> Outcome<u8, u64> {
    block_on(flight.wait(|| false)).expect("this wait has no deadline")
}

/// A caller of `get`, at the point where it has its answer or has to wait.
pub enum Called {
    Answered(Result<u64, Error>),
    Waits(Arc<Flight<u8, u64>>),
}

/// A `get`, as the public API makes it, with a load that runs on the caller's thread.
pub fn get(cache: &Arc<Cache>, key: u8, now: u64, load: impl Fn(ClaimGuard<u8, u64>)) -> Called {
    loop {
        let mut looked = read(cache, key, now);
        if let Read::Missing = looked {
            match begun(cache, key, now) {
                Begun::Ours(claim) => looked = Read::Load(claim, None),
                Begun::Exists => continue,
                Begun::Full(..) => unreachable!("no such model fills a set with loads"),
            }
        }
        return match looked {
            Read::Serve { entry, claim, .. } => {
                claim.into_iter().for_each(load);
                Called::Answered(Ok(*entry.value().expect("only values are served")))
            }
            Read::Load(claim, _) => {
                let flight = claim.flight().clone();
                load(claim);
                Called::Waits(flight)
            }
            Read::Wait(flight, _) => Called::Waits(flight),
            Read::Failed(error) => Called::Answered(Err(error)),
            Read::Missing => unreachable!("begun above"),
        };
    }
}

impl Called {
    /// Waits if the caller has to.
    pub fn wait(self) -> Result<u64, Error> {
        match self {
            Called::Answered(answer) => answer,
            Called::Waits(flight) => answer(wait(&flight)),
        }
    }

    /// [`ended`](Self::ended) of a caller that reads again if its attempt was given up untried.
    pub fn ended_or_reads(self, cache: &Cache) -> Result<u64, Error> {
        match &self {
            Called::Waits(flight) if matches!(flight.outcome(), Some(Outcome::Superseded)) => {
                peek(cache, KEY).ok_or_else(time_out)
            }
            _ => self.ended(),
        }
    }

    /// The answer, after every attempt has ended. Far cheaper to explore than a wait, and enough if
    /// the model does not test the wake-up: a flight without an outcome now never gets one.
    pub fn ended(self) -> Result<u64, Error> {
        match self {
            Called::Answered(answer) => answer,
            Called::Waits(flight) => answer(flight.outcome().expect("a caller waits without end")),
        }
    }
}

fn answer(outcome: Outcome<u8, u64>) -> Result<u64, Error> {
    match outcome {
        Outcome::Published(entry, _) => Ok(*entry.value().expect("a load makes a value")),
        Outcome::Failed(error) | Outcome::Earlier(error) => Err(error),
        Outcome::Superseded => unreachable!("no model removes an entry that it waits for"),
    }
}

/// All items in the table.
pub fn entries(cache: &Cache) -> Vec<Held<Item>> {
    (0..cache.table.sets())
        .flat_map(|set| cache.table.items(set))
        .map(|(_, item)| item)
        .collect()
}

/// The invariant after all threads have ended: every permit belongs to a value, and no key is twice
/// in its set.
pub fn assert_exact(cache: &Cache) {
    let entries = entries(cache);
    let values = || entries.iter().filter(|entry| !entry.is_loading());
    assert_eq!(
        cache.limit.entries(),
        values().count(),
        "the permits differ from the values"
    );
    let weight: u64 = values().map(|entry| entry.weight().get()).sum();
    assert_eq!(
        cache.limit.weight(),
        weight,
        "the permits differ from the weights"
    );
    for shard in 0..cache.queues.shards.number() {
        let sets = cache.queues.shards.sets(shard..shard + 1);
        let items = sets.flat_map(|set| cache.table.items(set));
        assert_eq!(
            cache.limit.entries_in(shard),
            items.filter(|(_, entry)| !entry.is_loading()).count(),
            "the permits of a shard differ from its values"
        );
    }
    let mut keys: Vec<u8> = entries.iter().map(|entry| entry.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), entries.len(), "a key is twice in its set");
}

/// The further invariant that each value is in one of the queues, so eviction reaches it sooner or
/// later.
pub fn assert_evictable(cache: &Cache, now: u64) {
    // Every pass takes a use off the values that it spares.
    for _ in 0..8 {
        while evict(cache, now) {}
    }
    let mut left = entries(cache).into_iter();
    assert!(
        left.all(|entry| entry.is_loading()),
        "a value is in neither queue"
    );
    assert_exact(cache);
}
