//! The command line.

use std::path::PathBuf;

pub const BENCHES: [&str; 11] = [
    "hit",
    "hot",
    "stale",
    "async",
    "stampede",
    "duplicates",
    "ratio",
    "memory",
    "tail",
    "insert",
    "store",
];

pub const USAGE: &str = "\
usage: everfresh-benches [BENCH...] [--quick] [--json] [--trace PATH]... [--plot DIR]

BENCH         hit, hot, stale, async, stampede, duplicates, ratio, memory, tail, insert, store, or all (if none is given);
              store needs redis-server and redis-benchmark in the path
--quick       all of it in about two minutes, with more noise
--json        one line of JSON for each figure
--trace PATH  a trace for `ratio`, or a folder of them: keys as little-endian u32, compressed by zstd;
              the folder named by EVERFRESH_TRACES if not given
--plot DIR    also writes charts as SVG, in the style of the report of `certify`";

pub struct Args {
    pub benches: Vec<&'static str>,
    /// Whether `ratio` was asked for by its name.
    pub ratio_named: bool,
    /// And `store` by its.
    pub store_named: bool,
    pub quick: bool,
    pub json: bool,
    pub traces: Vec<PathBuf>,
    pub plot: Option<PathBuf>,
}

impl Args {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
        let mut args = Args {
            benches: Vec::new(),
            ratio_named: false,
            store_named: false,
            quick: false,
            json: false,
            traces: Vec::new(),
            plot: None,
        };
        while let Some(word) = words.next() {
            let mut path = || {
                let path = words.next().map(PathBuf::from);
                path.ok_or_else(|| format!("{word} needs a path"))
            };
            match word.as_str() {
                "--quick" => args.quick = true,
                "--json" => args.json = true,
                "--trace" => args.traces.push(path()?),
                "--plot" => args.plot = Some(path()?),
                "all" => args.benches.extend(BENCHES),
                name => match BENCHES.iter().find(|bench| **bench == name) {
                    Some(bench) => {
                        args.ratio_named |= name == "ratio";
                        args.store_named |= name == "store";
                        args.benches.push(bench);
                    }
                    None => return Err(format!("there is no {name}")),
                },
            }
        }
        if args.benches.is_empty() {
            args.benches.extend(BENCHES);
        }
        if args.traces.is_empty() {
            args.traces
                .extend(std::env::var_os("EVERFRESH_TRACES").map(PathBuf::from));
        }
        Ok(args)
    }
}
