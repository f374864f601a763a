//! The generator of programs: the kinds of steps, their frequency, and the time between them.

use std::fmt;
use std::hash::Hash;

use proptest::prelude::*;

use super::promises::{Key, Limits, Nanos};

const KEYS: Key = 2;

/// The keys of a program.
pub trait Keys: Hash + Eq + Clone + Send + Sync + 'static {
    const COUNT: Key;
    fn of(number: Key) -> Self;
    fn number(&self) -> Key;
}

impl Keys for Key {
    const COUNT: Key = KEYS;

    fn of(number: Key) -> Self {
        number
    }

    fn number(&self) -> Key {
        *self
    }
}

/// The key of a [`Fresh`](everfresh::Fresh), which stands for every key of a program.
impl Keys for () {
    const COUNT: Key = 1;

    fn of(_: Key) -> Self {}

    fn number(&self) -> Key {
        0
    }
}

#[derive(Clone)]
pub struct Program {
    /// Whether the cache refreshes early, by X-Fetch.
    pub draws_early: bool,
    pub steps: Vec<Step>,
}

impl fmt::Debug for Program {
    /// Prints on one line, even for pretty printing, so that a program of two hundred steps stays
    /// readable.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let early = if self.draws_early {
            "early"
        } else {
            "never early"
        };
        write!(f, "{early}: {}", format_args!("{:?}", self.steps))
    }
}

/// One step. A number modulo their count chooses a reader or a load.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Get(Key),
    Refresh(Key),
    Poll(usize),
    Drop(usize),
    Peek(Key),
    Insert(Key),
    Invalidate(Key),
    InvalidateAll,
    Advance(Nanos),
    /// Polls the future of a load: its first poll calls the loader.
    Start(usize),
    End(usize, How),
    /// Drops the future of a load, as a runtime does that shuts down.
    Abort(usize),
}

#[derive(Clone, Copy, Debug)]
pub enum How {
    Value,
    Fail,
    Panic,
}

pub fn programs() -> impl Strategy<Value = Program> {
    let (key, which) = (|| 0..KEYS, || 0..64usize);
    let how = prop_oneof![6 => Just(How::Value), 3 => Just(How::Fail), 1 => Just(How::Panic)];
    // Advances by a moment, or into the middle of a window, to its last moment, to its limit, or
    // past it.
    let limits = [
        Limits::REST.0,
        Limits::TIMEOUT,
        Limits::STALE,
        Limits::FRESH,
        Limits::ERROR,
    ];
    let ms = 1_000_000;
    let over = (prop::sample::select(limits.to_vec()), 0..4u8);
    let over = over.prop_map(move |(limit, part)| match part {
        0 => limit / 2,
        1 => limit - ms,
        2 => limit,
        _ => limit + ms,
    });
    let time = prop_oneof![3 => 10 * ms..200 * ms, 2 => over];
    let time = time.prop_map(move |nanos| nanos / ms * ms);
    let step = prop_oneof![
        24 => key().prop_map(Step::Get),
        4 => key().prop_map(Step::Refresh),
        12 => which().prop_map(Step::Poll),
        3 => which().prop_map(Step::Drop),
        4 => key().prop_map(Step::Peek),
        4 => key().prop_map(Step::Insert),
        3 => key().prop_map(Step::Invalidate),
        1 => Just(Step::InvalidateAll),
        18 => time.prop_map(Step::Advance),
        8 => which().prop_map(Step::Start),
        18 => (which(), how).prop_map(|(load, how)| Step::End(load, how)),
        2 => which().prop_map(Step::Abort),
    ];
    let steps = prop::collection::vec(step, 1..200);
    (any::<bool>(), steps).prop_map(|(draws_early, steps)| Program { draws_early, steps })
}
