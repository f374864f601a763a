//! The command line.
use std::ffi::OsString;
use std::time::Duration;

use dev_support::args::Words;

pub const HELP: &str = "\
Runs a fleet of processes on one Redis, and prints PASS or FAIL for each figure.

Usage: cargo run --release -p fleet [-- OPTIONS]

Options:
  --processes N   the number of processes, 2 to 64. Default: 8; with --soak 3.
  --epochs N      how often the one key goes stale, 1 to 100000. Default: 50.
  --redis URL     the server. Default: starts one, which needs redis-server in the path.
  --soak SECONDS  instead: kills, stops and restarts processes and server at random for this time,
                  also empties the server, and checks the claims that must hold in spite of that
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
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Args, String> {
    let mut parsed = Args::default();
    let mut words = Words::new(args);
    while let Some(word) = words.next_word() {
        match word.as_str() {
            "--processes" => parsed.processes = Some(words.number(2..=64, "2 to 64")?),
            "--epochs" => parsed.epochs = Some(words.number(1..=100_000, "1 to 100000")?),
            "--redis" => parsed.redis = Some(words.text()?),
            "--soak" => {
                let seconds = words.number(1..=1_000_000, "1 to 1000000")?;
                parsed.soak = Some(Duration::from_secs(seconds));
            }
            "--json" => parsed.json = true,
            "--help" | "-h" => parsed.help = true,
            _ => return words.unknown(),
        }
    }
    match (&parsed.soak, &parsed.redis) {
        (Some(_), Some(_)) => Err(
            "--soak kills its server, so it starts its own and does not take --redis".to_owned(),
        ),
        _ => Ok(parsed),
    }
}
