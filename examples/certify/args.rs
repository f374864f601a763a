//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

pub const HELP: &str = "\
Measures what everfresh promises, on this machine, and says PASS or FAIL for each figure.

Usage: cargo run --release --example certify [-- OPTIONS]

Options:
  --runs N      how often each crowd meets a stale entry, 1 to 1000; counts must be right in
                every run, times are those of all runs
                [default: 50, fewer where those take longer than 12 s]
  --trace FILE  also replay real accesses: zstd-compressed little-endian u32 keys
  --redis URL   also lets the crowds loose on a cache with this Redis behind it
  --json        print one JSON object instead of tables
  --report FILE also writes the tables, with pictures of the same runs, as one HTML page
  --help        print this

Exit status: 0 if every row passes, 1 if one fails, 2 for a wrong argument, an payload_error trace
or a report that cannot be written.
";

#[derive(Debug)]
pub struct Args {
    /// `None`: as many as are usual and do not take too long.
    pub runs: Option<usize>,
    pub trace: Option<PathBuf>,
    pub redis: Option<String>,
    pub json: bool,
    pub report: Option<PathBuf>,
    pub help: bool,
}

/// Reads the arguments after the program's name.
pub fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Args, String> {
    let mut parsed = Args {
        runs: None,
        trace: None,
        redis: None,
        json: false,
        report: None,
        help: false,
    };
    while let Some(arg) = args.next() {
        let mut value = || {
            let missing = || format!("{} needs a value", arg.to_string_lossy());
            args.next().ok_or_else(missing)
        };
        match arg.to_str() {
            Some("--runs") => parsed.runs = Some(runs(&value()?)?),
            Some("--trace") => parsed.trace = Some(value()?.into()),
            Some("--redis") => parsed.redis = Some(url(&value()?)?),
            Some("--json") => parsed.json = true,
            Some("--report") => parsed.report = Some(value()?.into()),
            Some("--help" | "-h") => parsed.help = true,
            _ => return Err(format!("unknown argument {}", arg.to_string_lossy())),
        }
    }
    Ok(parsed)
}

fn runs(value: &OsString) -> Result<usize, String> {
    let number = value.to_str().and_then(|text| text.parse().ok());
    match number {
        Some(runs @ 1..=1_000) => Ok(runs),
        _ => Err(format!(
            "--runs must be 1 to 1000, not {}",
            value.to_string_lossy()
        )),
    }
}

fn url(value: &OsString) -> Result<String, String> {
    let text = value.to_str().map(str::to_owned);
    text.ok_or_else(|| "--redis needs a URL".to_owned())
}
