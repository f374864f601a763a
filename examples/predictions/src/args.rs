//! The command line.
use std::ffi::OsString;
use std::time::Duration;

use dev_support::args::Words;
use dev_support::forecast::FULL;

pub const HELP: &str = "\
Serves match predictions from an everfresh cache, and a page to watch it: http://127.0.0.1:8080/

Usage: cargo run --release -p predictions [-- OPTIONS]

Options:
  --port N         the port on 127.0.0.1; 0 takes a free one. Default: 8080.
  --redis URL      a second level: redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]
  --fresh MS       how long a prediction is fresh. Default: 5000.
  --stale MS       how long after that it is served stale while a refresh runs. Default: 115000.
  --simulations N  simulated matches of one prediction. Default: 1700000, about 200 ms of a core.
  --beta B         how eagerly hot predictions are refreshed before they go stale; 0 turns early
                   refreshes off. Default: 1.
  --help           print this

It prints the address on standard output and logs to standard error. On SIGTERM or ctrl-c it
finishes the requests under way, releases its leases, and ends.
";

#[derive(Debug)]
pub struct Args {
    pub port: u16,
    pub redis: Option<String>,
    pub fresh: Duration,
    pub stale: Duration,
    pub simulations: u32,
    pub beta: f64,
    pub help: bool,
}

/// Reads the arguments after the program's name.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Args, String> {
    let mut parsed = Args {
        port: 8080,
        redis: None,
        fresh: Duration::from_millis(5_000),
        stale: Duration::from_millis(115_000),
        simulations: FULL,
        beta: 1.0,
        help: false,
    };
    let mut words = Words::new(args);
    while let Some(word) = words.next_word() {
        match word.as_str() {
            "--port" => parsed.port = words.number(.., "a port")?,
            "--redis" => parsed.redis = Some(words.text()?),
            "--fresh" => parsed.fresh = millis(&mut words)?,
            "--stale" => parsed.stale = millis(&mut words)?,
            "--simulations" => parsed.simulations = words.number(1.., "1 or more")?,
            "--beta" => parsed.beta = words.number(.., "a number")?,
            "--help" | "-h" => parsed.help = true,
            _ => return words.unknown(),
        }
    }
    Ok(parsed)
}

fn millis(words: &mut Words<impl Iterator<Item = OsString>>) -> Result<Duration, String> {
    words
        .number(.., "a whole number of milliseconds")
        .map(Duration::from_millis)
}
