//! The command line.
use std::ffi::OsString;
use std::path::PathBuf;

use dev_support::args::Words;

pub const BENCHES: [&str; 18] = [
    "hit",
    "hot",
    "stale",
    "async",
    "terms",
    "groups",
    "stampede",
    "herd",
    "duplicates",
    "ratio",
    "memory",
    "tail",
    "insert",
    "mixed",
    "threads",
    "miss",
    "payloads",
    "store",
];

pub const USAGE: &str = "\
usage: everfresh-benches [BENCH...] [OPTION...]

BENCH         hit, hot, stale, async, terms, groups, stampede, herd, duplicates, ratio, memory,
              tail, insert, mixed, threads, miss, payloads, store, or all. Default: all. store needs
              redis-server and redis-benchmark in the path, and a part of groups redis-server
--quick       shorter runs: all benches in some minutes, with more noise
--threads LIST
              how many threads hit, insert and mixed use (default: 1, 2, 4 and so on up to all
              cores; insert: 1, 2 and all cores), and after how many threads `threads` measures
              (default: 1,16,256,4096)
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
    /// The numbers of threads, if the arguments choose them.
    pub threads: Option<Vec<usize>>,
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
            threads: None,
            json: false,
            traces: Vec::new(),
            plot: None,
        };
        let mut words = Words::new(args);
        while let Some(word) = words.next_word() {
            match word.as_str() {
                "--quick" => parsed.quick = true,
                "--threads" => parsed.threads = Some(numbers(&words.text()?)?),
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

/// The numbers of `--threads`.
fn numbers(list: &str) -> Result<Vec<usize>, String> {
    let number = |word: &str| match word.trim().parse() {
        Ok(number @ 1..=10_000) => Ok(number),
        _ => Err(format!(
            "--threads must be numbers from 1 to 10000, not {word}"
        )),
    };
    let mut numbers: Vec<usize> = list.split(',').map(number).collect::<Result<_, _>>()?;
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_threads_is_sorted_and_checked() {
        assert_eq!(numbers("16,1, 2,1"), Ok(vec![1, 2, 16]));
        assert!(numbers("1,0").is_err());
        assert!(numbers("").is_err());
    }
}
