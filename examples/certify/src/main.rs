//! Measures the promises of the cache on this machine, and prints PASS or FAIL for each figure.
//!
//! `cargo run --release -p certify` needs no server and no argument; with `--redis URL` it
//! measures the cache on that Redis too. `--help` lists the options.

mod args;
mod cold;
mod control;
mod crowd;
mod destination;
mod evolution;
mod findings;
mod latency;
mod memory;
mod page;
mod report;
mod spread;
mod stampede;
mod subject;
mod through;
mod timeline;
mod trace;
use std::error::Error;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, exit};
use std::time::{Duration, Instant};

use dev_support::allocator::Live;
use dev_support::forecast::{FULL, LIGHT, MATCH, forecast};
use dev_support::report::{Table, grouped, print, time};
use tokio::runtime::Runtime;

use crate::args::Args;
use crate::destination::Destination;
use crate::findings::{Findings, Replayed};
use crate::page::{Circumstances, page};
use crate::report::{Part, Progress};
use crate::stampede::Callers;

#[global_allocator]
static ALLOCATOR: Live = Live;

const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(wrong) => return complain(&format!("{wrong}; --help lists the options")),
    };
    if args.help {
        print(args::HELP);
        return ExitCode::SUCCESS;
    }
    let trace = match args.trace.as_deref().map(open).transpose() {
        Ok(trace) => trace,
        Err(wrong) => return complain(&wrong),
    };
    let report = match args.report.as_deref().map(Destination::at).transpose() {
        Ok(report) => report,
        Err(wrong) => return complain(&wrong.to_string()),
    };
    let certified = certify(&args, trace);
    let findings = certified.unwrap_or_else(|error| give_up(&error.to_string()));
    print(&match args.json {
        true => format!("{}\n", findings.json()),
        false => findings.conclusion(),
    });
    if let Some(report) = report
        && let Err(wrong) = report.write(&page(&findings, &Circumstances::here()))
    {
        eprintln!("certify: {wrong}; the results so far are printed above");
        return ExitCode::FAILURE;
    }
    match findings.pass() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn open(path: &Path) -> Result<(PathBuf, Vec<u32>), String> {
    match trace::read(path) {
        Ok(keys) => Ok((path.to_owned(), keys)),
        Err(why) => Err(format!("cannot read the trace {}: {why}", path.display())),
    }
}

fn complain(wrong: &str) -> ExitCode {
    eprintln!("certify: {wrong}");
    ExitCode::from(WRONG_USE)
}

/// Ends the program if the machine lacks something that the measurement needs.
pub fn give_up(missing: &str) -> ! {
    eprintln!("certify: cannot go on without {missing}");
    exit(1)
}

/// Runs all measurements, and prints each part as soon as it is measured.
fn certify(
    args: &Args,
    trace: Option<(PathBuf, Vec<u32>)>,
) -> Result<Findings, Box<dyn Error + Send + Sync>> {
    let began = Instant::now();
    let progress = Progress::new();
    let say = |part: &Part| {
        if !args.json {
            print(&format!("{}\n", part.text()));
        }
    };

    // First, because the memory of other threads would be counted too.
    let memory = memory::measure()?;
    let runtime = Runtime::new().unwrap_or_else(|error| give_up(&format!("a runtime: {error}")));
    let (intro, light) = introduce();
    say(&intro);

    let mut stale = Vec::new();
    for callers in [Callers::Threads(100), Callers::Tasks(10_000, &runtime)] {
        let row = stampede::stale(&callers, None, args.runs, &progress)?;
        say(&row.part());
        stale.push(row);
    }

    let mut through = None;
    if let Some(url) = &args.redis {
        let measured = through::measure(url, args.runs, &runtime, &progress)?;
        measured.parts().iter().for_each(say);
        through = Some(measured);
    }

    let cold = cold::measure(100, &progress)?;
    say(&cold.part());

    let generations = evolution::measure(&progress)?;
    say(&evolution::part(&generations, light));

    say(&memory.part());

    let mut replayed = None;
    if let Some((path, keys)) = trace {
        let rows = trace::measure(&keys, &progress)?;
        let measured = Replayed { path, keys, rows };
        say(&measured.part());
        replayed = Some(measured);
    }

    Ok(Findings {
        intro,
        light,
        stale,
        through,
        cold,
        generations,
        memory,
        replayed,
        took: began.elapsed(),
    })
}

/// How the tables reach their verdicts, one sentence per line.
const JUDGED: [&str; 4] = [
    "Every count must be right in every run. p50 and p99 are of all callers of all runs.",
    "\"Slowest\" is the slowest caller of a run; the table shows the median over the runs.",
    "Control: in turn with each run, the same crowd reads a plain shared value, without a cache.",
    "The targets find waiting callers, even on a busy machine, but do not judge the speed of hits.",
];

/// The forecast and its cost on this machine, full and light.
fn introduce() -> (Part, Duration) {
    let began = Instant::now();
    let forecast_full = forecast(&MATCH, FULL);
    let full = began.elapsed();
    let began = Instant::now();
    forecast(&MATCH, LIGHT);
    let light = began.elapsed();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let title = format!(
        "The value: {} v {} by {} simulated matches, {} of one core ({cores} here)",
        MATCH.home,
        MATCH.away,
        grouped(FULL as usize),
        time(full),
    );
    let result = format!(
        "{} {:.1} %, draw {:.1} %, {} {:.1} %; goals {:.2} to {:.2}, likeliest score {}-{}",
        MATCH.home,
        100.0 * forecast_full.home,
        100.0 * forecast_full.draw,
        MATCH.away,
        100.0 * forecast_full.away,
        forecast_full.home_goals,
        forecast_full.away_goals,
        forecast_full.likeliest.0,
        forecast_full.likeliest.1,
    );
    let intro = Part {
        title,
        lead: String::new(),
        table: Table::default(),
        notes: std::iter::once(result)
            .chain(JUDGED.map(str::to_owned))
            .collect(),
        pass: None,
    };
    (intro, light)
}
