//! X-Fetch against its closed form, with a fixed seed.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Policy, exceeds};
use crate::load::loader::Loaded;
use crate::protocol::times::Times;
use crate::time::clock::Tick;

const SECOND: Tick = 1_000_000_000;
const FRESH: Tick = 100 * SECOND;
const COST: Tick = SECOND / 5;
const EPOCHS: usize = 4_000;

fn policy(beta: f64) -> Policy {
    Policy {
        fresh_for: FRESH,
        stale_for: FRESH,
        error_for: FRESH,
        beta,
        jitter: 0.0,
        backoff_from: SECOND,
        backoff_to: 8 * SECOND,
        not_found_for: SECOND,
        load_timeout: std::time::Duration::from_secs(30),
        keep_late_loads: false,
        forced_every: 0,
    }
}

fn times(policy: &Policy, rng: &mut SmallRng) -> Times {
    policy.times(Loaded::new(()).given(), 0, Some(COST), None, rng)
}

/// Poisson reads at `rate` a second over one epoch, from the start of the early window on.
fn reads(times: &Times, rate: f64, rng: &mut SmallRng) -> impl Iterator<Item = Tick> {
    let mut now = times.early_from() as f64;
    std::iter::from_fn(move || {
        now -= (1.0 - rng.random::<f64>()).ln() * SECOND as f64 / rate;
        Some(now as Tick)
    })
}

#[test]
fn the_draw_has_the_chance_it_should_have() {
    let mut rng = SmallRng::seed_from_u64(1);
    for x in [0.0, 0.1, 1.0, 3.0] {
        let hits = (0..200_000).filter(|_| exceeds(rng.random(), x)).count();
        let chance = hits as f64 / 200_000.0;
        // Five standard deviations.
        let tolerance = 5.0 * (f64::exp(-x) / 200_000.0f64).sqrt() + 1e-9;
        assert!((chance - f64::exp(-x)).abs() <= tolerance, "{x}: {chance}");
    }
}

#[test]
fn the_mean_lead_time_is_the_closed_form() {
    for (beta, rate) in [(1.0, 100.0), (1.0, 1_000.0), (2.0, 300.0)] {
        let policy = policy(beta);
        let mut rng = SmallRng::seed_from_u64(2);
        let mut sum = 0.0;
        for _ in 0..EPOCHS {
            let times = times(&policy, &mut rng);
            let mut draws = SmallRng::seed_from_u64(rng.random());
            let first = reads(&times, rate, &mut rng)
                .take_while(|now| *now < times.fresh_until())
                .find(|now| policy.draws_early(&times, *now, &mut draws))
                .unwrap_or(times.fresh_until());
            sum += (times.fresh_until() - first) as f64 / SECOND as f64;
        }
        let scale = beta * COST as f64 / SECOND as f64;
        let expected = scale * ((rate * scale).ln() + 0.577_215_664_9);
        let mean = sum / EPOCHS as f64;
        // The standard deviation of this law (Gumbel) is 1.283 scale; five of the mean's, plus one
        // read.
        let tolerance = 5.0 * 1.283 * scale / (EPOCHS as f64).sqrt() + 1.0 / rate;
        assert!(
            (mean - expected).abs() < tolerance,
            "beta {beta}: {mean} for {expected}"
        );
    }
}

#[test]
fn without_a_claim_a_hot_key_would_start_e_to_the_one_over_beta_refreshes() {
    for beta in [1.0, 2.0] {
        let policy = policy(beta);
        let mut rng = SmallRng::seed_from_u64(3);
        let mut started = 0usize;
        for _ in 0..EPOCHS {
            let times = times(&policy, &mut rng);
            let mut draws = SmallRng::seed_from_u64(rng.random());
            let mut first = None;
            // All readers that draw "now" until the first result is published, one cost later.
            for now in reads(&times, 2_000.0, &mut rng) {
                if first.is_some_and(|first| now >= first + COST) {
                    break;
                }
                if policy.draws_early(&times, now, &mut draws) || now >= times.fresh_until() {
                    started += 1;
                    first.get_or_insert(now);
                }
            }
        }
        let mean = started as f64 / EPOCHS as f64;
        let expected = f64::exp(1.0 / beta);
        // The number is geometric, so its standard deviation is below its mean. The ends of the
        // window add a little.
        let tolerance = 5.0 * expected / (EPOCHS as f64).sqrt() + 0.05;
        assert!(
            (mean - expected).abs() < tolerance,
            "beta {beta}: {mean} for {expected}"
        );
    }
}

#[test]
fn the_window_is_capped_and_beta_zero_closes_it() {
    let mut rng = SmallRng::seed_from_u64(4);
    let slow = policy(1.0).times(Loaded::new(()).given(), 0, Some(10 * FRESH), None, &mut rng);
    assert_eq!(slow.early_from(), FRESH / 2);
    let off = policy(0.0).times(Loaded::new(()).given(), 0, Some(COST), None, &mut rng);
    assert_eq!(off.early_from(), FRESH);
    assert!(!policy(0.0).draws_early(&off, FRESH - 1, &mut rng));
}

#[test]
fn jitter_only_shortens_and_backoff_doubles_to_its_cap() {
    let mut rng = SmallRng::seed_from_u64(5);
    let mut jittered = policy(0.0);
    jittered.jitter = 0.2;
    let ends: Vec<Tick> = (0..1000)
        .map(|_| times(&jittered, &mut rng).fresh_until())
        .collect();
    assert!(
        ends.iter()
            .all(|end| (FRESH * 4 / 5 - 2..=FRESH).contains(end))
    );
    assert!(ends.iter().min() < ends.iter().max());
    for (failures, longest) in [(0, 1), (1, 2), (2, 4), (3, 8), (4, 8), (200, 8)] {
        let rest = policy(1.0).backoff(failures, &mut rng);
        let longest = longest * SECOND;
        assert!((longest / 2..=longest).contains(&rest));
    }
    // From the shortest first rest to an unlimited one, in as many steps as a claim word counts.
    let mut shortest = policy(1.0);
    (shortest.backoff_from, shortest.backoff_to) = (1, Tick::MAX);
    for failures in 0..=63 {
        let rest = shortest.backoff(failures, &mut rng);
        let longest = 1u64 << failures;
        assert!(
            (longest / 2..=longest).contains(&rest),
            "{failures}: {rest}"
        );
    }
}
