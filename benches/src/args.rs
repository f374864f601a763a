//! The command line.
use std::ffi::OsString;
use std::path::PathBuf;

use dev_support::args::Words;

pub const BENCHES: [&str; 13] = [
    "hit",
    "hot",
    "stale",
    "async",
    "stampede",
    "herd",
    "duplicates",
    "ratio",
    "memory",
    "tail",
    "insert",
    "miss",
    "store",
];

pub const USAGE: &str = "\
usage: everfresh-benches [BENCH...] [--quick] [--json] [--trace PATH]... [--plot DIR]

BENCH         hit, hot, stale, async, stampede, herd, duplicates, ratio, memory, tail, insert, miss,
              store, or all. Default: all. store needs redis-server and redis-benchmark in the path
--quick       shorter runs: all benches in about two minutes, with more noise
--json        prints one line of JSON for each figure
--trace PATH  a trace for `ratio`, or a folder of traces: keys as little-endian u32, compressed
              with zstd. Default: the folder named by EVERFRESH_TRACES.
--plot DIR    also writes charts as SVG, in the style of the report of `certify`";

pub struct Args {
    pub benches: Vec<&'static str>,
    /// Whether the arguments name `ratio`.
    pub ratio_named: bool,
    /// Whether the arguments name `store`.
    pub store_named: bool,
    pub quick: bool,
    pub json: bool,
    pub traces: Vec<PathBuf>,
    pub plot: Option<PathBuf>,
}

impl Args {
    /// Reads the arguments after the program's name.
    pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Args, String> {
        let mut parsed = Args {
            benches: Vec::new(),
            ratio_named: false,
            store_named: false,
            quick: false,
            json: false,
            traces: Vec::new(),
            plot: None,
        };
        let mut words = Words::new(args);
        while let Some(word) = words.next_word() {
            match word.as_str() {
                "--quick" => parsed.quick = true,
                "--json" => parsed.json = true,
                "--trace" => parsed.traces.push(words.value()?.into()),
                "--plot" => parsed.plot = Some(words.value()?.into()),
                "all" => parsed.benches.extend(BENCHES),
                name => match BENCHES.iter().find(|bench| **bench == name) {
                    Some(bench) => {
                        parsed.ratio_named |= name == "ratio";
                        parsed.store_named |= name == "store";
                        parsed.benches.push(bench);
                    }
                    None => return words.unknown(),
                },
            }
        }
        if parsed.benches.is_empty() {
            parsed.benches.extend(BENCHES);
        }
        if parsed.traces.is_empty() {
            let folder = std::env::var_os("EVERFRESH_TRACES");
            parsed.traces.extend(folder.map(PathBuf::from));
        }
        Ok(parsed)
    }
}
