//! Why a load runs.

/// How urgent a load is, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadReason {
    /// A caller waits for it.
    Cold,
    /// Callers get a stale value meanwhile.
    Stale,
    /// The value is still fresh.
    Early,
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl LoadReason {
    /// The reason as a word, for labels and fields.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LoadReason::Cold => "cold",
            LoadReason::Stale => "stale",
            LoadReason::Early => "early",
        }
    }
}
