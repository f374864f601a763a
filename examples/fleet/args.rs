//! The command line.

use std::time::Duration;

pub const HELP: &str = "\
Runs a fleet of processes on one Redis, and says PASS or FAIL for each figure.

Usage: cargo run --release --features redis --example fleet [-- OPTIONS]

Options:
  --processes N   how many processes, 2 to 64 [default: 8; 3 with --soak]
  --epochs N      how often the one key goes stale, 1 to 100000 [default: 50]
  --redis URL     a server to use [default: one is started, which needs redis-server in the path]
  --soak SECONDS  instead: kills, stops, empties and restarts processes and server at random for so long,
                  and checks what may be claimed all the same
  --json          print one JSON object instead of tables
  --help          print this

Exit status: 0 if every row passes, 1 if one fails, 2 for a wrong argument.
";

#[derive(Debug, Default)]
pub struct Args {
    pub processes: Option<usize>,
    pub epochs: Option<usize>,
    pub redis: Option<String>,
    pub soak: Option<Duration>,
    pub json: bool,
    pub help: bool,
}

/// Reads the arguments after the program's name.
pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut parsed = Args::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--processes" => parsed.processes = Some(number(&word, &value()?, 2, 64)?),
            "--epochs" => parsed.epochs = Some(number(&word, &value()?, 1, 100_000)?),
            "--redis" => parsed.redis = Some(value()?),
            "--soak" => {
                let seconds = number(&word, &value()?, 1, 1_000_000)?;
                parsed.soak = Some(Duration::from_secs(seconds as u64));
            }
            "--json" => parsed.json = true,
            "--help" | "-h" => parsed.help = true,
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    match (&parsed.soak, &parsed.redis) {
        (Some(_), Some(_)) => {
            Err("--soak kills its server: it takes none, and starts its own".to_owned())
        }
        _ => Ok(parsed),
    }
}

fn number(name: &str, value: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = value.parse().ok();
    let number = number.filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{name} must be {least} to {most}, not {value}"))
}
