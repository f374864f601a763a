//! The certification: a crowd on one stale entry.
use std::sync::Arc;
use std::time::{Duration, Instant};

use dev_support::forecast::{FULL, Fixture, Forecast, MATCH};
use dev_support::report::{Check, grouped, micros, time};
use everfresh::BuildError;
use everfresh::SecondLevel;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::control::{Control, Shared};
use crate::crowd::{self, Answer, Seen};
use crate::report::{Part, Progress, joined, percent, worse};
use crate::spread::Times;
use crate::subject::{AGE, HARD, SOFT, Subject};

/// The kind of callers.
pub enum Callers<'a> {
    Threads(usize),
    Tasks(usize, &'a Runtime),
}

impl Callers<'_> {
    fn count(&self) -> usize {
        match self {
            Callers::Threads(count) | Callers::Tasks(count, _) => *count,
        }
    }

    fn name(&self) -> String {
        let kind = match self {
            Callers::Threads(_) => "threads",
            Callers::Tasks(..) => "tasks",
        };
        format!("{} {kind}", grouped(self.count()))
    }

    fn read(&self, subject: &Subject) -> Seen {
        match self {
            Callers::Threads(count) => crowd::threads(*count, Duration::ZERO, |_| {
                Answer::of(&subject.cache.get_blocking(&MATCH))
            }),
            Callers::Tasks(count, runtime) => {
                let cache = subject.cache.clone();
                let read = || async move { Answer::of(&cache.get(&MATCH).await) };
                crowd::tasks(runtime, *count, read)
            }
        }
    }

    fn read_plain(&self, shared: &Arc<Shared>) -> Seen {
        match self {
            Callers::Threads(count) => crowd::threads(*count, Duration::ZERO, |_| shared.read()),
            Callers::Tasks(count, runtime) => {
                let shared = shared.clone();
                crowd::tasks(runtime, *count, || async move { shared.read() })
            }
        }
    }
}

/// The worst of each count over several runs, and the times of all runs.
pub struct StampedeRow {
    pub name: String,
    callers: usize,
    pub runs: usize,
    /// The count that is farthest from the target.
    computes: usize,
    refreshes: usize,
    stale: usize,
    /// Fresh reads by callers that came after the end of the refresh, as happens on a busy machine.
    late: usize,
    /// Reads that were neither stale nor late.
    other: usize,
    waited: usize,
    served: usize,
    pub cache: Times,
    pub control: Times,
    /// The time from the first call to the last answer.
    total: Duration,
    /// The shortest compute, because it gives the strictest limits.
    pub compute: Duration,
}

/// The default number of runs, and the time after which no new run begins.
const RUNS: usize = 50;
const TIME: Duration = Duration::from_secs(12);

/// Releases the crowd on one stale entry, run after run.
pub fn stale(
    callers: &Callers,
    level: Option<SecondLevel<Fixture, Forecast>>,
    runs: Option<usize>,
    progress: &Progress,
) -> Result<StampedeRow, BuildError> {
    let (runs, time) = match runs {
        Some(runs) => (runs, Duration::MAX),
        None => (RUNS, TIME),
    };
    let began = Instant::now();
    let subject = Subject::on(FULL, level)?;
    subject.prepare();
    let control = Control::new();
    let mut row = StampedeRow::of(callers);
    while row.runs < runs && (row.runs == 0 || began.elapsed() < time) {
        progress.step(&format!("{} on a stale entry", row.name), row.runs, runs);
        let plain = callers.read_plain(&control.shared);
        control.settles();

        let refreshes = || subject.cache.stats().refreshes_stale as usize;
        let before = (subject.computes(), refreshes());
        let seen = callers.read(&subject);
        subject.settles(before.0 + 1);
        row.include(
            &seen,
            &plain,
            subject.computes() - before.0,
            refreshes() - before.1,
            subject
                .refreshes(before.0)
                .iter()
                .map(|ran| ran.ended)
                .min(),
        );
        subject.clock.advance(AGE);
    }
    progress.clear();
    row.compute = subject
        .compute_times()
        .into_iter()
        .min()
        .unwrap_or_default();
    Ok(row)
}

impl StampedeRow {
    /// The state before the first run.
    pub fn of(callers: &Callers) -> StampedeRow {
        let all = callers.count();
        StampedeRow {
            name: callers.name(),
            callers: all,
            runs: 0,
            computes: 1,
            refreshes: 1,
            stale: all,
            late: 0,
            other: 0,
            waited: 0,
            served: all,
            cache: Times::default(),
            control: Times::default(),
            total: Duration::ZERO,
            compute: Duration::MAX,
        }
    }

    /// Adds a run: the calls on the cache and those of the control, the calls of the loader, the
    /// refreshes that the cache counted, and when the first of them had its value.
    pub fn include(
        &mut self,
        seen: &Seen,
        plain: &Seen,
        computes: usize,
        refreshes: usize,
        refreshed: Option<Instant>,
    ) {
        let late = seen.calls.iter().filter(|call| {
            call.answer == Answer::Fresh && refreshed.is_some_and(|at| at <= call.ended)
        });
        let late = late.count();
        self.runs += 1;
        self.computes = worse(self.computes, computes);
        self.refreshes = worse(self.refreshes, refreshes);
        self.stale = self.stale.min(seen.stale);
        self.late = self.late.max(late);
        self.other = self.other.max(self.callers - seen.stale - late);
        self.waited = self.waited.max(seen.waited);
        self.served = self.served.min(seen.served);
        self.cache.include(&seen.took);
        self.control.include(&plain.took);
        self.total = self.total.max(seen.total);
    }

    pub fn title(&self) -> String {
        let age = AGE.as_secs();
        let (soft, hard) = (SOFT.as_secs(), HARD.as_secs());
        format!(
            "{} on one stale entry (soft limit {soft} s, hard limit {hard} s, age {age} s); {}",
            self.name,
            self.runs_text()
        )
    }

    fn runs_text(&self) -> String {
        match self.runs {
            1 => "1 run".to_owned(),
            runs => format!("{runs} runs"),
        }
    }

    fn checks(&self) -> Vec<Check> {
        let beside = |figure, of: &dyn Fn(&Times) -> Duration, more, reason| {
            Check::beside(figure, of(&self.cache), of(&self.control), more, reason)
        };
        vec![
            Check::exactly("computes", self.computes, 1),
            Check::exactly("background refreshes", self.refreshes, 1),
            Check {
                figure: "stale served",
                measured: grouped(self.stale),
                control: None,
                target: match self.late {
                    0 => grouped(self.callers),
                    late => format!(
                        "{}, minus up to {} that came after the refresh",
                        grouped(self.callers),
                        grouped(late)
                    ),
                },
                pass: self.other == 0,
            },
            Check::exactly("callers that waited", self.waited, 0),
            Check {
                figure: "success rate",
                measured: percent(self.served, self.callers),
                control: None,
                target: percent(self.callers, self.callers),
                pass: self.served == self.callers,
            },
            beside(
                "p50 per caller",
                &|times| times.quantile(0.5),
                self.compute / 100,
                "1 % of a compute",
            ),
            beside(
                "p99 per caller",
                &|times| times.quantile(0.99),
                self.compute / 10,
                "10 % of a compute",
            ),
            beside(
                "slowest, median run",
                &Times::slowest_of_middle,
                self.compute / 2,
                "half a compute",
            ),
        ]
    }

    pub fn pass(&self) -> bool {
        self.checks().iter().all(|check| check.pass)
    }

    pub fn part(&self) -> Part {
        let worst = format!(
            "for information, worst run: p99 {}, slowest {} (control {}, {}), all answered in {}",
            time(self.cache.worst(0.99)),
            time(self.cache.worst(1.0)),
            time(self.control.worst(0.99)),
            time(self.control.worst(1.0)),
            time(self.total),
        );
        Part {
            notes: vec![worst],
            ..Part::checked(self.title(), &self.checks())
        }
    }

    pub fn json(&self) -> Value {
        let times = |times: &Times| {
            json!({
                "p50_us": micros(times.quantile(0.5)),
                "p99_us": micros(times.quantile(0.99)),
                "slowest_middle_us": micros(times.slowest_of_middle()),
                "worst_run": {
                    "p50_us": micros(times.worst(0.5)),
                    "p99_us": micros(times.worst(0.99)),
                    "slowest_us": micros(times.worst(1.0)),
                },
            })
        };
        let row = json!({
            "callers": self.callers,
            "runs": self.runs,
            "computes": self.computes,
            "refreshes": self.refreshes,
            "stale": self.stale,
            "after_refresh": self.late,
            "waited": self.waited,
            "served": self.served,
            "control": times(&self.control),
            "compute_us": micros(self.compute),
            "total_us": micros(self.total),
            "pass": self.pass(),
        });
        joined(row, times(&self.cache))
    }
}
