//! The table that `Display` prints of the statistics.

use std::fmt;

use crate::observe::stats::Stats;

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: f64| part * 100.0;
        writeln!(
            f,
            "reads      {} ({:.2} % hits, {:.2} % stale)",
            self.reads(),
            percent(self.hit_ratio()),
            percent(self.stale_ratio()),
        )?;
        writeln!(
            f,
            "hits       {} fresh, {} early, {} stale ({} started no refresh)",
            self.fresh, self.early, self.stale, self.claims_denied,
        )?;
        writeln!(
            f,
            "misses     {} ({} waited for another caller's load), {} negative answers",
            self.misses, self.coalesced, self.negative,
        )?;
        writeln!(
            f,
            "computes   {} ({} loads, {} stale, {} early), {:.4} for each read with a reason",
            self.computes(),
            self.loads,
            self.refreshes_stale,
            self.refreshes_early,
            self.computes_per_trigger(),
        )?;
        if self.batches > 0 {
            writeln!(
                f,
                "batches    {} calls of the loader for them",
                self.batches
            )?;
        }
        writeln!(
            f,
            "results    {} published, {} failed, {} overtaken, {} after another load, {} not kept",
            self.published,
            self.failed,
            self.discarded_overtaken,
            self.discarded_taken_over,
            self.not_kept,
        )?;
        writeln!(
            f,
            "time-outs  {} loads, {} late results kept, {} thrown away; {} loads dropped",
            self.timed_out, self.late_published, self.late_discarded, self.dropped,
        )?;
        writeln!(
            f,
            "not tried  {} early, {} stale, {} loads refused, {} by the breaker, {} never started",
            self.shed_early,
            self.shed_stale,
            self.rejected,
            self.breaker_rejected,
            self.never_started,
        )?;
        writeln!(
            f,
            "now        {} running, {} overdue, {} cold, {} stale and {} early wait, breaker {}",
            self.running,
            self.overdue,
            self.waiting_cold,
            self.waiting_stale,
            self.waiting_early,
            self.breaker,
        )?;
        writeln!(f, "replaced   {} workers", self.replaced_workers)?;
        writeln!(f, "load time  {}", self.load_time)?;
        write!(f, "stale age  {}", self.stale_age)
    }
}
