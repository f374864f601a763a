//! A fleet of real processes on one Redis: how often it loads, how fast an invalidation reaches all
//! processes, and the effect of killing a process while it loads. Prints PASS or FAIL for each
//! figure.
//!
//! `cargo run --release -p fleet` starts a server of its own; `--help` lists the options.

mod args;
mod figures;
mod fleet;
mod keys;
mod log;
mod process;
mod soak;
mod witness;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dev_support::redis::Server;
use dev_support::report::{Check, checks, grouped, micros, print, time, verdict};
use serde_json::json;

use crate::args::Args;
use crate::figures::{Killed, Reading};
use crate::fleet::{Fleet, Result};
use crate::soak::Soaked;

const WRONG_USE: u8 = 2;

/// How long the fleet waits for a process that died.
const LEASE: Duration = Duration::from_secs(1);
const LEASE_IN_SOAK: Duration = Duration::from_millis(500);

/// The time that a delay may exceed the lease: the other processes wake up, ask, and begin.
const A_LITTLE: Duration = Duration::from_millis(100);

const SEEN_BY_ALL: Duration = Duration::from_millis(20);
const RECOVERED: Duration = Duration::from_secs(10);

const INVALIDATIONS: usize = 200;
const KILLS: usize = 6;
const MIXED_KEYS: u64 = 50;
const MIXED_FOR: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let mut hidden = std::env::args().skip(1);
    if hidden.next().as_deref() == Some(process::HIDDEN) {
        return process::run(hidden);
    }
    let args = match args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(wrong) => {
            eprintln!("fleet: {wrong}; --help lists the options");
            return ExitCode::from(WRONG_USE);
        }
    };
    if args.help {
        print(args::HELP);
        return ExitCode::SUCCESS;
    }
    let passed = match args.soak {
        Some(time) => soak(&args, time),
        None => show(&args),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fleet: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints to people as it goes.
fn say(args: &Args, text: &str) {
    if !args.json {
        print(text);
        print("\n");
    }
}

fn show(args: &Args) -> Result<bool> {
    let began = Instant::now();
    let processes = args.processes.unwrap_or(8);
    let own = args.redis.is_none().then(Server::start).transpose()?;
    let url = own.as_ref().map(Server::url).or_else(|| args.redis.clone());
    let mut fleet = Fleet::start(&url.unwrap_or_default(), processes, LEASE)?;
    let pass = |rows: &[Check]| rows.iter().all(|row| row.pass);

    let one = figures::one_key(&mut fleet, args.epochs.unwrap_or(50))?;
    let rows = reading(&one);
    let title = format!("{processes} processes read one key that goes stale after 0.1 s");
    say(args, &about(&title, &one, &rows));

    let mixed = figures::mix(&mut fleet, MIXED_KEYS, MIXED_FOR)?;
    let mixed_rows = reading(&mixed);
    let title = format!(
        "The same with {MIXED_KEYS} keys, read by zipf's law, for {}",
        time(MIXED_FOR)
    );
    say(args, &about(&title, &mixed, &mixed_rows));

    let times = figures::invalidations(&mut fleet, INVALIDATIONS)?;
    let at = |part: f64| times[((times.len() as f64 * part).ceil() as usize).max(1) - 1];
    let told_rows = [Check::at_most(
        "99 of 100",
        at(0.99),
        SEEN_BY_ALL,
        "on one machine",
    )];
    say(
        args,
        &format!(
            "From invalidate_everywhere until the last process has stopped serving the value, \
             {} times: half of them {}, at most {}\n{}",
            grouped(times.len()),
            time(at(0.5)),
            time(at(1.0)),
            checks(&told_rows).text(),
        ),
    );

    let killed = figures::killed_loaders(&mut fleet, KILLS)?;
    let killed_rows = after_kills(&killed);
    say(
        args,
        &format!(
            "The process that loads is killed, {KILLS} times; the lease lasts {}\n{}",
            time(LEASE),
            checks(&killed_rows).text(),
        ),
    );

    let pass = pass(&rows) && pass(&mixed_rows) && pass(&told_rows) && pass(&killed_rows);
    let took = began.elapsed();
    say(
        args,
        &format!("{}, measured in {}", verdict(pass), time(took)),
    );
    if args.json {
        let ms = |duration: Duration| micros(duration) / 1e3;
        let reading = |reading: &Reading| {
            json!({
                "epochs": reading.loads.epochs,
                "loads": reading.loads.loads,
                "loads_per_epoch": reading.loads.per_epoch(),
                "duplicates": reading.loads.duplicates,
                "reads": reading.seen.reads,
                "stale_served": reading.seen.stale,
                "waited": reading.seen.waited,
                "failed": reading.seen.failed,
                "pass": reading.pass(),
            })
        };
        let mut figures = reading(&one);
        figures["processes"] = processes.into();
        figures["mix"] = reading(&mixed);
        figures["invalidate_p50_ms"] = ms(at(0.5)).into();
        figures["invalidate_p99_ms"] = ms(at(0.99)).into();
        figures["invalidate_max_ms"] = ms(at(1.0)).into();
        figures["lease_ms"] = ms(LEASE).into();
        figures["after_kill_max_ms"] = ms(killed.delay).into();
        figures["took_us"] = micros(took).into();
        figures["pass"] = pass.into();
        print(&format!("{figures}\n"));
    }
    Ok(pass)
}

fn reading(reading: &Reading) -> Vec<Check> {
    let Reading { loads, seen } = reading;
    vec![
        Check::exactly("loads", loads.loads, loads.epochs),
        Check::exactly("duplicates", loads.duplicates, 0),
        Check::exactly("loads without a lease", loads.unleased, 0),
        Check::exactly("reads that waited", seen.waited as usize, 0),
        Check::exactly("reads that failed", seen.failed as usize, 0),
    ]
}

fn about(title: &str, of: &Reading, rows: &[Check]) -> String {
    format!(
        "{title}: stale {} times, {:.3} loads each; {} reads, {} of them stale\n{}",
        grouped(of.loads.epochs),
        of.loads.per_epoch(),
        grouped(of.seen.reads as usize),
        grouped(of.seen.stale as usize),
        checks(rows).text(),
    )
}

fn after_kills(killed: &Killed) -> Vec<Check> {
    let limit = LEASE + A_LITTLE;
    vec![
        Check::at_most(
            "until another process loads",
            killed.delay,
            limit,
            "a little over one lease",
        ),
        Check::exactly(
            "reads that waited despite a stale value",
            killed.seen.waited as usize,
            0,
        ),
        Check::exactly("reads that failed", killed.seen.failed as usize, 0),
    ]
}

fn soak(args: &Args, duration: Duration) -> Result<bool> {
    let processes = args.processes.unwrap_or(3);
    let mut server = Server::start()?;
    let mut fleet = Fleet::start(&server.url(), processes, LEASE_IN_SOAK)?;
    let soaked = soak::soak(&mut fleet, &mut server, duration)?;
    let Soaked {
        seen,
        loads,
        broken,
        ..
    } = &soaked;
    let rows = [
        Check::exactly(
            "stored epochs with two successors",
            broken.successors.len(),
            0,
        ),
        Check::exactly(
            "loads that outlived an invalidation",
            broken.overwritten.len(),
            0,
        ),
        Check::exactly(
            "concurrent refreshes of one value",
            broken.refreshes.len(),
            0,
        ),
        Check::exactly("reads that failed", seen.failed as usize, 0),
        Check::at_most(
            "recovery after the last fault",
            soaked.recovered,
            RECOVERED,
            "by itself",
        ),
    ];
    let pass = rows.iter().all(|row| row.pass);
    say(
        args,
        &format!(
            "{processes} processes for {}, {} faults: {} processes killed and {} stopped for a \
             while; the server flushed {} times, restarted empty {} times, stopped {} times\n\
             {} loads, {} of them without a lease; {} results stored, \
             {} inserts and invalidations; {} reads, {} of them stale\n{}",
            time(duration),
            soaked.faults(),
            soaked.killed,
            soaked.stopped,
            soaked.flushed,
            soaked.server_killed,
            soaked.server_stopped,
            grouped(loads.loads),
            grouped(loads.unleased),
            grouped(soaked.published),
            grouped(soaked.writes),
            grouped(seen.reads as usize),
            grouped(seen.stale as usize),
            checks(&rows).text(),
        ),
    );
    let lists = [&broken.successors, &broken.overwritten, &broken.refreshes];
    for line in lists.into_iter().flatten().take(20) {
        eprintln!("fleet: {line}");
    }
    say(args, verdict(pass));
    if args.json {
        let figures = json!({
            "processes": processes,
            "faults": soaked.faults(),
            "loads": loads.loads,
            "unleased": loads.unleased,
            "published": soaked.published,
            "writes": soaked.writes,
            "reads": seen.reads,
            "stale_served": seen.stale,
            "failed": seen.failed,
            "two_successors": broken.successors.len(),
            "outlived": broken.overwritten.len(),
            "overlapping_refreshes": broken.refreshes.len(),
            "recovered_ms": micros(soaked.recovered) / 1e3,
            "pass": pass,
        });
        print(&format!("{figures}\n"));
    }
    Ok(pass)
}
