//! Reads through the store: keys that are missing in the process and present in Redis. They are
//! compared with a bare connection of the same client, which gets the same bytes, and with
//! redis-benchmark, which gets as many keys with values of the same length. Also the cost of a
//! resident hit with a store.
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dev_support::redis::Server;
use everfresh::SecondLevel;
use everfresh::store::{Codec, Namespace, Postcard, RedisStore, Store, StoreError, StoreKey};
use everfresh::{Cache, Source};
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;

use crate::contender::{Config, Reads, Subject, typed};
use crate::ours::{self, Get};
use crate::pairing;
use crate::report::{Figure, Report};
use crate::runtime;

const NAMESPACE: &str = "bench:v1";
const HOUR: Duration = Duration::from_secs(3_600);
const VALUE: usize = 100;

/// Keys of one `get_many`, and commands that redis-benchmark sends at once.
const MANY: usize = 64;
const PIPELINED: usize = 16;

/// A name as long as that of a key in the store; redis-benchmark puts a number there.
const NUMBERED: &str = "bench:v1:d:{00000000000000000000__rand_int__}";

type Values = Cache<u64, String>;

pub fn run(report: &mut Report, quick: bool) -> Result<(), String> {
    let server = Server::start()?;
    let port = server.port;
    let (rounds, keys) = match quick {
        true => (3, 1 << 14),
        false => (9, 1 << 16),
    };
    report.note(
        "the server and redis-benchmark run on this machine and share its cores with everfresh",
    );
    let runtime = runtime::multi(pairing::cores());
    let bench = Bench::new(&server, runtime, keys)?;
    for tasks in [1, 64, 256] {
        let keys = match tasks {
            1 => keys / 8,
            _ => keys,
        };
        let benchmark = bench.rate(port, tasks, 1, keys)?;
        let medians = pairing::paired(2, rounds, |at| match at {
            0 => [bench.bare(tasks, keys)],
            _ => [bench.through(tasks, keys)],
        });
        let ([bare], [through]) = (medians[0], medians[1]);
        let row = |contender: &str, rate: f64| {
            Figure::new("store")
                .text("contender", contender)
                .text("read", "missing here")
                .count("tasks", tasks as u64)
                .number("per_s", rate)
                .number("to_bare", rate / bare)
        };
        let figure = row(ours::NAME, through);
        let target = match tasks {
            1 => 0.85,
            _ => 1.2,
        };
        report.add(figure.at_least("", through / bare, target));
        report.add(row("redis-rs", bare));
        report.add(row("redis-benchmark", benchmark));
    }
    let benchmark = bench.rate(port, 50, PIPELINED, 4 * keys)?;
    let medians = pairing::paired(2, rounds, |at| match at {
        0 => [bench.bare_many(4, keys)],
        _ => [bench.many(4, keys)],
    });
    let ([bare], [many]) = (medians[0], medians[1]);
    let row = |contender: &str, rate: f64| {
        Figure::new("store")
            .text("contender", contender)
            .text("read", format!("{MANY} at once"))
            .count("tasks", 4)
            .number("per_s", rate)
            .number("to_bare", rate / bare)
            .number("to_benchmark", rate / benchmark)
    };
    report.add(row(ours::NAME, many).at_least("", many / bare, 0.7));
    report.add(row("redis-rs MGET", bare));
    report.add(row(&format!("redis-benchmark -P {PIPELINED}"), benchmark));
    drop(bench);
    hits(report, quick, server)
}

/// The cost of hits: without a store, with one, and with one whose server is gone.
fn hits(report: &mut Report, quick: bool, up: Server) -> Result<(), String> {
    const KEYS: u64 = 1_000;
    let (rounds, window) = match quick {
        true => (9, Duration::from_millis(20)),
        false => (21, Duration::from_millis(100)),
    };
    let mut gone = Server::start()?;
    let config = Config::lasting(KEYS as usize * 2);
    let with = |server: &Server| -> Result<_, String> {
        let (store, level) = connect(&server.url())?;
        let cache: Cache<u64, u64> = Cache::builder()
            .capacity(config.capacity)
            .fresh_for(config.ttl)
            .stale_for(config.ttl)
            .store(level)
            .compute(|n: &u64| *n)
            .build()
            .map_err(|error| error.to_string())?;
        Ok((store, cache))
    };
    let alone = ours::build::<u64>(&config);
    let (_kept, attached) = with(&up)?;
    let (lost, down) = with(&gone)?;
    let lanes: Vec<(&str, Box<dyn Subject>)> = vec![
        ("without a store", typed(Get(alone))),
        ("with one", typed(Get(attached))),
        ("with one that is down", typed(Get(down))),
    ];
    for (_, lane) in &lanes {
        lane.fill(KEYS);
    }
    gone.kill();
    let since = Instant::now();
    while lost.state().is_up() && since.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let sequences = pairing::sequences(KEYS, 1, 1 << 17);
    let medians = pairing::paired(lanes.len(), rounds, |at| {
        let lane: &dyn Reads = &*lanes[at].1;
        let timed = pairing::read(lane, &sequences, window);
        [timed.ns, timed.misses as f64]
    });
    let alone = medians[0][0];
    for ((name, _), [ns, misses]) in lanes.iter().zip(&medians) {
        if *misses > 0.0 {
            report.note(&format!("{misses} misses {name}"));
        }
        let figure = Figure::new("store")
            .text("hit", *name)
            .count("keys", KEYS)
            .number("ns", *ns)
            .number("ratio", ns / alone);
        report.add(match *name {
            "without a store" => figure,
            _ => figure.at_most("", ns / alone, 1.05),
        });
    }
    Ok(())
}

pub fn connect<V>(url: &str) -> Result<(Arc<RedisStore>, SecondLevel<u64, V>), String>
where
    V: serde::Serialize + serde::de::DeserializeOwned + 'static,
{
    let text = |error: StoreError| error.to_string();
    let store = RedisStore::builder(url).connect_blocking().map_err(text)?;
    let store = Arc::new(store);
    let level = SecondLevel::new(store.clone(), NAMESPACE).map_err(|error| error.to_string())?;
    Ok((store, level))
}

struct Bench {
    runtime: Runtime,
    store: Arc<RedisStore>,
    bare: MultiplexedConnection,
    namespace: Namespace,
    keys: usize,
}

impl Bench {
    /// Stores every key.
    fn new(server: &Server, runtime: Runtime, keys: usize) -> Result<Bench, String> {
        let text = |error: redis::RedisError| error.to_string();
        let client = redis::Client::open(server.url()).map_err(text)?;
        let bare = runtime.block_on(client.get_multiplexed_async_connection());
        let (store, _) = {
            // Connected within the runtime, like the bare connection.
            let _entered = runtime.enter();
            connect::<String>(&server.url())?
        };
        let bench = Bench {
            runtime,
            store,
            bare: bare.map_err(text)?,
            namespace: Namespace::new(NAMESPACE).map_err(|error| error.to_string())?,
            keys,
        };
        let cache = bench.cache();
        for n in 0..keys as u64 {
            cache.insert(n, "v".repeat(VALUE));
        }
        let since = Instant::now();
        while cache.store_stats().is_some_and(|stats| stats.pending > 0) {
            if since.elapsed() > Duration::from_secs(60) {
                return Err("the keys cannot be stored".to_owned());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bench.copy(&client).map_err(text)?;
        Ok(bench)
    }

    /// Stores as many values of the same length for redis-benchmark, which reads keys with a
    /// decimal number in their names.
    fn copy(&self, client: &redis::Client) -> redis::RedisResult<()> {
        // Over a separate connection, so that the measured connection has sent nothing before.
        let mut connection = client.get_connection()?;
        let mut get = redis::cmd("GET");
        get.arg(self.name(0));
        let payload: Vec<u8> = get.query(&mut connection)?;
        let mut sets = redis::pipe();
        for n in 0..self.keys {
            let name = NUMBERED.replace("__rand_int__", &format!("{n:012}"));
            sets.set(name, &payload).ignore();
        }
        sets.query(&mut connection)
    }

    /// A cache that has no value yet. No set of its table is ever full, because a value that leaves
    /// before it is stored is not stored.
    fn cache(&self) -> Values {
        let level = SecondLevel::new(self.store.clone(), NAMESPACE);
        Cache::builder()
            .capacity(self.keys * 2)
            .fresh_for(HOUR)
            .stale_for(HOUR)
            .store(level.expect("the namespace is valid"))
            .compute(|n: &u64| format!("not stored: {n}"))
            .build()
            .expect("the settings are valid")
    }

    /// The name of a key in the store.
    fn name(&self, n: u64) -> String {
        let mut encoded = Vec::new();
        Postcard
            .encode(&n, &mut encoded)
            .expect("a number can be encoded");
        let hash = StoreKey::new(&self.namespace, &encoded).hash();
        format!("{}:d:{{{hash:032x}}}", self.namespace.as_str())
    }

    fn names(&self, keys: usize) -> Arc<Vec<String>> {
        Arc::new((0..keys as u64).map(|n| self.name(n)).collect())
    }

    /// Runs tasks that each read a part of the keys. Returns reads per second.
    fn each<F>(&self, tasks: usize, keys: usize, read: impl Fn(u64, u64) -> F) -> f64
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let part = (keys / tasks) as u64;
        let since = Instant::now();
        self.runtime.block_on(async {
            let running = (0..tasks as u64).map(|task| read(task * part, (task + 1) * part));
            let running: Vec<_> = running.map(tokio::spawn).collect();
            for task in running {
                task.await.expect("no read panics");
            }
        });
        (part * tasks as u64) as f64 / since.elapsed().as_secs_f64()
    }

    fn bare(&self, tasks: usize, keys: usize) -> f64 {
        let names = self.names(keys);
        self.each(tasks, keys, |from, to| {
            let (names, mut bare) = (names.clone(), self.bare.clone());
            async move {
                for n in from..to {
                    let mut get = redis::cmd("GET");
                    get.arg(&names[n as usize]);
                    let bytes: Vec<u8> = get.query_async(&mut bare).await.expect("it is stored");
                    assert!(bytes.len() > VALUE);
                }
            }
        })
    }

    fn bare_many(&self, tasks: usize, keys: usize) -> f64 {
        let names = self.names(keys);
        self.each(tasks, keys, |from, to| {
            let (names, mut bare) = (names.clone(), self.bare.clone());
            async move {
                for names in names[from as usize..to as usize].chunks(MANY) {
                    let mut get = redis::cmd("MGET");
                    get.arg(names);
                    let values: Vec<Vec<u8>> =
                        get.query_async(&mut bare).await.expect("they are stored");
                    assert!(values.iter().all(|bytes| bytes.len() > VALUE));
                }
            }
        })
    }

    fn through(&self, tasks: usize, keys: usize) -> f64 {
        let cache = self.cache();
        self.each(tasks, keys, |from, to| {
            let cache = cache.clone();
            async move {
                for n in from..to {
                    let value = cache.get(&n).await.expect("it is stored");
                    assert!(value.len() == VALUE && value.source() == Source::Store);
                }
            }
        })
    }

    fn many(&self, tasks: usize, keys: usize) -> f64 {
        let cache = self.cache();
        self.each(tasks, keys, |from, to| {
            let cache = cache.clone();
            async move {
                let keys: Vec<u64> = (from..to).collect();
                for keys in keys.chunks(MANY) {
                    for value in cache.get_many(keys).await {
                        assert!(value.expect("it is stored").len() == VALUE);
                    }
                }
            }
        })
    }

    /// The rate of redis-benchmark for GETs of random keys.
    fn rate(
        &self,
        port: u16,
        clients: usize,
        pipelined: usize,
        requests: usize,
    ) -> Result<f64, String> {
        let output = Command::new("redis-benchmark")
            .args(["-h", "127.0.0.1", "-p", &port.to_string()])
            .args(["-c", &clients.to_string(), "-P", &pipelined.to_string()])
            .args(["-n", &requests.to_string(), "-r", &self.keys.to_string()])
            .args(["--csv", "GET", NUMBERED])
            .output()
            .map_err(|error| format!("cannot run redis-benchmark: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // "GET name","159000.00",...
        let row = text.lines().find(|line| line.starts_with("\"GET"));
        let rate = row.and_then(|row| row.split("\",\"").nth(1)?.trim_matches('"').parse().ok());
        rate.ok_or_else(|| format!("redis-benchmark printed {text}"))
    }
}
