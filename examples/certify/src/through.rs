//! The same crowds on a cache with Redis behind it, and the content of Redis after them.
use std::sync::Arc;
use std::time::Duration;

use dev_support::forecast::{Fixture, Forecast, LIGHT, MATCH};
use dev_support::report::{Check, micros, time};
use everfresh::SecondLevel;
use everfresh::Source;
use everfresh::store::{Codec, Format, Namespace, Postcard, RedisStore, Rejected, StoreKey, Terms};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::report::{Part, Progress};
use crate::stampede::{self, Callers, StampedeRow};
use crate::subject::{HARD, SOFT, Subject};

/// The encoding of fixtures as keys of a store.
struct Teams;

impl Codec<Fixture> for Teams {
    fn id(&self) -> u8 {
        100
    }

    fn encode(&self, fixture: &Fixture, out: &mut Vec<u8>) -> Result<(), Rejected> {
        out.extend(format!("{} v {}", fixture.home, fixture.away).bytes());
        Ok(())
    }

    fn decode(&self, _: &[u8]) -> Result<Fixture, Rejected> {
        Err("of a fixture only the name is stored".into())
    }
}

/// A Redis, and the namespace of one crowd in it.
struct Behind {
    url: String,
    namespace: Namespace,
}

/// The results with Redis.
pub struct Through {
    pub crowds: Vec<StampedeRow>,
    pub kept: Kept,
}

/// The content of Redis, and its use for another process.
pub struct Kept {
    pub terms: Terms,
    pub left: Duration,
    pub computes: usize,
    pub from_store: bool,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

impl Behind {
    /// A separate namespace, because the next crowd must not find the values of this one.
    fn new(url: &str) -> Result<Behind, Error> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let namespace = Namespace::new(&format!("certify:{}", now.as_nanos()))?;
        Ok(Behind {
            url: url.to_owned(),
            namespace,
        })
    }

    /// A second level that looks like another process to Redis.
    fn level(&self) -> Result<SecondLevel<Fixture, Forecast>, Error> {
        let store = RedisStore::builder(self.url.as_str()).connect_blocking()?;
        let format = Format::new(Postcard);
        let namespace = self.namespace.clone();
        Ok(SecondLevel::with(Arc::new(store), namespace, format, Teams))
    }

    fn kept(&self) -> Result<Kept, Error> {
        let mut name = Vec::new();
        Teams
            .encode(&MATCH, &mut name)
            .map_err(|error| error.to_string())?;
        let key = StoreKey::new(&self.namespace, &name);
        let stored = format!("{}:d:{{{:032x}}}", self.namespace.as_str(), key.hash());
        let mut connection = redis::Client::open(self.url.as_str())?.get_connection()?;
        let payload: Vec<u8> = redis::cmd("GET").arg(&stored).query(&mut connection)?;
        let left: u64 = redis::cmd("PTTL").arg(&stored).query(&mut connection)?;
        let other = Subject::on(LIGHT, Some(self.level()?))?;
        let read = other.cache.get_blocking(&MATCH)?;
        Ok(Kept {
            terms: Format::<Forecast>::new(Postcard)
                .open(&key, &payload)?
                .terms,
            left: Duration::from_millis(left),
            computes: other.computes(),
            from_store: read.source() == Source::Store,
        })
    }
}

pub fn measure(
    url: &str,
    runs: Option<usize>,
    runtime: &Runtime,
    progress: &Progress,
) -> Result<Through, Error> {
    let crowd = |callers: &Callers<'_>| -> Result<(StampedeRow, Behind), Error> {
        // In a shared namespace, the next crowd would read the stored value instead of computing
        // it.
        let behind = Behind::new(url)?;
        let level = Some(behind.level()?);
        Ok((stampede::stale(callers, level, runs, progress)?, behind))
    };
    let (threads, _) = crowd(&Callers::Threads(100))?;
    let (tasks, behind) = crowd(&Callers::Tasks(10_000, runtime))?;
    Ok(Through {
        crowds: vec![threads, tasks],
        kept: behind.kept()?,
    })
}

impl Through {
    pub fn pass(&self) -> bool {
        self.crowds.iter().all(StampedeRow::pass)
            && self.kept.checks().iter().all(|check| check.pass)
    }

    pub fn parts(&self) -> Vec<Part> {
        let crowds = self.crowds.iter().map(|row| {
            let part = row.part();
            Part {
                title: format!("With Redis: {}", part.title),
                ..part
            }
        });
        let kept = Part::checked("Redis after the last crowd".to_owned(), &self.kept.checks());
        crowds.chain([kept]).collect()
    }

    pub fn json(&self) -> Value {
        json!({
            "stale": Value::from_iter(self.crowds.iter().map(StampedeRow::json)),
            "payload_limit_us": micros(self.kept.terms.fresh_for),
            "key_left_us": micros(self.kept.left),
            "computes_after_restart": self.kept.computes,
            "pass": self.pass(),
        })
    }
}

impl Kept {
    fn checks(&self) -> Vec<Check> {
        let (soft, left) = (self.terms.fresh_for, self.left);
        vec![
            Check {
                figure: "soft limit in the payload",
                measured: time(soft),
                control: None,
                target: time(SOFT),
                pass: soft == SOFT,
            },
            Check {
                figure: "remaining time of the key",
                measured: time(left),
                control: None,
                target: format!("{}, minus the time since", time(HARD)),
                pass: left <= HARD && left > HARD / 2,
            },
            Check::exactly("computes of a new process", self.computes, 0),
            Check {
                figure: "its value came from Redis",
                measured: if self.from_store { "yes" } else { "no" }.to_owned(),
                control: None,
                target: "yes".to_owned(),
                pass: self.from_store,
            },
        ]
    }
}
