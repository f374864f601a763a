//! The wait graph: which load runs on this thread, and for which loads it waits.
//!
//! A load that waits for another load is an edge between two nodes. Before a load starts to wait,
//! it adds its edge and follows the edges. If they lead back to it, the wait would never end, so
//! the read fails instead. Two loads that close a cycle at the same moment have both added their
//! edges before they follow them, so at least one of them finds the cycle.
//!
//! A node also counts the loads that wait, one for another, for this one. A chain that is too long
//! would overflow the stack of a worker, which runs the loads it waits for.

use std::cell::RefCell;
use std::collections::HashSet;
use std::mem::ManuallyDrop;

use crate::sync::{Arc, Counter, Mutex, Ordering, lock};

/// One running load or refresh.
pub struct WaitNode {
    waits_for: Mutex<Vec<Arc<WaitNode>>>,
    /// The number of loads in the chain that ends with this one.
    depth: Counter,
}

impl Default for WaitNode {
    fn default() -> Self {
        WaitNode {
            waits_for: Mutex::new(Vec::new()),
            depth: Counter::new(1),
        }
    }
}

thread_local! {
    // Empty whenever no load runs, so nothing is left to drop. Without a destructor it can be used
    // until the thread's very end, even by a load that a destructor runs.
    static CURRENT: RefCell<ManuallyDrop<Option<Arc<WaitNode>>>> =
        const { RefCell::new(ManuallyDrop::new(None)) };
}

/// Exchanges the load that runs on this thread; `None` if it is unknown. That is harmless, because
/// cycles then end by the load timeout.
fn exchange(wait_node: Option<Arc<WaitNode>>) -> Option<Arc<WaitNode>> {
    let exchanged =
        CURRENT.try_with(|current| std::mem::replace(&mut **current.borrow_mut(), wait_node));
    exchanged.ok().flatten()
}

impl WaitNode {
    /// The load that runs on this thread, if any.
    pub fn current() -> Option<Arc<WaitNode>> {
        CURRENT
            .try_with(|current| (**current.borrow()).clone())
            .ok()
            .flatten()
    }

    /// How many loads wait for what this thread runs, itself included; 0 outside a load.
    pub fn current_depth() -> u64 {
        let depth = |node: &Arc<WaitNode>| node.depth.load(Ordering::Relaxed);
        CURRENT
            .try_with(|current| (**current.borrow()).as_ref().map_or(0, depth))
            .unwrap_or(0)
    }

    /// Records that a load of depth `outer` waits for this one, which has not started.
    pub(crate) fn below(&self, outer: u64) {
        // Relaxed: the thread that starts the load comes after this one, and the depth is a limit
        // that guards no memory.
        self.depth.fetch_max(outer + 1, Ordering::Relaxed);
    }

    /// Marks this thread as running `self` until the guard drops.
    pub fn enter(self: &Arc<Self>) -> Entered {
        // On this stack it lies above the load that waits for it, whichever caller started it.
        self.below(Self::current_depth());
        Entered {
            outer: exchange(Some(self.clone())),
        }
    }

    /// Records that `self` waits for `other`; `None` if `other` already waits for `self`.
    pub fn wait_for(self: &Arc<Self>, other: &Arc<WaitNode>) -> Option<Edge> {
        let edge = self.edge(other);
        (!other.leads_to(self)).then_some(edge)
    }

    /// Records that `self`, a key of a batch, ends with `batch`, which has not started.
    pub fn run_in(self: &Arc<Self>, batch: &Arc<WaitNode>) -> Edge {
        // Relaxed: as in `below`. A batch is as deep as its deepest key.
        let depth = self.depth.load(Ordering::Relaxed);
        batch.depth.fetch_max(depth, Ordering::Relaxed);
        // It closes no cycle, because the batch has not waited for anything.
        self.edge(batch)
    }

    fn edge(self: &Arc<Self>, other: &Arc<WaitNode>) -> Edge {
        lock(&self.waits_for).push(other.clone());
        Edge {
            from: self.clone(),
            to: other.clone(),
        }
    }

    fn leads_to(self: &Arc<Self>, target: &Arc<WaitNode>) -> bool {
        if Arc::ptr_eq(self, target) {
            return true;
        }
        // The nodes are kept until the end, so that no other one gets the address of one of them.
        let (mut known, mut seen) = (vec![self.clone()], HashSet::new());
        let mut next = 0;
        while let Some(wait_node) = known.get(next).cloned() {
            next += 1;
            // One lock at a time, so following edges cannot deadlock.
            for edge in lock(&wait_node.waits_for).iter() {
                if Arc::ptr_eq(edge, target) {
                    return true;
                }
                if seen.insert(Arc::as_ptr(edge)) {
                    known.push(edge.clone());
                }
            }
        }
        false
    }
}

/// Restores the outer load when dropped, because a worker that waits may run another load on its
/// stack.
pub struct Entered {
    outer: Option<Arc<WaitNode>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let ended = exchange(self.outer.take());
        drop(ended);
    }
}

/// "`from` waits for `to`", until dropped.
pub struct Edge {
    from: Arc<WaitNode>,
    to: Arc<WaitNode>,
}

impl Edge {
    /// The node that is waited for.
    pub(crate) fn to(&self) -> &Arc<WaitNode> {
        &self.to
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let mut edges = lock(&self.from.waits_for);
        // From the end, because a load that waits for many others ends the last wait first.
        let at = (edges.iter()).rposition(|edge| Arc::ptr_eq(edge, &self.to));
        if let Some(at) = at {
            let edge = edges.swap_remove(at);
            drop(edges);
            drop(edge);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, WaitNode};

    #[test]
    fn a_cycle_is_found_and_an_edge_ends_with_its_guard() {
        let [a, b, c] = [(); 3].map(|()| Arc::new(WaitNode::default()));
        let ab = a.wait_for(&b);
        let bc = b.wait_for(&c);
        assert!(ab.is_some() && bc.is_some());
        assert!(c.wait_for(&a).is_none());
        assert!(a.wait_for(&a).is_none());
        drop(ab);
        assert!(c.wait_for(&a).is_some());
    }

    /// With a search that looks through all nodes for each node, this takes a minute.
    #[test]
    fn a_load_that_waits_for_thousands_of_others_does_not_slow_their_cycles_down() {
        let outer = Arc::new(WaitNode::default());
        let inner: Vec<Arc<WaitNode>> = (0..2_000).map(|_| Arc::default()).collect();
        let edges: Vec<_> = inner.iter().map(|node| outer.wait_for(node)).collect();
        assert!(edges.iter().all(Option::is_some));
        assert!(inner.iter().all(|node| node.wait_for(&outer).is_none()));
        let other = Arc::new(WaitNode::default());
        for _ in 0..100 {
            assert!(other.wait_for(&outer).is_some());
        }
    }
}
