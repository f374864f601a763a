//! Measures everfresh against its peers; `--help` prints how to run it.

mod args;
mod awaiting;
mod callers;
mod child;
mod contender;
mod duplicates;
mod groups;
mod herd;
mod hit;
mod hot;
mod insert;
mod memory;
mod miss;
mod mixed;
mod ours;
mod pairing;
mod payloads;
mod peers;
mod plot;
mod policies;
mod ratio;
mod report;
mod runtime;
mod stale;
mod stampede;
mod store;
mod tail;
mod terms;
mod threads;
mod traces;
use std::process::ExitCode;

use args::{Args, USAGE};
use dev_support::allocator::Live;
use report::Report;

#[global_allocator]
static ALLOCATOR: Live = Live;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let first = words.next();
    if let Some(measured) = first.and_then(|first| child::measure(&first, &mut words)) {
        return measured;
    }
    if std::env::args().any(|word| word == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let threads = args.threads.as_deref();
    let mut report = Report::new(args.json);
    let mut code = ExitCode::SUCCESS;
    for bench in &args.benches {
        report.title(bench);
        match *bench {
            "hit" => hit::run(&mut report, args.quick, threads),
            "hot" => hot::run(&mut report, args.quick),
            "memory" => memory::run(&mut report, args.quick),
            "tail" => tail::run(&mut report, args.quick),
            "insert" => insert::run(&mut report, args.quick, threads),
            "mixed" => mixed::run(&mut report, args.quick, threads),
            "threads" => threads::run(&mut report, args.quick, threads),
            "miss" => miss::run(&mut report, args.quick),
            "stale" => stale::run(&mut report, args.quick),
            "async" => awaiting::run(&mut report, args.quick),
            "terms" => terms::run(&mut report, args.quick),
            "groups" => groups::run(&mut report, args.quick),
            "stampede" => stampede::run(&mut report, args.quick),
            "herd" => herd::run(&mut report, args.quick),
            "duplicates" => duplicates::run(&mut report, args.quick),
            "ratio" => {
                let measured = ratio::run(&mut report, &args.traces);
                if !measured && args.ratio_named {
                    code = ExitCode::FAILURE;
                }
            }
            "payloads" => payloads::run(&mut report, args.quick),
            "store" => {
                if let Err(missing) = store::run(&mut report, args.quick) {
                    report.note(&format!("store skipped: {missing}"));
                    if args.store_named {
                        code = ExitCode::FAILURE;
                    }
                }
            }
            other => unreachable!("{other} is not among the benches"),
        }
    }
    let charts = report.finish();
    if let Some(folder) = &args.plot
        && let Err(error) = plot::write(&charts, folder)
    {
        eprintln!("cannot write charts to {}: {error}", folder.display());
        code = ExitCode::FAILURE;
    }
    code
}
