//! The command line of the simulation.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use dev_support::args::Words;
use simulation::faults::Fault;
use simulation::log::seconds;
use simulation::report::Report;
use simulation::run::run;

const HELP: &str = "\
Runs simulated fleets, one for each seed, and checks the claims of the second level.

Usage: cargo run --release -p simulation [-- OPTIONS]

Options:
  --seeds N     how many seeds, 1 to 1000000000. Default: 10000.
  --from SEED   the first seed. Default: 0.
  --seed SEED   only this one, with the history of the key whose claim fails, or of all keys
  --fault NAME  with this fault built in: late-writes-win, not-found-without-base,
                messages-cross-databases, not-found-is-not-shared, one-failure-cools-all,
                lost-data-goes-unnoticed, refused-values-leave, publish-without-base,
                leases-for-all
  --first       stop at the first seed at which a claim fails
  --help        print this

Exit status: 0 if all claims hold, 1 if one fails, 2 for a wrong argument.
";

#[derive(Default)]
struct Args {
    seeds: Option<u64>,
    from: u64,
    seed: Option<u64>,
    fault: Option<Fault>,
    first: bool,
    help: bool,
}

fn parse() -> Result<Args, String> {
    let mut parsed = Args::default();
    let mut words = Words::new(std::env::args_os().skip(1));
    while let Some(word) = words.next_word() {
        match word.as_str() {
            "--seeds" => {
                parsed.seeds = Some(words.number(1..=1_000_000_000, "1 to 1000000000")?);
            }
            "--from" => parsed.from = words.number(0.., "a number")?,
            "--seed" => parsed.seed = Some(words.number(0.., "a number")?),
            "--fault" => {
                let name = words.text()?;
                let fault = Fault::named(&name);
                parsed.fault = Some(fault.ok_or(format!("there is no fault {name}"))?);
            }
            "--first" => parsed.first = true,
            "--help" | "-h" => parsed.help = true,
            _ => return words.unknown(),
        }
    }
    Ok(parsed)
}

fn main() -> ExitCode {
    let args = match parse() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    if args.help {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let holds = match args.seed {
        Some(seed) => one(seed, args.fault),
        None => many(&args),
    };
    ExitCode::from(u8::from(!holds))
}

/// Runs one seed and prints its history.
fn one(seed: u64, fault: Option<Fault>) -> bool {
    let report = run(seed, fault);
    match &report.violation {
        Some(_) => explain(&report, fault),
        None => println!("{}every claim holds with seed {seed}", report.history(None)),
    }
    report.violation.is_none()
}

/// Runs many seeds on all cores.
fn many(args: &Args) -> bool {
    let started = Instant::now();
    let end = args.from + args.seeds.unwrap_or(10_000);
    let next = AtomicU64::new(args.from);
    let stops = AtomicBool::new(false);
    let failed: Mutex<Vec<Result<Report, u64>>> = Mutex::default();
    let work = || {
        while !stops.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let report = catch_unwind(AssertUnwindSafe(|| run(seed, args.fault)));
            let report = match report {
                Ok(report) if report.violation.is_none() => continue,
                Ok(report) => Ok(report),
                Err(_) => Err(seed),
            };
            if let Ok(mut failed) = failed.lock() {
                failed.push(report);
            }
            stops.fetch_or(args.first, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut failed = failed.into_inner().unwrap_or_default();
    let number =
        |report: &Result<Report, u64>| report.as_ref().map_or_else(|seed| *seed, |r| r.seed);
    failed.sort_by_key(number);
    match failed.first() {
        Some(Ok(report)) => explain(report, args.fault),
        Some(Err(seed)) => println!("seed {seed} panics{}", replay(*seed, args.fault)),
        None => {}
    }
    for report in failed.iter().skip(1) {
        match report {
            Ok(Report {
                seed,
                violation: Some(violation),
                ..
            }) => {
                println!("seed {seed}: {}", violation.claim.text());
            }
            _ => println!("seed {} panics", number(report)),
        }
    }
    let ran = next.load(Ordering::Relaxed).min(end) - args.from;
    let took = started.elapsed().as_secs_f64();
    println!("{ran} seeds in {took:.1} s, {} of them fail", failed.len());
    failed.is_empty()
}

/// Prints the claim that failed, the history of its key, and the command that replays it.
fn explain(report: &Report, fault: Option<Fault>) {
    let Some(violation) = &report.violation else {
        return;
    };
    let of = violation.key.map(|key| (violation.database, key));
    print!("{}", report.history(of));
    println!("seed {} fails at {}", report.seed, seconds(violation.at));
    if let Some((database, key)) = of {
        println!("key {key} of database {database}, whose history is above");
    }
    println!("{violation}{}", replay(report.seed, fault));
}

fn replay(seed: u64, fault: Option<Fault>) -> String {
    let fault = fault.map_or(String::new(), |fault| format!(" --fault {}", fault.name()));
    format!("\nreplay: cargo run --release -p simulation -- --seed {seed}{fault}")
}
