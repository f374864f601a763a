//! The times of an entry in the terms of a store, which has another clock.

use std::time::Duration;

use crate::load::policy::Policy;
use crate::protocol::times::{Lifetime, Times};
use crate::store::Terms;
use crate::time::clock::{Tick, ticks};

/// The terms under which a store keeps a value with these times.
pub(super) fn terms(times: &Times) -> Terms {
    terms_from(times, times.created())
}

/// The terms under which a store keeps a value with these times that it gets only now. The time
/// that is left is shorter by the age of the value.
pub(super) fn terms_from(times: &Times, now: Tick) -> Terms {
    let duration = |ticks: Tick| match ticks {
        Tick::MAX => Duration::MAX,
        _ => Duration::from_nanos(ticks),
    };
    let fresh_until = times.fresh_until();
    let fresh_for = match fresh_until {
        Tick::MAX => Tick::MAX,
        until => until.saturating_sub(now),
    };
    let stale_since = now.saturating_sub(fresh_until);
    let left = |limit: Tick| match limit {
        Tick::MAX => limit,
        _ => limit.saturating_sub(stale_since),
    };
    Terms {
        fresh_for: duration(fresh_for),
        stale_for: duration(left(times.stale_for())),
        stale_if_error_for: duration(left(times.error_for())),
        cost: duration(times.cost()),
    }
}

/// The times of a value that another process made `age` ago under these terms.
pub(super) fn restored(policy: &Policy, terms: &Terms, age: Tick, now: Tick) -> Times {
    // The clock of this process may have started after that moment. The part of the age that it
    // cannot express is subtracted from the limits.
    let created = now.saturating_sub(age);
    let before = age - (now - created);
    let (fresh_for, cost) = (ticks(terms.fresh_for), ticks(terms.cost));
    let less = |limit: Tick| match limit {
        Tick::MAX => limit,
        _ => limit.saturating_sub(before.saturating_sub(fresh_for)),
    };
    let early_for = policy.early_for(fresh_for, cost);
    let fresh_for = match fresh_for {
        Tick::MAX => fresh_for,
        _ => fresh_for.saturating_sub(before),
    };
    Times::new(Lifetime {
        created,
        fresh_for,
        stale_for: less(ticks(terms.stale_for)),
        error_for: less(ticks(terms.stale_if_error_for)),
        early_for,
        cost,
    })
}

/// How long the store keeps a value: its hard limit.
pub(super) fn ttl(terms: &Terms) -> Duration {
    terms.ttl().max(Duration::from_millis(1))
}
