//! How many queues there are: more as the values become more, fewer as they become fewer.
//!
//! Queues of few values choose worse, and a weight limit may allow a hundred thousand values at one
//! time and a hundred at another. So every queue splits when one has enough values for two, and
//! they join in pairs when they have too few. A split moves no token, because a token may be in any
//! queue that is in use. A join moves the tokens of the queues that fall out of use.
//!
//! Race that this must survive: a thread adds a token to a queue that another thread has just
//! emptied for a join. Its value would be in no queue in use, and would stay for ever. The one
//! thread adds the token and then reads the number of queues; the other changes that number and
//! then empties the queue. All four accesses are in one order, so one of the two threads moves the
//! token.

use crate::protocol::entries::Entries;
use crate::protocol::fifo::Group;
use crate::protocol::shards::LEAST_VALUES;
use crate::sync::Ordering;

/// Queues join if they have fewer values than this on average, far fewer than after a split.
const FEW_VALUES: usize = if cfg!(all(loom, feature = "loom")) {
    2
} else {
    LEAST_VALUES / 4
};

impl<K, V> Entries<K, V> {
    /// Splits every queue if this one has enough values for two, or joins them if all have few.
    pub(super) fn split_or_join(&self, group: &Group, resident: usize) {
        let (joined, shards) = (group.joined, self.queues.shards.number());
        let to = match resident {
            _ if joined > 0 && resident >= 2 * LEAST_VALUES => joined - 1,
            _ if resident < FEW_VALUES && 1 << joined < shards && self.are_few(joined) => {
                joined + 1
            }
            _ => return,
        };
        // By exchange, because one step is enough for all threads that saw the same queues.
        let order = Ordering::SeqCst;
        let changed = (self.queues.joined).compare_exchange(joined, to, order, Ordering::Relaxed);
        if changed.is_ok() {
            self.gather(joined);
        }
    }

    fn are_few(&self, joined: u64) -> bool {
        self.limit.entries() < FEW_VALUES * (self.queues.shards.number() >> joined)
    }

    /// Moves the tokens of the queues that fell out of use since so many shards were joined.
    pub(super) fn gather(&self, joined: u64) {
        let (mut level, queues) = (joined, &self.queues.queues);
        while level < self.queues.joined.load(Ordering::SeqCst) {
            let half = 1 << level;
            for unused in (half..queues.len()).step_by(2 * half) {
                while let Some(token) = queues[unused].small.pop() {
                    if let Some(oldest) = queues[unused - half].small.force_push(token) {
                        self.move_on(oldest);
                    }
                }
            }
            level += 1;
        }
    }
}
