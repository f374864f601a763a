//! What the seed decides to happen, and when.

use std::collections::BTreeMap;

use crate::origin::UNSTORABLE;
use crate::random::Random;
use crate::world::{Key, MS, Nanos, Process, SECOND};

/// How long operations and faults go on.
const LENGTH: Nanos = 40 * SECOND;

/// The last of the keys that callers read and write, apart from the one that cannot be stored.
pub const LAST_KEY: Key = 2;

/// Something that happens at a moment. What happens for a while comes with its length.
#[derive(Clone, Debug)]
pub enum Event {
    /// A caller reads or writes.
    Operation,
    /// A process loses its connection, and each attempt to connect is refused.
    Refuse(Nanos),
    /// Nothing passes, until the process notices it and is refused for a while.
    Silence(Nanos, Nanos),
    Notice(Process, Nanos),
    Connect(Process),
    Slow(Nanos),
    Fast(Process),
    Pause(Nanos),
    Resume(Process),
    /// A process dies with its cache; after a while another one starts.
    Kill(Nanos),
    Start(usize, u32),
    LoseLease,
    LoseData,
    Empty,
    /// A process cannot reach the origin.
    Fail(Nanos),
    Work(Process),
    /// The origin has no value for a key.
    Absent(Nanos),
    Present(Key),
    /// Whether the values that the server has lost are there again.
    Look,
    /// All processes ask for a key at once.
    Crowd(Key),
}

pub struct Script {
    pub databases: usize,
    /// The database and the schema of each process.
    pub processes: Vec<(usize, u32)>,
    pub keys: Vec<Key>,
    /// Whether a process cannot read the values of the others.
    pub is_mixed: bool,
    /// How many of a hundred operations write.
    pub writes: u64,
    events: BTreeMap<(Nanos, u64), Event>,
    added: u64,
}

impl Script {
    pub fn new(random: &mut Random) -> Self {
        let databases = 1 + usize::from(random.percent(15));
        let count = random.between(3, 5);
        let with_schemas = random.percent(15);
        let processes = (0..count).map(|number| {
            let schema = u32::from(with_schemas && number == 0);
            (random.index(databases), schema)
        });
        let processes = processes.collect();
        let mut keys: Vec<Key> = (0..random.between(1, LAST_KEY + 1)).collect();
        if random.percent(20) {
            keys.push(UNSTORABLE);
        }
        let mut script = Script {
            databases,
            processes,
            keys,
            is_mixed: with_schemas,
            writes: [0, 3, 10, 30][random.index(4)],
            events: BTreeMap::new(),
            added: 0,
        };
        let pause = [40 * MS, 150 * MS, 400 * MS][random.index(3)];
        let mut at = 0;
        while at < LENGTH {
            at += random.between(MS, 2 * pause);
            script.at(at, Event::Operation);
        }
        script.add_faults(random);
        script
    }

    fn add_faults(&mut self, random: &mut Random) {
        let pause = [SECOND, 3 * SECOND, 8 * SECOND, LENGTH][random.index(4)];
        // Each run has some kinds of faults.
        let kinds: Vec<u64> = (0..10).filter(|_| random.percent(55)).collect();
        let mut at = SECOND;
        while at < LENGTH && !kinds.is_empty() {
            at += random.between(SECOND / 10, 2 * pause);
            let event = match kinds[random.index(kinds.len())] {
                0 => Event::Refuse(match random.percent(30) {
                    true => random.between(8 * SECOND, 20 * SECOND),
                    false => random.between(SECOND / 10, 5 * SECOND),
                }),
                1 => Event::Silence(
                    random.between(SECOND / 5, 3 * SECOND / 2),
                    random.between(SECOND / 10, 3 * SECOND),
                ),
                2 => Event::Slow(random.between(SECOND / 5, 3 * SECOND)),
                3 => Event::Pause(random.between(SECOND / 5, 6 * SECOND)),
                4 => Event::Kill(random.between(SECOND / 10, 3 * SECOND)),
                5 => Event::LoseLease,
                6 => Event::LoseData,
                7 => Event::Empty,
                8 => Event::Fail(random.between(SECOND / 2, 6 * SECOND)),
                _ => Event::Absent(random.between(SECOND / 2, 6 * SECOND)),
            };
            self.at(at.min(LENGTH), event);
        }
    }

    /// Adds an event.
    pub fn at(&mut self, at: Nanos, event: Event) {
        self.added += 1;
        self.events.insert((at, self.added), event);
    }

    /// The next event before the end of the faults.
    pub fn next(&mut self) -> Option<(Nanos, Event)> {
        let ((at, _), event) = self.events.pop_first()?;
        (at <= LENGTH + 2 * SECOND).then_some((at, event))
    }
}
