//! The command line.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use crate::forecast::FULL;

pub const HELP: &str = "\
Serves match predictions from an everfresh cache, and a page to watch it: http://127.0.0.1:8080/

Usage: cargo run --release -p predictions [-- OPTIONS]

Options:
  --port N         where to listen on 127.0.0.1; 0 takes a free one [default: 8080]
  --redis URL      a second level: redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]
  --fresh MS       how long a prediction is fresh [default: 5000]
  --stale MS       how long after that it is still served while it is refreshed [default: 115000]
  --simulations N  simulated matches of one prediction [default: 1700000, about 200 ms of a core]
  --beta B         how eagerly hot predictions are refreshed before they go stale; 0 is not at all [default: 1]
  --help           print this

It prints the address on standard output, logs to standard error, and ends on SIGTERM or ctrl-c: requests under way are
finished and leases given back.
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
pub fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Args, String> {
    let mut parsed = Args {
        port: 8080,
        redis: None,
        fresh: Duration::from_millis(5_000),
        stale: Duration::from_millis(115_000),
        simulations: FULL,
        beta: 1.0,
        help: false,
    };
    while let Some(arg) = args.next() {
        let name = arg.to_string_lossy().into_owned();
        let mut value = || match args.next().map(OsString::into_string) {
            Some(Ok(value)) => Ok(value),
            _ => Err(format!("{name} needs a value")),
        };
        match name.as_str() {
            "--port" => parsed.port = number(&name, &value()?)?,
            "--redis" => parsed.redis = Some(value()?),
            "--fresh" => parsed.fresh = Duration::from_millis(number(&name, &value()?)?),
            "--stale" => parsed.stale = Duration::from_millis(number(&name, &value()?)?),
            "--simulations" => parsed.simulations = number(&name, &value()?)?,
            "--beta" => parsed.beta = number(&name, &value()?)?,
            "--help" | "-h" => parsed.help = true,
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    if parsed.simulations == 0 {
        return Err("--simulations must be 1 or more".to_owned());
    }
    Ok(parsed)
}

fn number<N: FromStr>(name: &str, value: &str) -> Result<N, String> {
    let wrong = |_| format!("{name} cannot be {value}");
    value.parse().map_err(wrong)
}
