//! Which master has which keys.

use super::node::Node;
use crate::sync::Arc;

const COUNT: u16 = 16_384;

/// Which master has which slots of a cluster; a single server has them all.
pub(super) struct Slots {
    nodes: Vec<Arc<Node>>,
    ranges: Vec<Range>,
}

/// Slots that belong together, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    /// The place of the master among the nodes.
    pub(super) node: usize,
}

impl Slots {
    pub(super) fn single(node: Arc<Node>) -> Self {
        let range = Range {
            first: 0,
            last: COUNT - 1,
            node: 0,
        };
        Self::new(vec![node], vec![range])
    }

    pub(super) fn new(nodes: Vec<Arc<Node>>, ranges: Vec<Range>) -> Self {
        Slots { nodes, ranges }
    }

    pub(super) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The master that has them all.
    pub(super) fn alone(&self) -> Option<&Arc<Node>> {
        match (&self.nodes[..], &self.ranges[..]) {
            ([node], [range]) => (range.last - range.first == COUNT - 1).then_some(node),
            _ => None,
        }
    }

    /// The master that has the key of this hash.
    pub(super) fn owner(&self, hash: u128) -> Option<&Arc<Node>> {
        // A single server needs no slot.
        if let Some(node) = self.alone() {
            return Some(node);
        }
        let slot = slot(hash);
        let mut ranges = self.ranges.iter();
        let range = ranges.find(|range| (range.first..=range.last).contains(&slot))?;
        self.nodes.get(range.node)
    }

    /// Whether both say the same.
    pub(super) fn is(&self, other: &Slots) -> bool {
        let same = |(a, b): (&Arc<Node>, &Arc<Node>)| Arc::ptr_eq(a, b);
        self.ranges == other.ranges
            && self.nodes.len() == other.nodes.len()
            && self.nodes.iter().zip(&other.nodes).all(same)
    }
}

/// The slot of a key: that of the hash in braces, see the Redis Cluster specification.
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
