//! The command line.
use std::ffi::OsString;
use std::path::PathBuf;

use dev_support::args::Words;

pub const HELP: &str = "\
Measures the promises of everfresh on this machine, and prints PASS or FAIL for each figure.

Usage: cargo run --release -p certify [-- OPTIONS]

Options:
  --runs N      the number of runs of each crowd on a stale entry, 1 to 1000. Counts must be
                right in every run; times are taken over all runs.
                Default: 50, or fewer if 50 runs take longer than 12 s.
  --trace FILE  also replays real accesses: zstd-compressed little-endian u32 keys
  --redis URL   also measures the crowds on a cache with this Redis behind it
  --json        prints one JSON object instead of tables
  --report FILE also writes the tables, with pictures of the same runs, as one HTML page
  --help        prints this help

Exit status: 0 if every row passes, 1 if one fails, 2 for a wrong argument, an unreadable trace
or a report that cannot be written.
";

#[derive(Debug)]
pub struct Args {
    /// `None`: the default number of runs, within a limit of time.
    pub runs: Option<usize>,
    pub trace: Option<PathBuf>,
    pub redis: Option<String>,
    pub json: bool,
    pub report: Option<PathBuf>,
    pub help: bool,
}

/// Reads the arguments after the program's name.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Args, String> {
    let mut parsed = Args {
        runs: None,
        trace: None,
        redis: None,
        json: false,
        report: None,
        help: false,
    };
    let mut words = Words::new(args);
    while let Some(word) = words.next_word() {
        match word.as_str() {
            "--runs" => parsed.runs = Some(words.number(1..=1_000, "1 to 1000")?),
            "--trace" => parsed.trace = Some(words.value()?.into()),
            "--redis" => parsed.redis = Some(words.text()?),
            "--json" => parsed.json = true,
            "--report" => parsed.report = Some(words.value()?.into()),
            "--help" | "-h" => parsed.help = true,
            _ => return words.unknown(),
        }
    }
    Ok(parsed)
}
