//! The assignment of keys to masters.

use super::node::Node;
use crate::sync::Arc;

const COUNT: u16 = 16_384;

/// Which master owns which slots of a cluster; a single server owns all of them.
pub(super) struct Slots {
    nodes: Vec<Arc<Node>>,
    ranges: Vec<SlotRange>,
}

/// A range of slots, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) first: u16,
    pub(super) last: u16,
    /// The index of the master among the nodes.
    pub(super) node: usize,
}

impl Slots {
    pub(super) fn single(node: Arc<Node>) -> Self {
        let range = SlotRange {
            first: 0,
            last: COUNT - 1,
            node: 0,
        };
        Self::new(vec![node], vec![range])
    }

    pub(super) fn new(nodes: Vec<Arc<Node>>, ranges: Vec<SlotRange>) -> Self {
        Slots { nodes, ranges }
    }

    pub(super) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The only master, if it owns all slots.
    pub(super) fn only_master(&self) -> Option<&Arc<Node>> {
        match (&self.nodes[..], &self.ranges[..]) {
            ([node], [range]) => (range.last - range.first == COUNT - 1).then_some(node),
            _ => None,
        }
    }

    /// The master that owns the key with this hash.
    pub(super) fn owner(&self, hash: u128) -> Option<&Arc<Node>> {
        // A single server needs no computation of the slot.
        if let Some(node) = self.only_master() {
            return Some(node);
        }
        let slot = slot(hash);
        let mut ranges = self.ranges.iter();
        let range = ranges.find(|range| (range.first..=range.last).contains(&slot))?;
        self.nodes.get(range.node)
    }

    /// Whether both assign the same slots to the same nodes.
    pub(super) fn is(&self, other: &Slots) -> bool {
        let same = |(a, b): (&Arc<Node>, &Arc<Node>)| Arc::ptr_eq(a, b);
        self.ranges == other.ranges
            && self.nodes.len() == other.nodes.len()
            && self.nodes.iter().zip(&other.nodes).all(same)
    }
}

/// The slot of a key: the CRC-16 of the hash in braces (Redis Cluster specification).
fn slot(hash: u128) -> u16 {
    let tag = format!("{hash:032x}");
    let crc = tag.bytes().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| match crc >> 15 {
            0 => crc << 1,
            _ => crc << 1 ^ 0x1021,
        })
    });
    crc % COUNT
}
