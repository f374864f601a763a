//! Small caches of keys without values, each of which evicts by another setting.
//!
//! They see the same accesses, so the numbers of their hits can be compared. One thread at a time
//! uses them. Their memory is allocated once: at most 26 KiB for all.

use std::collections::VecDeque;

use crate::protocol::uses::USES_MAX;

/// How a cache evicts.
#[derive(Clone, Copy)]
pub struct Setting {
    /// The small queue holds one value in this many.
    pub small: usize,
    /// A value with at least this many uses is promoted when it leaves the small queue. With 0
    /// every value moves on to the main queue and keeps its uses, so that the cache is a clock.
    pub promote_at: u8,
    /// The number of ghosts for each value.
    pub ghosts: usize,
    /// The setting is chosen if its hits exceed those of the present one by one in this many.
    margin: u32,
}

/// No small queue holds more than one value in this many.
pub const LARGEST_SHARE: usize = 8;

/// The most ghosts for each value.
pub const MOST_GHOSTS: usize = if cfg!(all(loom, feature = "loom")) {
    1
} else {
    3
};

pub const SETTINGS: [Setting; 4] = [
    // The best for most patterns. A cache starts with it.
    Setting {
        small: LARGEST_SHARE,
        promote_at: 2,
        ghosts: 1,
        margin: 40,
    },
    // For scans: nearly all the room is for values that have proved to be used.
    Setting {
        small: 50,
        promote_at: 2,
        ghosts: 1,
        margin: 40,
    },
    // For loops, and for keys that return late.
    Setting {
        small: 50,
        promote_at: 2,
        ghosts: MOST_GHOSTS,
        margin: 40,
    },
    // For keys that are used some times within a short time and then never again. With most other
    // patterns it loses much, so it needs better evidence.
    Setting {
        small: LARGEST_SHARE,
        promote_at: 0,
        ghosts: 1,
        margin: 12,
    },
];

/// The most values of a shadow. With a quarter of that the choice is less certain.
pub const MOST_VALUES: usize = 512;

/// A choice follows after an access for each value of a shadow, but after at least so many.
const LEAST_EPOCH: usize = 200;

/// At each choice the past loses one hit in so many.
const FADES: u32 = 10;

/// A difference of so many hits is chance, however few hits there are.
const CHANCE: u32 = 3;

/// The number of a slot of [`Keys`]. A key stays in its slot as long as a shadow knows it.
type Number = u16;

pub struct Shadows {
    keys: Keys,
    shadows: [Shadow; SETTINGS.len()],
    /// How many values each shadow holds.
    values: usize,
    /// The accesses since the last choice.
    accesses: usize,
}

impl Shadows {
    /// Shadows of at most so many values.
    pub fn new(most: usize) -> Self {
        let most = most.clamp(1, MOST_VALUES);
        Shadows {
            keys: Keys::new(most),
            shadows: std::array::from_fn(|number| Shadow::new(number, most)),
            values: 1,
            accesses: 0,
        }
    }

    /// Forgets all keys and all hits.
    pub fn clear(&mut self) {
        self.keys.slots.fill(Slot::default());
        self.shadows.iter_mut().for_each(Shadow::clear);
        self.accesses = 0;
    }

    /// Sets how many values each shadow holds.
    pub fn resize(&mut self, values: usize) {
        self.values = values.clamp(1, MOST_VALUES);
    }

    /// An access to the key of this name.
    pub fn access(&mut self, name: u64) {
        self.accesses += 1;
        // A key that finds no room is ignored by all shadows alike. That is rare.
        if let Some(key) = self.keys.find_or_add(name) {
            for shadow in &mut self.shadows {
                shadow.access(&mut self.keys, key, self.values);
            }
        }
    }

    /// A better setting than the present one, by its number, if an epoch is over and there is one.
    pub fn choice(&mut self, present: usize) -> Option<usize> {
        if self.accesses < LEAST_EPOCH.max(self.values) {
            return None;
        }
        self.accesses = 0;
        for shadow in &mut self.shadows {
            shadow.score -= shadow.score / FADES;
            shadow.score += std::mem::take(&mut shadow.hits);
        }
        let (best, shadow) = (self.shadows.iter().enumerate()).max_by_key(|(_, s)| s.score)?;
        let score = self.shadows.get(present)?.score;
        let enough = score + score / shadow.setting.margin + CHANCE;
        (shadow.score > enough).then_some(best)
    }
}

/// A cache of keys that evicts by one setting, like [`fifo`](crate::protocol::fifo) does.
struct Shadow {
    number: usize,
    setting: Setting,
    small: VecDeque<Number>,
    /// A clock. A new key gets any place in it, as its way in the table is at any place.
    main: Vec<Number>,
    hand: usize,
    /// From the oldest one. A key that returned stays here until its turn.
    ghosts: VecDeque<Number>,
    /// The state of a generator of random numbers.
    random: u32,
    /// The hits of this epoch.
    hits: u32,
    /// The hits so far, those of past epochs in part.
    score: u32,
}

impl Shadow {
    fn new(number: usize, most: usize) -> Self {
        let setting = SETTINGS[number];
        Shadow {
            number,
            setting,
            small: VecDeque::with_capacity(most / setting.small + 2),
            main: Vec::with_capacity(most),
            hand: 0,
            ghosts: VecDeque::with_capacity(most * setting.ghosts + 1),
            random: 1,
            hits: 0,
            score: 0,
        }
    }

    fn clear(&mut self) {
        self.small.clear();
        self.main.clear();
        self.ghosts.clear();
        self.hits = 0;
        self.score = 0;
    }

    fn access(&mut self, keys: &mut Keys, key: Number, values: usize) {
        let state = keys.state(key, self.number);
        match state {
            State::Small(uses) => keys.set(key, self.number, State::Small(more(uses))),
            State::Main(uses) => keys.set(key, self.number, State::Main(more(uses))),
            State::Gone | State::Ghost => {
                while self.len() >= values {
                    self.evict(keys, values);
                }
                return self.insert(keys, key, values, state == State::Ghost);
            }
        }
        self.hits += 1;
    }

    fn insert(&mut self, keys: &mut Keys, key: Number, values: usize, returns: bool) {
        if returns {
            return self.add_to_main(keys, key, 0);
        }
        keys.set(key, self.number, State::Small(0));
        self.small.push_back(key);
        // Only before the cache is full.
        if self.small.len() > self.share(values) {
            if let Some(oldest) = self.small.pop_front() {
                self.add_to_main(keys, oldest, keys.state(oldest, self.number).uses());
            }
        }
    }

    fn evict(&mut self, keys: &mut Keys, values: usize) {
        let is_long = self.small.len() >= self.share(values) || self.main.is_empty();
        let oldest = is_long.then(|| self.small.pop_front()).flatten();
        match oldest {
            Some(oldest) => self.leave_small(keys, oldest, values),
            None => self.move_hand(keys),
        }
    }

    /// Moves a key from the small queue to the main queue, or evicts it.
    fn leave_small(&mut self, keys: &mut Keys, oldest: Number, values: usize) {
        let uses = keys.state(oldest, self.number).uses();
        match self.setting.promote_at {
            0 => return self.add_to_main(keys, oldest, uses),
            least if uses >= least => return self.add_to_main(keys, oldest, 0),
            _ => keys.set(oldest, self.number, State::Ghost),
        }
        self.ghosts.push_back(oldest);
        while self.ghosts.len() > self.setting.ghosts * values {
            let ghost = self.ghosts.pop_front();
            if let Some(ghost) = ghost.filter(|g| keys.state(*g, self.number) == State::Ghost) {
                keys.set(ghost, self.number, State::Gone);
            }
        }
    }

    /// Takes a use off the key at the hand, or evicts it if it has none.
    fn move_hand(&mut self, keys: &mut Keys) {
        if self.hand >= self.main.len() {
            self.hand = 0;
        }
        let Some(key) = self.main.get(self.hand) else {
            return;
        };
        match keys.state(*key, self.number).uses() {
            0 => {
                keys.set(*key, self.number, State::Gone);
                self.main.swap_remove(self.hand);
            }
            uses => {
                keys.set(*key, self.number, State::Main(uses - 1));
                self.hand += 1;
            }
        }
    }

    fn add_to_main(&mut self, keys: &mut Keys, key: Number, uses: u8) {
        keys.set(key, self.number, State::Main(uses));
        self.main.push(key);
        let length = self.main.len();
        self.random = (self.random.wrapping_mul(1_664_525)).wrapping_add(1_013_904_223);
        let place = (u64::from(self.random) * length as u64) >> 32;
        self.main.swap(place as usize, length - 1);
    }

    fn len(&self) -> usize {
        self.small.len() + self.main.len()
    }

    fn share(&self, values: usize) -> usize {
        (values / self.setting.small).max(1)
    }
}

fn more(uses: u8) -> u8 {
    (uses + 1).min(USES_MAX)
}

/// Where a key is in one shadow, and its uses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Gone,
    Ghost,
    Small(u8),
    Main(u8),
}

impl State {
    fn uses(self) -> u8 {
        match self {
            State::Small(uses) | State::Main(uses) => uses,
            State::Gone | State::Ghost => 0,
        }
    }
}

/// The keys that a shadow knows, and their states, in buckets.
struct Keys {
    slots: Box<[Slot]>,
}

/// The slots of a bucket.
const BUCKET: usize = 16;

/// A slot without any state is free.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// A part of a hash of the key's name; another part chose the bucket.
    print: u16,
    /// Four bits for each shadow.
    states: u16,
}

impl Keys {
    /// Room for twice as many keys as so many values and their ghosts are.
    fn new(most: usize) -> Self {
        let buckets = (most * 2 * (1 + MOST_GHOSTS)).div_ceil(BUCKET);
        Keys {
            slots: vec![Slot::default(); buckets.next_power_of_two() * BUCKET].into(),
        }
    }

    fn find_or_add(&mut self, name: u64) -> Option<Number> {
        let hash = name.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let print = (hash >> 48) as u16;
        // The remainder first, because the product may exceed a `usize` of 32 bits.
        let first = (hash >> 32) as usize % (self.slots.len() / BUCKET) * BUCKET;
        let mut bucket = first..first + BUCKET;
        let is_known = |at: &usize| self.slots[*at].states != 0 && self.slots[*at].print == print;
        let known = bucket.clone().find(is_known);
        let found = known.or_else(|| bucket.find(|at| self.slots[*at].states == 0))?;
        self.slots[found].print = print;
        Some(found as Number)
    }

    fn state(&self, key: Number, shadow: usize) -> State {
        let bits = (self.slots[usize::from(key)].states >> (4 * shadow) & 15) as u8;
        match bits >> 2 {
            0 if bits == 0 => State::Gone,
            0 => State::Ghost,
            1 => State::Small(bits & USES_MAX),
            _ => State::Main(bits & USES_MAX),
        }
    }

    fn set(&mut self, key: Number, shadow: usize, state: State) {
        let bits = match state {
            State::Gone => 0,
            State::Ghost => 1,
            State::Small(uses) => 1 << 2 | uses,
            State::Main(uses) => 2 << 2 | uses,
        };
        let states = &mut self.slots[usize::from(key)].states;
        *states = *states & !(15 << (4 * shadow)) | u16::from(bits) << (4 * shadow);
    }
}
