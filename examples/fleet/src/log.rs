//! The log: events that processes report, one per line, and the conclusions from them.

use std::collections::{HashMap, HashSet};
use std::fmt;

/// A line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A load begins: under a lease over the epoch `base`, if there is a lease, and for a resident
    /// value, if there is one.
    Load {
        hash: u128,
        base: Option<u64>,
        id: u64,
        previous: Option<u64>,
        at: u64,
    },
    /// That load ends.
    Loaded { hash: u128, id: u64 },
    /// The store has taken a result, as the successor of `base`.
    Published { hash: u128, base: u64, epoch: u64 },
    /// The store has taken an insert or an invalidation.
    Wrote { hash: u128, epoch: u64 },
    /// A process invalidated a key at this time, and then read this value.
    After { hash: u128, id: u64, at: u64 },
}

/// A number, or a dash if there is none.
struct Maybe(Option<u64>);

impl fmt::Display for Maybe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "{number}"),
            None => f.write_str("-"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Event::Load {
                hash,
                base,
                id,
                previous,
                at,
            } => {
                let (base, previous) = (Maybe(base), Maybe(previous));
                write!(f, "load {hash} {base} {id} {previous} {at}")
            }
            Event::Loaded { hash, id } => write!(f, "loaded {hash} {id}"),
            Event::Published { hash, base, epoch } => write!(f, "published {hash} {base} {epoch}"),
            Event::Wrote { hash, epoch } => write!(f, "wrote {hash} {epoch}"),
            Event::After { hash, id, at } => write!(f, "after {hash} {id} {at}"),
        }
    }
}

impl Event {
    /// `None` if the line is not an event.
    pub fn parse(line: &str) -> Option<Event> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        let hash = words.get(1)?.parse().ok()?;
        Some(match words[0] {
            "load" => Event::Load {
                hash,
                base: number(2),
                id: number(3)?,
                previous: number(4),
                at: number(5)?,
            },
            "loaded" => Event::Loaded {
                hash,
                id: number(2)?,
            },
            "published" => Event::Published {
                hash,
                base: number(2)?,
                epoch: number(3)?,
            },
            "wrote" => Event::Wrote {
                hash,
                epoch: number(2)?,
            },
            "after" => Event::After {
                hash,
                id: number(2)?,
                at: number(3)?,
            },
            _ => return None,
        })
    }
}

/// An event, and the number of the process that reported it. A restarted process has a new number.
pub type LoggedEvent = (usize, Event);

/// The loads of the fleet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loads {
    pub loads: usize,
    /// Stored epochs that were loaded again, including those of missing keys.
    pub epochs: usize,
    /// Loads beyond the first of each epoch.
    pub duplicates: usize,
    /// Loads without a lease, because the store could not be reached.
    pub unleased: usize,
}

impl Loads {
    pub fn of(log: &[LoggedEvent]) -> Loads {
        let mut seen = HashSet::new();
        let mut counted = Loads::default();
        for (_, event) in log {
            let Event::Load { hash, base, .. } = event else {
                continue;
            };
            counted.loads += 1;
            match base {
                None => counted.unleased += 1,
                Some(base) if seen.insert((*hash, *base)) => counted.epochs += 1,
                Some(_) => counted.duplicates += 1,
            }
        }
        counted
    }

    pub fn per_epoch(&self) -> f64 {
        self.loads as f64 / self.epochs.max(1) as f64
    }
}

/// The violations of each claim, with the events that show them.
#[derive(Default)]
pub struct Broken {
    /// At most one successor of each stored epoch.
    pub successors: Vec<String>,
    /// No result of a load that began before an invalidation or insert is stored after it, or read
    /// after it by the process that invalidated.
    pub overwritten: Vec<String>,
    /// One refresh of a value at a time in each process. (A value may be refreshed again if the
    /// result of the first refresh was refused and the store still has the value.)
    pub refreshes: Vec<String>,
}

impl Broken {
    pub fn find(log: &[LoggedEvent]) -> Broken {
        let mut broken = Broken::default();
        let mut successors = HashMap::new();
        let mut refreshing = HashMap::new();
        let mut writes: HashMap<u128, Vec<u64>> = HashMap::new();
        let mut begun = HashMap::new();
        for (process, event) in log {
            match *event {
                Event::Wrote { hash, epoch } => writes.entry(hash).or_default().push(epoch),
                Event::Published { hash, base, epoch } => {
                    if let Some(other) = successors.insert((hash, base), epoch) {
                        let text = format!("{event} by {process}, and {other}");
                        broken.successors.push(text);
                    }
                }
                Event::Load {
                    hash,
                    id,
                    previous,
                    at,
                    ..
                } => {
                    begun.insert(id, at);
                    let refresh = (*process, hash, previous);
                    if previous.is_some() && refreshing.insert(refresh, id).is_some() {
                        broken.refreshes.push(format!("{event} by {process}"));
                    }
                }
                Event::Loaded { id, .. } => refreshing.retain(|_, begun| *begun != id),
                Event::After { .. } => {}
            }
        }
        // The events of different processes arrive in any order, so all are read before this check.
        for (process, event) in log {
            match *event {
                Event::Published { hash, base, epoch } => {
                    let between = |write: &&u64| (base + 1..epoch).contains(*write);
                    if let Some(write) = writes.get(&hash).and_then(|all| all.iter().find(between))
                    {
                        let text = format!("{event} by {process}, but {write} was written");
                        broken.overwritten.push(text);
                    }
                }
                Event::After { id, at, .. } if begun.get(&id).is_some_and(|begun| *begun < at) => {
                    broken.overwritten.push(format!("{event} by {process}"));
                }
                _ => {}
            }
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(base: u64, id: u64, previous: Option<u64>, at: u64) -> Event {
        Event::Load {
            hash: 1,
            base: Some(base),
            id,
            previous,
            at,
        }
    }

    fn published(base: u64, epoch: u64) -> Event {
        let hash = 1;
        Event::Published { hash, base, epoch }
    }

    fn broken(log: &[LoggedEvent]) -> [usize; 3] {
        let broken = Broken::find(log);
        [broken.successors, broken.overwritten, broken.refreshes].map(|lines| lines.len())
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let events = [
            load(7, 8, Some(9), 10),
            load(7, 8, None, 10),
            published(1, 2),
            Event::Wrote { hash: 1, epoch: 2 },
            Event::After {
                hash: 1,
                id: 2,
                at: 3,
            },
        ];
        for event in events {
            assert_eq!(Event::parse(&event.to_string()), Some(event));
        }
        assert_eq!(Event::parse("seen 1 2 3 4"), None);
    }

    #[test]
    fn duplicates_are_counted() {
        let log = [
            load(1, 1, None, 0),
            load(2, 2, Some(1), 0),
            load(2, 3, Some(1), 0),
        ];
        let log: Vec<LoggedEvent> = log.into_iter().enumerate().collect();
        let loads = Loads::of(&log);
        assert_eq!((loads.loads, loads.epochs, loads.duplicates), (3, 2, 1));
    }

    #[test]
    fn a_log_that_keeps_the_claims_has_no_violations() {
        let log = [
            (0, load(1, 1, None, 0)),
            (0, published(1, 5)),
            (1, Event::Wrote { hash: 1, epoch: 6 }),
            (0, load(7, 2, Some(1), 9)),
            (1, load(7, 3, Some(1), 9)),
            (0, published(7, 8)),
            (
                1,
                Event::After {
                    hash: 1,
                    id: 2,
                    at: 8,
                },
            ),
        ];
        assert_eq!(broken(&log), [0, 0, 0]);
    }

    #[test]
    fn two_successors_of_one_epoch_are_found() {
        assert_eq!(
            broken(&[(0, published(1, 5)), (1, published(1, 6))]),
            [1, 0, 0]
        );
    }

    #[test]
    fn a_result_from_before_an_invalidation_is_found() {
        let wrote = Event::Wrote { hash: 1, epoch: 4 };
        assert_eq!(broken(&[(0, published(1, 5)), (1, wrote)]), [0, 1, 0]);
        let after = Event::After {
            hash: 1,
            id: 2,
            at: 8,
        };
        assert_eq!(broken(&[(0, after), (1, load(1, 2, None, 7))]), [0, 1, 0]);
    }

    #[test]
    fn a_second_refresh_in_a_process_is_found() {
        let log = [(0, load(1, 1, Some(9), 0)), (0, load(2, 2, Some(9), 0))];
        assert_eq!(broken(&log), [0, 0, 1]);
    }
}
