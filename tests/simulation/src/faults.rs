//! Faults that are built in on purpose, to see that the simulation finds them.
//!
//! Each breaks the server or a link in the way in which a store or a connection once was, or could
//! be, broken. Faults inside of the cache are patches: see `mutations`.

use crate::claims::Claim;

/// A fault for a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The store takes each write for the latest, whenever it was made.
    LateWritesWin,
    /// The store takes the answer "not found" whatever has happened since the load began.
    NotFoundWithoutBase,
    /// Change messages reach the processes of the other databases too.
    MessagesCrossDatabases,
    /// The store does not keep the answer "not found".
    NotFoundIsNotShared,
    /// The failure of one process keeps the key from all.
    OneFailureCoolsAll,
    /// A process does not notice that the server has come back empty.
    LostDataGoesUnnoticed,
    /// A process cannot tell a lost lease from a later write.
    RefusedValuesLeave,
    /// The store takes a result whatever its base is.
    PublishWithoutBase,
    /// The store grants a lease that is held.
    LeasesForAll,
}

impl Fault {
    pub const ALL: [Fault; 9] = [
        Fault::LateWritesWin,
        Fault::NotFoundWithoutBase,
        Fault::MessagesCrossDatabases,
        Fault::NotFoundIsNotShared,
        Fault::OneFailureCoolsAll,
        Fault::LostDataGoesUnnoticed,
        Fault::RefusedValuesLeave,
        Fault::PublishWithoutBase,
        Fault::LeasesForAll,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::LateWritesWin => "late-writes-win",
            Fault::NotFoundWithoutBase => "not-found-without-base",
            Fault::MessagesCrossDatabases => "messages-cross-databases",
            Fault::NotFoundIsNotShared => "not-found-is-not-shared",
            Fault::OneFailureCoolsAll => "one-failure-cools-all",
            Fault::LostDataGoesUnnoticed => "lost-data-goes-unnoticed",
            Fault::RefusedValuesLeave => "refused-values-leave",
            Fault::PublishWithoutBase => "publish-without-base",
            Fault::LeasesForAll => "leases-for-all",
        }
    }

    /// The claims of which a run with this fault breaks one first.
    pub fn breaks(self) -> &'static [Claim] {
        match self {
            Fault::LateWritesWin => &[Claim::TheLaterWriteWins],
            Fault::NotFoundWithoutBase | Fault::PublishWithoutBase => &[
                Claim::OneSuccessor,
                Claim::NothingFromBeforeAWrite,
                Claim::GoodValuesStay,
            ],
            Fault::MessagesCrossDatabases | Fault::RefusedValuesLeave => &[Claim::GoodValuesStay],
            Fault::NotFoundIsNotShared => &[Claim::NoReadWaitsInLine],
            Fault::OneFailureCoolsAll => &[Claim::HealthyProcessesRead],
            Fault::LostDataGoesUnnoticed => &[Claim::LostValuesAreStored],
            Fault::LeasesForAll => &[Claim::OneLoaderInTheFleet],
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Fault::ALL.into_iter().find(|fault| fault.name() == name)
    }
}
