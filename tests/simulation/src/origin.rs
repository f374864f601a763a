//! The origin of all values, and the values themselves.

use std::cell::Cell;
use std::sync::Arc;

use everfresh::store::{Codec, Rejected};
use everfresh::{Loader, Request};

use crate::claims::Outcome;
use crate::world::{Key, MS, Nanos, Process, SECOND, State, World};

thread_local! {
    /// The values that live on this thread, which runs all of one simulation.
    static ALIVE: Cell<i64> = const { Cell::new(0) };
}

/// How many values are alive.
pub fn values_alive() -> i64 {
    ALIVE.get()
}

/// A value: a number, which the checker knows all about.
pub struct Value {
    pub number: u64,
}

impl Value {
    pub fn new(number: u64) -> Self {
        ALIVE.set(ALIVE.get() + 1);
        Value { number }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        let _ = ALIVE.try_with(|alive| alive.set(alive.get() - 1));
    }
}

/// Values of this key cannot be encoded.
pub const UNSTORABLE: Key = 9;

const UNSTORABLE_BIT: u64 = 1 << 63;

/// Eight bytes, so that the network can read the number of a value at the end of a payload.
pub struct EightBytes;

impl Codec<Value> for EightBytes {
    fn id(&self) -> u8 {
        64
    }

    fn encode(&self, value: &Value, out: &mut Vec<u8>) -> Result<(), Rejected> {
        if value.number & UNSTORABLE_BIT != 0 {
            return Err("this value cannot be stored".into());
        }
        out.extend_from_slice(&value.number.to_be_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Value, Rejected> {
        Ok(Value::new(u64::from_be_bytes(bytes.try_into()?)))
    }
}

impl Codec<Key> for EightBytes {
    fn id(&self) -> u8 {
        64
    }

    fn encode(&self, key: &Key, out: &mut Vec<u8>) -> Result<(), Rejected> {
        out.extend_from_slice(&key.to_be_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Key, Rejected> {
        Ok(u64::from_be_bytes(bytes.try_into()?))
    }
}

/// The value with this number, as the cache of a process gets it.
pub fn value(key: Key, number: u64) -> Value {
    match key {
        UNSTORABLE => Value::new(number | UNSTORABLE_BIT),
        _ => Value::new(number),
    }
}

/// The number of a value that a reader got.
pub fn number(value: &Value) -> u64 {
    value.number & !UNSTORABLE_BIT
}

/// The state of the origin.
#[derive(Default)]
pub struct Origin {
    /// The processes that cannot reach it.
    pub failing: Vec<Process>,
    /// The keys that have no value.
    pub absent: Vec<Key>,
}

impl State {
    /// The answer of the origin to a load that begins now, and when it comes.
    fn answer(&mut self, process: Process, key: Key) -> (Outcome, Nanos) {
        let took = match self.random.percent(4) {
            true => self.random.between(2 * SECOND, 3 * SECOND),
            false => self.random.between(50 * MS, 400 * MS),
        };
        let outcome = match self.origin.failing.contains(&process) {
            true => Outcome::Failed,
            false if self.origin.absent.contains(&key) => Outcome::NotFound,
            false => Outcome::Value,
        };
        (outcome, self.now + took)
    }
}

/// The loader of one process.
pub struct OriginClient {
    pub world: Arc<World>,
    pub process: Process,
}

/// A load that runs. Dropping it ends it without a result.
struct Running<'a> {
    world: &'a World,
    load: usize,
    has_ended: bool,
}

impl Running<'_> {
    fn end(mut self, outcome: Outcome) -> Option<u64> {
        self.has_ended = true;
        self.world
            .with(|state| state.load_ended(self.load, outcome))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.world
                .with(|state| state.load_ended(self.load, Outcome::Dropped));
        }
    }
}

impl Loader<Key, Value> for OriginClient {
    type Value = Option<Value>;
    type Error = &'static str;

    async fn load(&self, request: &Request<Key, Value>) -> Result<Option<Value>, &'static str> {
        let (world, key) = (&*self.world, *request.key());
        let (load, outcome, ends) = world.with(|state| {
            let load = state.load_began(self.process, key);
            let (outcome, ends) = state.answer(self.process, key);
            (load, outcome, ends)
        });
        let running = Running {
            world,
            load,
            has_ended: false,
        };
        world.sleep_until(ends).await;
        let made = running.end(outcome);
        match outcome {
            Outcome::Failed => Err("the origin cannot be reached"),
            _ => Ok(made.map(|number| value(key, number))),
        }
    }
}
