//! Small caches of keys without values, each of which evicts by another setting.
//!
//! They see the same accesses, so the numbers of their hits can be compared. One thread at a time
//! uses them. Their memory is allocated once: at most 26 KiB for all.

use std::collections::VecDeque;

use crate::protocol::entry::USES_MAX;

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

/// A choice follows after so many accesses for each value of a shadow, ...
const EPOCH: usize = 4;

/// ... and after at least so many.
const LEAST_EPOCH: usize = 200;

/// A difference of so many hits is chance, however few hits there are.
const CHANCE: u32 = 3;

/// A sampled key: the number of its set in the sample, and its tag.
pub type Key = u16;

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

    pub fn access(&mut self, key: Key) {
        self.accesses += 1;
        // A key that finds no room is ignored by all shadows alike. That is rare.
        if let Some(at) = self.keys.find_or_add(key) {
            for shadow in &mut self.shadows {
                shadow.access(&mut self.keys, at, key, self.values);
            }
        }
    }

    /// A better setting than the present one, by its number, if an epoch is over and there is one.
    pub fn choice(&mut self, present: usize) -> Option<usize> {
        if self.accesses < LEAST_EPOCH.max(EPOCH * self.values) {
            return None;
        }
        self.accesses = 0;
        for shadow in &mut self.shadows {
            // The past counts less with every epoch.
            shadow.score = shadow.score - shadow.score / 4 + std::mem::take(&mut shadow.hits);
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
    small: VecDeque<Key>,
    /// A clock. A new key gets any place in it, as its way in the table is at any place.
    main: Vec<Key>,
    hand: usize,
    /// From the oldest one. A key that returned stays here until its turn.
    ghosts: VecDeque<Key>,
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

    fn access(&mut self, keys: &mut Keys, at: usize, key: Key, values: usize) {
        let state = keys.state(at, self.number);
        match state {
            State::Small(uses) => keys.set(at, self.number, State::Small(more(uses))),
            State::Main(uses) => keys.set(at, self.number, State::Main(more(uses))),
            State::Gone | State::Ghost => {
                while self.len() >= values {
                    self.evict(keys, values);
                }
                return self.insert(keys, at, key, values, state == State::Ghost);
            }
        }
        self.hits += 1;
    }

    fn insert(&mut self, keys: &mut Keys, at: usize, key: Key, values: usize, returns: bool) {
        if returns {
            return self.add_to_main(keys, at, key, 0);
        }
        keys.set(at, self.number, State::Small(0));
        self.small.push_back(key);
        // Before the cache is full, the overflow of the small queue moves on.
        if self.small.len() > self.share(values) && self.len() < values {
            let oldest = self.small.pop_front();
            let found = oldest.and_then(|oldest| Some((oldest, keys.find(oldest)?)));
            if let Some((oldest, at)) = found {
                let uses = keys.state(at, self.number).uses();
                self.add_to_main(keys, at, oldest, uses);
            }
        }
    }

    fn evict(&mut self, keys: &mut Keys, values: usize) {
        let length = self.len();
        while self.len() == length {
            if self.small.len() >= self.share(values) || self.main.is_empty() {
                self.evict_from_small(keys, values);
            } else {
                self.evict_from_main(keys);
            }
        }
    }

    /// Evicts the oldest key of the small queue, or moves it to the main queue.
    fn evict_from_small(&mut self, keys: &mut Keys, values: usize) {
        let oldest = self.small.pop_front();
        let Some((oldest, at)) = oldest.and_then(|oldest| Some((oldest, keys.find(oldest)?)))
        else {
            return;
        };
        let uses = keys.state(at, self.number).uses();
        match self.setting.promote_at {
            0 => return self.add_to_main(keys, at, oldest, uses),
            least if uses >= least => return self.add_to_main(keys, at, oldest, 0),
            _ => keys.set(at, self.number, State::Ghost),
        }
        self.ghosts.push_back(oldest);
        while self.ghosts.len() > self.setting.ghosts * values {
            let ghost = self.ghosts.pop_front().and_then(|ghost| keys.find(ghost));
            if let Some(at) = ghost.filter(|at| keys.state(*at, self.number) == State::Ghost) {
                keys.set(at, self.number, State::Gone);
            }
        }
    }

    /// Takes a use off the key at the hand, or evicts it if it has none.
    fn evict_from_main(&mut self, keys: &mut Keys) {
        self.hand %= self.main.len();
        if let Some(at) = keys.find(self.main[self.hand]) {
            if let State::Main(uses @ 1..) = keys.state(at, self.number) {
                self.hand += 1;
                return keys.set(at, self.number, State::Main(uses - 1));
            }
            keys.set(at, self.number, State::Gone);
        }
        self.main.swap_remove(self.hand);
    }

    fn add_to_main(&mut self, keys: &mut Keys, at: usize, key: Key, uses: u8) {
        keys.set(at, self.number, State::Main(uses));
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

/// The keys in all shadows and their states, in buckets.
struct Keys {
    slots: Box<[Slot]>,
}

/// The slots of a bucket.
const BUCKET: usize = 16;

/// A slot without any state is free.
#[derive(Clone, Copy, Default)]
struct Slot {
    key: Key,
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

    fn bucket(&self, key: Key) -> std::ops::Range<usize> {
        // The lowest bits of a key are its tag, which is a hash.
        let first = usize::from(key) * BUCKET & (self.slots.len() - 1);
        first..first + BUCKET
    }

    fn find(&self, key: Key) -> Option<usize> {
        let is_here = |at: &usize| self.slots[*at].states != 0 && self.slots[*at].key == key;
        self.bucket(key).find(is_here)
    }

    fn find_or_add(&mut self, key: Key) -> Option<usize> {
        let found = self.find(key);
        found.or_else(|| {
            let free = self.bucket(key).find(|at| self.slots[*at].states == 0)?;
            self.slots[free].key = key;
            Some(free)
        })
    }

    fn state(&self, at: usize, shadow: usize) -> State {
        let bits = (self.slots[at].states >> (4 * shadow) & 15) as u8;
        match bits >> 2 {
            0 if bits == 0 => State::Gone,
            0 => State::Ghost,
            1 => State::Small(bits & USES_MAX),
            _ => State::Main(bits & USES_MAX),
        }
    }

    fn set(&mut self, at: usize, shadow: usize, state: State) {
        let bits = match state {
            State::Gone => 0,
            State::Ghost => 1,
            State::Small(uses) => 1 << 2 | uses,
            State::Main(uses) => 2 << 2 | uses,
        };
        let states = &mut self.slots[at].states;
        *states = *states & !(15 << (4 * shadow)) | u16::from(bits) << (4 * shadow);
    }
}
