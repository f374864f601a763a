//! The reference application: a prediction service on everfresh, with metrics, a health check, and
//! a page that shows the cache at work.
//!
//! `cargo run --release -p predictions`, then open the address it prints. `--help` lists the
//! options.

mod args;
mod demo;
mod events;
mod prediction;
mod proxy;
mod refusal;
mod server;
mod service;
mod tally;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use everfresh::store::RedisStore;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::args::Args;
use crate::prediction::Loader;
use crate::proxy::Cable;
use crate::service::Service;
use crate::tally::Tally;

const WRONG_USE: u8 = 2;

/// Bucket bounds, in seconds, for the times of store operations and loads.
const SECONDS: [f64; 10] = [0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(wrong) => {
            eprintln!("predictions: {wrong}; --help lists the options");
            return ExitCode::from(WRONG_USE);
        }
    };
    if args.help {
        say(args::HELP);
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let served = tokio::runtime::Runtime::new()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(&args)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("predictions: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(("127.0.0.1", args.port)).await?;
    let address = listener.local_addr()?;

    let store = match &args.redis {
        Some(url) => Some(connect(url).await?),
        None => None,
    };
    // The cable must live on too, because leases are released through it at the end.
    let kept = store.clone();
    let tally = Arc::new(Tally::new());
    let loader = Arc::new(Loader::new(args.simulations, tally.clone()));
    let (stop, stopping) = watch::channel(false);
    let service = Arc::new(Service {
        cache: prediction::cache(
            args,
            loader.clone(),
            kept.as_ref().map(|(store, _)| store.clone()),
        )?,
        loader,
        tally,
        store,
        fresh: args.fresh,
        stale: args.stale,
        metrics: PrometheusBuilder::new()
            .set_buckets(&SECONDS)?
            .install_recorder()?,
        stopping,
        demo: Default::default(),
    });

    let stopped = async {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        tracing::info!("finishing the requests under way");
        stop.send_replace(true);
    };
    let cache = service.cache.clone();
    say(&format!("listening on http://{address}/\n"));
    server::serve(listener, service::routes(service), stopped).await;
    // Computations under way publish their results, and no lease stays behind.
    match cache.close().await {
        Ok(()) => tracing::info!("nothing is left"),
        Err(error) => tracing::warn!("{error}"),
    }
    drop(kept);
    Ok(())
}

/// Connects to Redis through a cable that the page can cut. The server may start later.
async fn connect(url: &str) -> Result<(Arc<RedisStore>, Arc<Cable>), Failure> {
    let (cable, through) = Cable::lay(url).await?;
    let store = match RedisStore::builder(through.as_str()).connect().await {
        Ok(store) => store,
        Err(error) => {
            tracing::warn!("going on without the store for now: {error}");
            RedisStore::builder(through).start()?
        }
    };
    Ok((Arc::new(store), cable))
}

/// Ignores errors, because nothing depends on a reader of standard output.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
