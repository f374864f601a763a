//! Measures what the cache promises, on this machine, and says PASS or FAIL for each figure.
//!
//! `cargo run --release --example certify` needs no server and no argument; with `--redis URL` it
//! measures the cache on that Redis too. `--help` lists what it takes.

mod args;
mod crowd;
mod evolution;
mod forecast;
mod memory;
mod report;
mod stampede;
mod subject;
mod through;
mod trace;

use std::error::Error;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, exit};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::args::Args;
use crate::evolution::LOADS;
use crate::forecast::{FULL, LIGHT, MATCH, forecast};
use crate::report::{Progress, grouped, micros, print, time, verdict};
use crate::stampede::Callers;
use crate::through::Behind;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(wrong) => return complain(&format!("{wrong}; --help lists what there is")),
    };
    if args.help {
        print(args::HELP);
        return ExitCode::SUCCESS;
    }
    let trace = match args.trace.as_deref().map(open).transpose() {
        Ok(trace) => trace,
        Err(wrong) => return complain(&wrong),
    };
    let runtime = Runtime::new().unwrap_or_else(|error| give_up(&format!("a runtime: {error}")));
    let certified = certify(&args, trace.as_ref(), &runtime);
    match certified.unwrap_or_else(|error| give_up(&error.to_string())) {
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

/// The machine does not give what the measurement needs.
pub fn give_up(missing: &str) -> ! {
    eprintln!("certify: cannot go on without {missing}");
    exit(1)
}

/// Prints to people as it goes, or collects for JSON.
fn certify(
    args: &Args,
    trace: Option<&(PathBuf, Vec<u32>)>,
    runtime: &Runtime,
) -> Result<bool, Box<dyn Error + Send + Sync>> {
    let began = Instant::now();
    let progress = Progress::new();
    let say = |text: &str| {
        if !args.json {
            print(text);
            print("\n");
        }
    };
    let mut pass = true;

    // First, while nothing else runs whose memory would be counted too.
    let memory = memory::measure()?;
    let (intro, light) = introduce();
    say(&intro);

    let mut stale = Vec::new();
    let mut runs = usize::MAX;
    for callers in [Callers::Threads(100), Callers::Tasks(10_000, runtime)] {
        let row = stampede::stale(&callers, None, args.runs, &progress)?;
        say(&row.text());
        pass &= row.pass();
        runs = runs.min(row.runs);
        stale.push(row.json());
    }

    let mut through = Value::Null;
    if let Some(url) = &args.redis {
        let behind = Behind::new(url)?;
        let measured = through::measure(&behind, args.runs, runtime, &progress)?;
        say(&measured.text());
        pass &= measured.pass();
        through = measured.json();
    }

    let cold = stampede::cold(100)?;
    say(&cold.text());
    pass &= cold.pass();

    let generations = evolution::measure(&progress)?;
    say(&evolution::text(&generations, light));
    pass &= generations.iter().all(evolution::Row::pass);
    let [at_once, in_turn] = LOADS.each_ref().map(|load| {
        let rows = generations.iter().filter(|row| row.is_under(load));
        Value::from_iter(rows.map(evolution::Row::json))
    });

    say(&memory.text());
    pass &= memory.pass();

    let mut replayed = Vec::new();
    if let Some((path, keys)) = trace {
        replayed = trace::measure(keys, &progress)?;
        say(&trace::text(&replayed, keys, path));
        pass &= replayed.iter().all(trace::Row::pass);
    }

    let took = began.elapsed();
    say(&format!("{}, measured in {}", verdict(pass), time(took)));
    if args.json {
        let figures = json!({
            "stale": stale,
            "redis": through,
            "cold": cold.json(),
            "evolution": at_once,
            "evolution_in_turn": in_turn,
            "memory": memory.json(),
            "trace": Value::from_iter(replayed.iter().map(trace::Row::json)),
            "runs": runs,
            "took_us": micros(took),
            "pass": pass,
        });
        print(&format!("{figures}\n"));
    }
    Ok(pass)
}

/// The forecast and what it costs here, full and light.
fn introduce() -> (String, Duration) {
    let began = Instant::now();
    let forecast_full = forecast(&MATCH, FULL);
    let full = began.elapsed();
    let began = Instant::now();
    forecast(&MATCH, LIGHT);
    let light = began.elapsed();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let text = format!(
        "The value: {} v {} by {} simulated matches, {} of one core ({cores} here)\n  \
         {} {:.1} %, draw {:.1} %, {} {:.1} %; goals {:.2} to {:.2}, likeliest score {}-{}\n",
        MATCH.home,
        MATCH.away,
        grouped(FULL as usize),
        time(full),
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
    (text, light)
}
