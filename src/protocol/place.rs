//! The place of an item in the slot table, and the ways of a set as bits.

/// The number of a way of the table. An item never moves, so its place stays the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    set: u32,
    way: u8,
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
