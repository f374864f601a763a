//! The settings that the builder accepts and refuses, and the room that a cache has.

use std::error::Error as StdError;
use std::time::Duration;

use everfresh::{Breaker, Budget, BuildError, Builder, Cache, ManualClock, Pool};

use crate::support::*;

type Settings = fn(Builder<u64, u64>) -> Builder<u64, u64>;

/// Returns the error of a builder that must fail.
fn refused(builder: Builder<u64, u64>) -> String {
    let error = builder.build().unwrap_err();
    assert!(error.source().is_none());
    error.to_string()
}

#[test]
fn every_bad_setting_is_refused_with_its_name_and_value() {
    let bad: [(&str, Settings); 33] = [
        ("`name` is \"a\\0b\"", |builder| builder.name("a\0b")),
        ("`thread_name` is \"\\0\"", |builder| {
            builder.thread_name("\0")
        }),
        ("`capacity` is 0", |builder| builder.capacity(0)),
        ("`capacity` is 18 446 744 073 709 551 615", |builder| {
            builder.capacity(usize::MAX)
        }),
        ("`max_weight` is 0", |builder| {
            builder.max_weight(0, |_, _| 1)
        }),
        ("`max_weight` is 17 179 869 185", |builder| {
            builder.max_weight((1 << 34) + 1, |_, _| 1)
        }),
        ("`max_weight` is 18 446 744 073 709 551 615", |builder| {
            builder.max_weight(u64::MAX, |_, _| 1)
        }),
        ("`fresh_for` is 0ns", |builder| {
            builder.fresh_for(Duration::ZERO)
        }),
        ("`stale_if_error_for` is 1s", |builder| {
            builder.stale_for(secs(2)).stale_if_error_for(secs(1))
        }),
        ("`load_timeout` is 0ns", |builder| {
            builder.load_timeout(Duration::ZERO)
        }),
        ("`backoff` is 0ns to 1s", |builder| {
            builder.backoff(Duration::ZERO, secs(1))
        }),
        ("`backoff` is 2s to 1s", |builder| {
            builder.backoff(secs(2), secs(1))
        }),
        ("`beta` is -0.1", |builder| builder.beta(-0.1)),
        ("`beta` is NaN", |builder| builder.beta(f64::NAN)),
        ("`beta` is inf", |builder| builder.beta(f64::INFINITY)),
        ("`jitter` is 1.1", |builder| builder.jitter(1.1)),
        ("`jitter` is NaN", |builder| builder.jitter(f64::NAN)),
        ("`negative_capacity` is 0", |builder| {
            builder.negative_capacity(0)
        }),
        ("`threads` is 0", |builder| builder.threads(0)),
        ("`threads` is 1 025", |builder| builder.threads(1_025)),
        ("`threads` is 100 000", |builder| builder.threads(100_000)),
        ("`queue` is 0", |builder| builder.queue(0)),
        ("`queue` is 1 048 577", |builder| {
            builder.queue((1 << 20) + 1)
        }),
        ("`max_loads` is 0", |builder| builder.max_loads(0)),
        ("`max_loads` is 1 048 577", |builder| {
            builder.max_loads((1 << 20) + 1)
        }),
        ("`load_rate` is 0", |builder| builder.load_rate(0)),
        ("`load_rate` is 1 000 001", |builder| {
            builder.load_rate(1_000_001)
        }),
        ("`Breaker::opens_at` is 0.0", |builder| {
            builder.breaker(Breaker::new().opens_at(0.0))
        }),
        ("`Breaker::opens_at` is NaN", |builder| {
            builder.breaker(Breaker::new().opens_at(f64::NAN))
        }),
        ("`Breaker::of_last` is 0", |builder| {
            builder.breaker(Breaker::new().of_last(0))
        }),
        ("`Breaker::probe_every` is 0ns", |builder| {
            builder.breaker(Breaker::new().probe_every(Duration::ZERO))
        }),
        ("`max_depth` is 0", |builder| builder.max_depth(0)),
        ("`max_depth` is 18 446 744 073 709 551 615", |builder| {
            builder.max_depth(usize::MAX)
        }),
    ];
    for (beginning, setting) in bad {
        let text = refused(setting(Cache::builder().compute(|key: &u64| *key)));
        let text = match usize::BITS {
            64 => text,
            // On other targets the largest number of entries is another one.
            _ => text.replace("4 294 967 295", "18 446 744 073 709 551 615"),
        };
        assert!(text.starts_with(&format!("{beginning}; ")), "{text}");
    }
}

#[test]
fn settings_that_have_no_effect_on_the_loader_are_refused() {
    let on_a_runtime: [(&str, Settings); 2] = [
        ("`threads` is 4; it has no effect on `load`", |builder| {
            builder.threads(4)
        }),
        (
            "`thread_name` is \"io\"; it has no effect on `load`",
            |builder| builder.thread_name("io"),
        ),
    ];
    for (beginning, setting) in on_a_runtime {
        let builder = Cache::builder().spawner(drop).load(async |key: &u64| *key);
        let text = refused(setting(builder));
        assert!(text.starts_with(beginning), "{text}");
    }
    let on_a_pool = Cache::builder().compute(|key: &u64| *key).spawner(drop);
    let text = refused(on_a_pool);
    assert!(
        text.starts_with("`spawner` has no effect on `compute`"),
        "{text}"
    );
    // Only the last loader counts, and must fit the settings.
    let builder = Cache::builder().load(async |key: &u64| *key).threads(1);
    assert!(builder.compute(|key: &u64| *key).build().is_ok());
}

#[test]
fn a_depth_for_which_the_stacks_are_too_small_is_refused_with_both_settings() {
    let pool = |stack_size| Pool::builder().threads(1).stack_size(stack_size).build();
    let builder = || Cache::builder().compute(|key: &u64| *key);
    let small = pool(65_536).unwrap();
    assert_eq!(
        refused(builder().pool(&small)),
        "`max_depth` is 128; the `stack_size` of the pool, 65 536 bytes, has room for 1, 64 KiB \
         for each load; give a smaller `max_depth`, or a pool with a larger `stack_size`"
    );
    let text = refused(builder().max_depth(129));
    assert!(
        text.contains("`stack_size` of the pool, 8 388 608 "),
        "{text}"
    );
    let text = refused(builder().threads(1).max_depth(129));
    assert!(text.starts_with("`max_depth` is 129; "), "{text}");
    assert!(builder().pool(&small).max_depth(1).build().is_ok());
    let large = pool(129 << 16).unwrap();
    assert!(builder().pool(&large).max_depth(129).build().is_ok());
    // The loads of a runtime are not nested on a stack.
    let on_a_runtime = Cache::builder().load(async |key: &u64| *key).spawner(drop);
    assert!(on_a_runtime.max_depth(usize::MAX).build().is_ok());
}

#[test]
fn a_budget_is_checked_like_a_cache() {
    let text = |error: BuildError| error.to_string();
    let zero = text(Budget::new(0).unwrap_err());
    assert!(zero.starts_with("`max_loads` is 0; "), "{zero}");
    let rate = text(Budget::builder().load_rate(0).build().unwrap_err());
    assert!(rate.starts_with("`load_rate` is 0; "), "{rate}");
    let breaker = Budget::builder().breaker(Breaker::new().of_last(10_001));
    let breaker = text(breaker.build().unwrap_err());
    assert!(breaker.starts_with("`Breaker::of_last` is 10 001; "));
}

#[test]
fn a_cache_without_a_loader_is_refused() {
    let error: BuildError = Cache::<u64, u64>::builder().build().unwrap_err();
    assert!(error.to_string().contains("there is no loader"), "{error}");
}

#[test]
fn good_settings_at_their_limits_are_accepted() {
    let good: [Settings; 12] = [
        |builder| builder.name("").thread_name(""),
        |builder| builder.capacity(1),
        |builder| builder.max_weight(1, |_, _| 1),
        |builder| builder.max_weight(u64::MAX, |_, _| 1).capacity(10),
        |builder| builder.fresh_for(NANO),
        |builder| builder.fresh_for(Duration::MAX).stale_for(Duration::MAX),
        |builder| builder.stale_for(Duration::ZERO),
        |builder| builder.stale_for(secs(2)).stale_if_error_for(secs(2)),
        |builder| builder.load_timeout(Duration::MAX),
        |builder| builder.backoff(NANO, NANO),
        |builder| builder.beta(0.0).jitter(0.0).negative_capacity(1),
        |builder| builder.jitter(1.0).threads(1).queue(1),
    ];
    for (number, setting) in good.into_iter().enumerate() {
        let clock = ManualClock::new();
        let cache = setting(Cache::builder().threads(1).clock(&clock))
            .compute(|key: &u64| *key)
            .build()
            .unwrap();
        assert_eq!(*cache.get_blocking(&1).unwrap(), 1, "setting {number}");
    }
}

/// A cache of pages of 4 kB, which loads none.
fn pages(max_weight: u64) -> Cache<u64, u64> {
    let clock = ManualClock::new();
    by_hand(builder(&clock).max_weight(max_weight, |_, _| 4_096)).0
}

#[test]
fn a_weight_limit_alone_is_reached_before_the_entry_limit() {
    let cache = pages(64 << 20);
    for page in 0..16_384 {
        cache.insert(page, page);
    }
    assert_eq!((cache.len(), cache.weight()), (16_384, 64 << 20));
    cache.insert(16_384, 16_384);
    assert_eq!((cache.len(), cache.weight()), (16_384, 64 << 20));
}

#[test]
fn values_with_rounded_weights_never_exceed_the_weight_limit() {
    // Each value is a little heavier than its weight cut to 19 bits.
    const WEIGHT: u64 = (1 << 30) + 1;
    let clock = ManualClock::new();
    let limits = builder(&clock).capacity(100);
    let (cache, ..) = by_hand(limits.max_weight(4 << 30, |_, _| WEIGHT as u32));
    for key in 0..10 {
        cache.insert(key, key);
        let weight = cache.len() as u64 * WEIGHT;
        assert!(weight <= cache.weight() && cache.weight() <= 4 << 30);
    }
    assert_eq!(cache.len(), 3);
    // A value as heavy as the limit is kept, because the limit is not rounded.
    let (cache, ..) = by_hand(
        builder(&clock)
            .capacity(1)
            .max_weight(3 << 30, |_, _| 3 << 30),
    );
    cache.insert(1, 1);
    assert_eq!((cache.len(), cache.weight()), (1, 3 << 30));
}
