//! Asking for leases: for one, or for many in one round trip to each master.

use redis::Value;

use super::classify;
use super::node::Node;
use super::scripts::Keys;
use super::shared::Shared;
use super::wire::{self, acquired, millis, seen, token_bytes};
use crate::store::error::{ErrorClass, StoreError};
use crate::store::key::StoreKey;
use crate::store::lease::{Acquire, Acquired};
use crate::sync::future::all;

/// How often a request for a lease finds a payload that is gone when it is read.
const ATTEMPTS: u32 = 4;

/// The answer to one of many questions.
enum Answer {
    Given(Result<Acquired, StoreError>),
    /// A payload is stored, which has to be read.
    Stored,
    /// To be asked alone: the server does not know the script, or the payload is gone.
    Alone,
}

/// The arguments of the script.
struct Arguments {
    seen: String,
    token: [u8; 16],
    lease: String,
    limit: String,
}

impl Arguments {
    fn of(ask: Acquire, limit: usize) -> Self {
        Arguments {
            seen: seen(ask.seen),
            token: token_bytes(ask.token),
            lease: millis(ask.lease),
            limit: limit.to_string(),
        }
    }

    fn bytes(&self) -> [&[u8]; 4] {
        let Arguments {
            seen,
            token,
            lease,
            limit,
        } = self;
        [seen.as_bytes(), token, lease.as_bytes(), limit.as_bytes()]
    }
}

impl Shared {
    /// Asks for one lease.
    pub(super) async fn acquire(
        &self,
        key: &StoreKey,
        ask: Acquire,
    ) -> Result<Acquired, StoreError> {
        let arguments = Arguments::of(ask, self.limit);
        let acquire = &self.scripts.acquire;
        for _ in 0..ATTEMPTS {
            if let Some(answer) = self.run(acquire, key, &arguments.bytes(), acquired).await? {
                return Ok(answer);
            }
            // Large values travel on the connection for reads only.
            let read = self.read(std::slice::from_ref(key)).await.pop();
            if let Some(payload) = read.transpose()?.flatten() {
                return Ok(Acquired::Stored(payload));
            }
            // It was removed in between.
        }
        let text = "the key changes all the time";
        (self.counters).result(Err(StoreError::new(ErrorClass::Busy, text)))
    }

    /// Asks for many leases. Payloads that are stored meanwhile are read together too.
    pub(super) async fn acquire_many(
        &self,
        asks: &[(StoreKey, Acquire)],
    ) -> Vec<Result<Acquired, StoreError>> {
        let mut answers = self.ask_apart(asks).await;
        let is_stored = |answer: &Answer| matches!(answer, Answer::Stored);
        let stored: Vec<usize> = (0..answers.len())
            .filter(|place| is_stored(&answers[*place]))
            .collect();
        if !stored.is_empty() {
            let keys: Vec<StoreKey> = stored.iter().map(|place| asks[*place].0.clone()).collect();
            for (place, read) in stored.into_iter().zip(self.read(&keys).await) {
                answers[place] = match read {
                    Ok(Some(payload)) => Answer::Given(Ok(Acquired::Stored(payload))),
                    Ok(None) => Answer::Alone,
                    Err(error) => Answer::Given(Err(error)),
                };
            }
        }
        let answers = answers
            .into_iter()
            .zip(asks)
            .map(|(answer, (key, ask))| async {
                match answer {
                    Answer::Given(given) => given,
                    Answer::Stored | Answer::Alone => self.acquire(key, *ask).await,
                }
            });
        all(answers).await
    }

    /// Asks each master for the leases of its keys.
    async fn ask_apart(&self, asks: &[(StoreKey, Acquire)]) -> Vec<Answer> {
        let mut answers: Vec<Answer> = asks.iter().map(|_| Answer::Alone).collect();
        let parts = self.parts(asks.iter().map(|(key, _)| key), |place, error| {
            answers[place] = Answer::Given(self.counters.result(Err(error)));
        });
        let parts = parts.iter().map(|(node, places)| async {
            let asks = places.iter().map(|place| &asks[*place]);
            let answers = self.ask_node(node, asks).await;
            places.iter().copied().zip(answers).collect::<Vec<_>>()
        });
        for (place, answer) in all(parts).await.into_iter().flatten() {
            answers[place] = answer;
        }
        answers
    }

    /// Asks one master for the leases of its keys, in one round trip.
    async fn ask_node<'a>(
        &self,
        node: &Node,
        asks: impl ExactSizeIterator<Item = &'a (StoreKey, Acquire)>,
    ) -> Vec<Answer> {
        let count = asks.len();
        let failed = |error: StoreError| -> Vec<Answer> {
            self.note_error(&error);
            let error = || Answer::Given(self.counters.result(Err(error.clone())));
            (0..count).map(|_| error()).collect()
        };
        let link = match node.scripts.link() {
            Ok(link) => link,
            Err(error) => return failed(error),
        };
        let mut pipeline = redis::Pipeline::with_capacity(count);
        for (key, ask) in asks {
            let keys = Keys {
                data: wire::data(key),
                lease: wire::lease(key),
            };
            let arguments = Arguments::of(*ask, self.limit);
            pipeline.add_command(self.scripts.acquire.by_hash(&keys, &arguments.bytes()));
        }
        let replies = match link.send_all(&pipeline).await {
            Ok(replies) if replies.len() == count => replies,
            Ok(_) => return failed(link.report(classify::unexpected_reply())),
            Err(failure) => return failed(link.report(failure)),
        };
        let answer = |reply| {
            let error = match reply {
                Value::ServerError(error) if error.code() == "NOSCRIPT" => return Answer::Alone,
                Value::ServerError(error) => link.report(classify::server(&error)),
                reply => match acquired(reply) {
                    Some(Some(acquired)) => {
                        return Answer::Given(self.counters.result(Ok(acquired)));
                    }
                    Some(None) => return Answer::Stored,
                    None => link.report(classify::unexpected_reply()),
                },
            };
            self.note_error(&error);
            Answer::Given(self.counters.result(Err(error)))
        };
        replies.into_iter().map(answer).collect()
    }
}
