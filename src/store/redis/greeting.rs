//! The greeting: all that is said to a server before its connection is used, in one round trip.
//!
//! The client library has a greeting of its own. It needs a round trip for each question, and drops
//! most of what a server says about a login that it refuses.

use std::io;

use redis::{Cmd, Parser, ServerError, Value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::classify;
use super::dial::Login;
use super::wire::text;
use crate::store::error::{ErrorClass, StoreError};

/// No greeting is longer, not even the list of the slots of a large cluster.
const LONGEST: usize = 16 << 20;

const REPLICA: &str = "this server is a replica; give the address of its master, or let sentinels \
     name it (RedisStore::behind_sentinels)";
const NO_SENTINEL: &str = "a server given as a sentinel is none; check its port (usually 26379), \
     or use RedisStore::builder for one server";
const SENTINEL: &str = "the port is that of a sentinel; use RedisStore::behind_sentinels, or the \
     port of the server (usually 6379)";
const CLUSTER: &str = "the server is a node of a cluster; use RedisStore::cluster";
const NO_CLUSTER: &str = "the server is not part of a cluster; use RedisStore::builder";

const NO_RIGHT_TO_BASICS: &str = "the user may not run PING or TIME; give it the rights in the \
     documentation of RedisStore";
const NO_RIGHT_TO_SCRIPTS: &str = "the user may not run scripts, which leases need; give it the \
     rights +eval and +evalsha";
const NO_BASICS: &str = "the server does not know PING or TIME; use Redis or Valkey with these \
     commands on";
const NO_SCRIPTS: &str = "the server runs no scripts (EVAL and EVALSHA), which leases need; use \
     Redis or Valkey with these commands on";
const NO_TIME_IN_SCRIPT: &str = "scripts may not call TIME on this server, which leases need; give \
     the user the right +time, or use Redis or Valkey";

/// A script that changes nothing.
const CHECK: &str = "redis.call('TIME') return 1";

/// The kind that a server must be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// A master outside a cluster.
    Master,
    /// A master in a cluster.
    ClusterMaster,
    /// Any node of a cluster.
    ClusterNode,
    Sentinel,
}

/// Logs in, checks the kind of the server, and asks questions. Returns the answers to the
/// questions, which can be errors of the server.
pub(super) async fn greet<S>(
    stream: &mut S,
    login: &Login,
    expected: Expected,
    questions: &[Cmd],
) -> Result<Vec<Value>, StoreError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = hello(login).get_packed_command();
    let select = (login.database != 0).then(|| {
        let mut select = redis::cmd("SELECT");
        select.arg(login.database);
        select
    });
    for command in select.iter().chain(questions) {
        request.extend(command.get_packed_command());
    }
    // A server that refuses the connection answers and closes it. The answer says more than the
    // error of a write, so it is read in any case.
    let written = async {
        stream.write_all(&request).await?;
        stream.flush().await
    };
    let written = written.await;
    let mut answers = Answers::default();
    let first = match answers.next(stream).await {
        Err(error) if answers.bytes.is_empty() => {
            return Err(no_answer(written.err().unwrap_or(error)));
        }
        Err(_) => return Err(no_redis()),
        Ok(answer) => answer,
    };
    check_hello(&first, login, expected)?;
    if select.is_some() {
        let answer = answers.next(stream).await.map_err(|_| cut())?;
        if let Value::ServerError(error) = answer {
            return Err(select_error(&error));
        }
    }
    let mut replies = Vec::with_capacity(questions.len());
    for _ in questions {
        replies.push(answers.next(stream).await.map_err(|_| cut())?);
    }
    Ok(replies)
}

fn hello(login: &Login) -> Cmd {
    let mut hello = redis::cmd("HELLO");
    hello.arg(3);
    if login.user.is_some() || login.password.is_some() {
        // A user without a password logs in too, because the server would otherwise take the
        // connection for that of its default user.
        let user = login.user.as_deref().unwrap_or("default");
        let password = login.password.as_deref().unwrap_or_default();
        hello.arg("AUTH").arg(user).arg(password);
    }
    hello
}

/// The bytes of the answers, and how many answers were taken from them.
#[derive(Default)]
struct Answers {
    bytes: Vec<u8>,
    taken: usize,
}

impl Answers {
    async fn next<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<Value> {
        loop {
            if let Some(value) = self.parse()? {
                self.taken += 1;
                return Ok(value);
            }
            if self.bytes.len() > LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if stream.read_buf(&mut self.bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next answer, if all of it is there.
    fn parse(&self) -> io::Result<Option<Value>> {
        let (mut parser, mut bytes) = (Parser::new(), &self.bytes[..]);
        for _ in 0..self.taken {
            let _ = parser.parse_value(&mut bytes);
        }
        match parser.parse_value(&mut bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_io_error() => Ok(None),
            Err(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Questions whose answers show that the server and the user can be used: for all connections, and
/// for that of the scripts.
pub(super) fn questions(scripts: bool) -> Vec<Cmd> {
    let mut questions = vec![redis::cmd("PING"), redis::cmd("TIME")];
    if scripts {
        // By its code, then by its hash, as later. A pause of writes holds up scripts, so the
        // connection for reads does not ask for them.
        let script = redis::Script::new(CHECK);
        for (command, body) in [("EVAL", CHECK), ("EVALSHA", script.get_hash())] {
            let mut question = redis::cmd(command);
            question.arg(body).arg(0);
            questions.push(question);
        }
    }
    questions
}

/// Checks the answers to [`questions`].
pub(super) fn check(answers: &[Value]) -> Result<(), StoreError> {
    for (place, answer) in answers.iter().enumerate() {
        let Value::ServerError(error) = answer else {
            continue;
        };
        let details = error.details().unwrap_or_default();
        let within = ["script", "Script"]
            .iter()
            .any(|word| details.contains(word));
        let scripts = place > 1;
        let unknown = error.code() == "ERR" && details.to_lowercase().contains("unknown");
        return Err(match (error.code(), scripts, within) {
            ("NOPERM", true, true) => explained(ErrorClass::Denied, NO_TIME_IN_SCRIPT),
            ("NOPERM", true, false) => explained(ErrorClass::Denied, NO_RIGHT_TO_SCRIPTS),
            ("NOPERM", false, _) => explained(ErrorClass::Denied, NO_RIGHT_TO_BASICS),
            (_, true, true) if unknown => explained(ErrorClass::Protocol, NO_TIME_IN_SCRIPT),
            (_, true, false) if unknown => explained(ErrorClass::Protocol, NO_SCRIPTS),
            (_, false, _) if unknown => explained(ErrorClass::Protocol, NO_BASICS),
            _ => match classify::server(error).error {
                // A server that cannot write to its disk refuses `PING`, but reads still work.
                error if error.class() == ErrorClass::Refused => continue,
                error => error,
            },
        });
    }
    Ok(())
}

fn explained(class: ErrorClass, text: &'static str) -> StoreError {
    StoreError::explained(class, text)
}

/// The connection ended before the first byte.
fn no_answer(error: io::Error) -> StoreError {
    #[cfg(feature = "redis-tls")]
    if let Some(error) = super::tls::explain(&error) {
        return error;
    }
    match error.kind() {
        io::ErrorKind::TimedOut => classify::io(&error),
        _ => explained(
            ErrorClass::Unavailable,
            "the connection ended before any answer; check that the server is Redis, and whether \
             its port expects TLS (rediss://)",
        ),
    }
}

fn no_redis() -> StoreError {
    explained(
        ErrorClass::Protocol,
        "the first answer is not that of Redis; check host and port, and whether the port expects \
         TLS (rediss://)",
    )
}

fn cut() -> StoreError {
    explained(
        ErrorClass::Unavailable,
        "the connection ended during the greeting; check the log of the server",
    )
}

fn check_hello(hello: &Value, login: &Login, expected: Expected) -> Result<(), StoreError> {
    let fields = match hello {
        Value::Map(fields) => fields,
        Value::ServerError(error) => return Err(hello_error(error, login)),
        _ => return Err(no_redis()),
    };
    let field = |wanted: &str| {
        let found = fields.iter().find(|(name, _)| text(name) == Some(wanted))?;
        text(&found.1)
    };
    let mode = match field("mode") {
        Some("cluster") => Expected::ClusterNode,
        Some("sentinel") => Expected::Sentinel,
        _ => Expected::Master,
    };
    let role = field("role");
    let explained = |class, text: &'static str| Err(StoreError::explained(class, text));
    let wrong = |text| explained(ErrorClass::Setting, text);
    match (expected, mode) {
        (Expected::Sentinel, Expected::Sentinel)
        | (Expected::ClusterNode, Expected::ClusterNode) => Ok(()),
        (Expected::Master, Expected::Master) | (Expected::ClusterMaster, Expected::ClusterNode) => {
            match role {
                Some("master") | None => Ok(()),
                Some(_) => explained(ErrorClass::Refused, REPLICA),
            }
        }
        (Expected::Sentinel, _) => wrong(NO_SENTINEL),
        (_, Expected::Sentinel) => wrong(SENTINEL),
        (Expected::Master, _) => wrong(CLUSTER),
        (Expected::ClusterMaster | Expected::ClusterNode, _) => wrong(NO_CLUSTER),
    }
}

fn hello_error(error: &ServerError, login: &Login) -> StoreError {
    let details = error.details().unwrap_or_default();
    let with_login = login.user.is_some() || login.password.is_some();
    match error.code() {
        "NOAUTH" => explained(
            ErrorClass::Denied,
            "the server asks for a password; give it in the URL, as in \
             redis://:password@host, or with `login`",
        ),
        "WRONGPASS" => explained(
            ErrorClass::Denied,
            "user or password is wrong, or the user is disabled; check them in the URL or in \
             `login`, and with ACL LIST on the server",
        ),
        "DENIED" => explained(
            ErrorClass::Denied,
            "the server runs in protected mode and takes local clients only; set a password on \
             it, or turn protected-mode off in a trusted network",
        ),
        "NOPROTO" => old(),
        "ERR" if details.contains("unknown command") => old(),
        "ERR" if details.contains("without any password") && with_login => explained(
            ErrorClass::Denied,
            "a password is given, but the server has none; remove it from the URL",
        ),
        _ => classify::server(error).error,
    }
}

fn old() -> StoreError {
    explained(
        ErrorClass::Protocol,
        "the server does not know HELLO 3; it must be Redis 6 or later, or Valkey, without a proxy \
         that speaks an older protocol",
    )
}

fn select_error(error: &ServerError) -> StoreError {
    let details = error.details().unwrap_or_default();
    match error.code() {
        "NOPERM" => explained(
            ErrorClass::Denied,
            "the user may not choose a database; give it the right +select, or use database 0",
        ),
        "ERR" if details.contains("out of range") => explained(
            ErrorClass::Setting,
            "the server has no database of this number; use a smaller one, or raise `databases` \
             in its configuration",
        ),
        _ => classify::server(error).error,
    }
}
