//! `control`, the word of a set of the slot table, and the places in the table (see `table`).

/// Ways in a set. Under the model checker sets are small enough to explore.
pub const WAYS: usize = if cfg!(all(loom, feature = "loom")) {
    2
} else {
    13
};

pub const OCCUPIED: u64 = (1 << WAYS) - 1;
pub const VERSION: u64 = 1 << (2 * WAYS);

/// The promoted bit of a way in `control`.
pub fn promoted(way: usize) -> u64 {
    1 << (WAYS + way)
}

/// `control` without a way, with the next version.
pub fn without(control: u64, way: usize) -> u64 {
    (control & !(1 << way | promoted(way))).wrapping_add(VERSION)
}

/// The number of a way of the table. An item never moves, so its place stays the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    set: u32,
    way: u8,
}

/// Which ways of a set were occupied and which promoted, and since when.
#[derive(Clone, Copy)]
pub struct Membership(pub u64);

impl Membership {
    /// Whether every way was occupied. A way that is not may still be reserved or not emptied yet.
    pub fn is_full(self) -> bool {
        self.0 & OCCUPIED == OCCUPIED
    }

    /// Whether the item at this place was promoted.
    pub fn is_promoted(self, place: Place) -> bool {
        self.0 & promoted(place.way()) != 0
    }
}

impl Place {
    /// The first way of a set.
    pub fn first(set: usize) -> Self {
        Place::new(set, 0)
    }

    pub fn new(set: usize, way: usize) -> Self {
        Place {
            set: set as u32,
            way: way as u8,
        }
    }

    pub fn set(self) -> usize {
        self.set as usize
    }

    pub fn way(self) -> usize {
        self.way.into()
    }
}

/// The numbers of the bits that are set, from the lowest.
pub fn bits(mut left: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (left != 0).then(|| left.trailing_zeros() as usize);
        left &= left.wrapping_sub(1);
        lowest
    })
}
