//! Two policies to compare with, exact and for one thread.

use std::collections::{HashMap, VecDeque};

use foldhash::quality::RandomState;

/// S3-FIFO (Yang et al., SOSP 2023): a small queue of a tenth of the capacity, promotion at two
/// uses, and as many ghosts as entries.
pub struct S3Fifo {
    capacity: usize,
    small_limit: usize,
    /// Uses, up to three.
    uses: HashMap<u32, u8, RandomState>,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    /// Each with a number, because a ghost that returns leaves its old place in the queue behind.
    ghosts: VecDeque<(u32, u64)>,
    ghost: HashMap<u32, u64, RandomState>,
    evicted: u64,
}

impl S3Fifo {
    pub fn new(capacity: usize) -> Self {
        S3Fifo {
            capacity,
            small_limit: (capacity / 10).max(1),
            uses: HashMap::default(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            ghost: HashMap::default(),
            evicted: 0,
        }
    }

    /// Gets a key, and inserts it if it is missing. Returns whether it was a hit.
    pub fn access(&mut self, key: u32) -> bool {
        if let Some(uses) = self.uses.get_mut(&key) {
            *uses = (*uses + 1).min(3);
            return true;
        }
        while self.uses.len() >= self.capacity {
            match self.small.len() >= self.small_limit || self.main.is_empty() {
                true => self.evict_small(),
                false => self.evict_main(),
            }
        }
        match self.ghost.remove(&key) {
            Some(_) => self.main.push_back(key),
            None => self.small.push_back(key),
        }
        self.uses.insert(key, 0);
        false
    }

    fn evict_small(&mut self) {
        while let Some(key) = self.small.pop_front() {
            if self.uses[&key] >= 2 {
                self.uses.insert(key, 0);
                self.main.push_back(key);
                continue;
            }
            self.uses.remove(&key);
            self.evicted += 1;
            self.ghosts.push_back((key, self.evicted));
            self.ghost.insert(key, self.evicted);
            while self.ghost.len() > self.capacity {
                if let Some((oldest, at)) = self.ghosts.pop_front()
                    && self.ghost.get(&oldest) == Some(&at)
                {
                    self.ghost.remove(&oldest);
                }
            }
            return;
        }
    }

    fn evict_main(&mut self) {
        while let Some(key) = self.main.pop_front() {
            match self.uses[&key] {
                0 => {
                    self.uses.remove(&key);
                    return;
                }
                uses => {
                    self.uses.insert(key, uses - 1);
                    self.main.push_back(key);
                }
            }
        }
    }
}

/// LRU: a queue of all accesses, in which only the last access of each key counts.
pub struct Lru {
    capacity: usize,
    last: HashMap<u32, u64, RandomState>,
    accesses: VecDeque<(u32, u64)>,
    now: u64,
}

impl Lru {
    pub fn new(capacity: usize) -> Self {
        Lru {
            capacity,
            last: HashMap::default(),
            accesses: VecDeque::new(),
            now: 0,
        }
    }

    /// Like [`S3Fifo::access`].
    pub fn access(&mut self, key: u32) -> bool {
        self.now += 1;
        self.accesses.push_back((key, self.now));
        let hit = self.last.insert(key, self.now).is_some();
        while self.last.len() > self.capacity {
            if let Some((oldest, at)) = self.accesses.pop_front()
                && self.last.get(&oldest) == Some(&at)
            {
                self.last.remove(&oldest);
            }
        }
        hit
    }
}
