//! The log of a server's outages: one line when its first connection is lost, and one when all are
//! back, whatever the attempts in between.

use crate::observe::trace;
use crate::store::StoreState;
use crate::store::error::StoreError;
use crate::sync::{Mutex, lock};

/// The connections to a server.
const CONNECTIONS: u32 = 2;

pub(super) struct OutageLog {
    /// The server, without its login.
    name: String,
    counts: Mutex<Counts>,
}

/// The connections that are up, and those that are down. The others were not made yet.
#[derive(Default)]
struct Counts {
    up: u32,
    down: u32,
}

#[derive(Debug, PartialEq)]
enum Line<'a> {
    Lost(&'a StoreError),
    Back,
}

impl Counts {
    /// Counts a change of one connection, and returns the line that it is worth.
    fn change<'a>(&mut self, before: &StoreState, after: &'a StoreState) -> Option<Line<'a>> {
        match before {
            StoreState::Up => self.up -= 1,
            StoreState::Down(_) => self.down -= 1,
            StoreState::Connecting => {}
        }
        match after {
            StoreState::Up => self.up += 1,
            StoreState::Down(_) => self.down += 1,
            StoreState::Connecting => {}
        }
        match (before, after) {
            (StoreState::Down(_), StoreState::Down(_)) => None,
            (_, StoreState::Down(error)) => (self.down == 1).then_some(Line::Lost(error)),
            (_, StoreState::Up) => (self.up == CONNECTIONS).then_some(Line::Back),
            (_, StoreState::Connecting) => None,
        }
    }
}

impl OutageLog {
    pub(super) fn new(name: String) -> Self {
        OutageLog {
            name,
            counts: Mutex::default(),
        }
    }

    /// Notes a change of one connection.
    pub(super) fn change(&self, before: &StoreState, after: &StoreState) {
        // Logs after the lock is released, because a subscriber can run any code.
        let line = lock(&self.counts).change(before, after);
        match line {
            Some(Line::Lost(error)) => {
                trace::disconnected(&self.name, error.class().name(), error);
            }
            Some(Line::Back) => trace::connected(&self.name),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::error::ErrorClass;

    #[test]
    fn an_outage_of_both_connections_is_one_line_and_its_end_another() {
        let error = StoreError::new(ErrorClass::Unavailable, "");
        let down = || StoreState::Down(error.clone());
        let (connecting, up) = (StoreState::Connecting, StoreState::Up);
        let mut counts = Counts::default();
        let (lost, back) = (Some(Line::Lost(&error)), Some(Line::Back));
        // The server comes up late.
        assert_eq!(counts.change(&connecting, &down()), lost);
        assert_eq!(counts.change(&connecting, &down()), None);
        assert_eq!(counts.change(&down(), &down()), None);
        assert_eq!(counts.change(&down(), &up), None);
        assert_eq!(counts.change(&up, &down()), None, "the same outage");
        assert_eq!(counts.change(&down(), &up), None);
        assert_eq!(counts.change(&down(), &up), back);
        // One connection is lost and comes back.
        assert_eq!(counts.change(&up, &down()), lost);
        assert_eq!(counts.change(&down(), &up), back);
    }
}
