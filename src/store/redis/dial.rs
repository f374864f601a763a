//! Makes a connection: to a single server, or to the master that the sentinels report.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, PushInfo,
    RedisConnectionInfo, Value,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::classify;
use super::limited_stream::{LimitedStream, StreamLimit};
use crate::store::error::{ErrorClass, StoreError};
use crate::sync::Arc;
use crate::sync::future::BoxFuture;

/// The address of the server, and the login for it.
pub(super) enum Target {
    Standalone(Endpoint),
    Sentinel {
        sentinels: Vec<Endpoint>,
        master: String,
        /// The login and the security for the master.
        login: RedisConnectionInfo,
        security: Security,
    },
}

/// One server.
pub(super) struct Endpoint {
    pub(super) host: Host,
    pub(super) security: Security,
    pub(super) login: RedisConnectionInfo,
}

pub(super) enum Host {
    Tcp(String, u16),
    #[cfg_attr(not(unix), allow(dead_code))]
    Unix(PathBuf),
}

/// Whether the connection is encrypted. An encrypted connection is always verified.
#[derive(Clone, Default)]
pub(super) enum Security {
    #[default]
    Plain,
    #[cfg(feature = "redis-tls")]
    Tls(super::tls::Tls),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Called with every push of a connection.
pub(super) type PushHandler = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// A connection, and the future that drives it.
pub(super) type Dialled = (MultiplexedConnection, BoxFuture);

fn setting(text: &'static str) -> StoreError {
    StoreError::new(ErrorClass::Setting, text)
}

impl Endpoint {
    /// Parses a URL: `redis://`, `rediss://` (for which `encrypted` makes the settings) or
    /// `unix://`, with user, password and database.
    pub(super) fn parse(
        url: &str,
        encrypted: impl FnOnce() -> Result<Security, StoreError>,
    ) -> Result<Self, StoreError> {
        let (plain, tls) = match url.split_once("://") {
            Some(("rediss" | "valkeys", rest)) => (format!("redis://{rest}"), true),
            _ => (url.to_owned(), false),
        };
        if plain.contains('#') {
            return Err(setting(
                "the URL must have no fragment; TLS certificates are always verified",
            ));
        }
        let parsed = plain.into_connection_info().map_err(|_| {
            // Drops the client's text, because it can contain the URL with its password.
            setting(
                "the URL must be like redis://user:password@host:6379/0, rediss:// or unix:///path",
            )
        })?;
        let host = match parsed.addr() {
            ConnectionAddr::Tcp(host, port) => Host::Tcp(host.clone(), *port),
            ConnectionAddr::Unix(path) => Host::Unix(path.clone()),
            _ => {
                return Err(setting(
                    "the URL must begin with redis://, rediss:// or unix://",
                ));
            }
        };
        Ok(Endpoint {
            host,
            security: match tls {
                true => encrypted()?,
                false => Security::Plain,
            },
            login: login(parsed.redis_settings().clone()),
        })
    }

    pub(super) async fn dial(
        &self,
        limit: Duration,
        stream_limit: &Arc<StreamLimit>,
        push_handler: Option<PushHandler>,
    ) -> Result<Dialled, StoreError> {
        let stream = LimitedStream::new(self.stream().await?, stream_limit.clone());
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limit))
            // No timer for each command, because heartbeats bound all of them.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(1_024)
            .set_write_backpressure_boundary(64 << 10);
        if let Some(push_handler) = push_handler {
            config = config.set_push_sender(move |push| {
                push_handler(push);
                Ok::<(), ()>(())
            });
        }
        let dialled = MultiplexedConnection::new_with_config(&self.login, stream, config).await;
        let (connection, driver) = dialled.map_err(|error| classify::client(error).error)?;
        Ok((connection, Box::pin(driver)))
    }

    async fn stream(&self) -> Result<Box<dyn Stream>, StoreError> {
        match &self.host {
            Host::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                let stream = stream.map_err(|error| classify::io(&error))?;
                stream
                    .set_nodelay(true)
                    .map_err(|error| classify::io(&error))?;
                match &self.security {
                    Security::Plain => Ok(Box::new(stream)),
                    #[cfg(feature = "redis-tls")]
                    Security::Tls(tls) => Ok(Box::new(tls.connect(host, stream).await?)),
                }
            }
            #[cfg(unix)]
            Host::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(path).await;
                Ok(Box::new(stream.map_err(|error| classify::io(&error))?))
            }
            #[cfg(not(unix))]
            Host::Unix(_) => Err(setting("unix sockets exist on Unix only")),
        }
    }
}

/// Settings of every connection: pushes need RESP3, and the server need not know the client
/// library.
pub(super) fn login(settings: RedisConnectionInfo) -> RedisConnectionInfo {
    settings
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name()
}

impl Target {
    /// Connects to the master, and checks that the server is a master.
    pub(super) async fn dial(
        &self,
        limit: Duration,
        stream_limit: &Arc<StreamLimit>,
        push_handler: Option<PushHandler>,
        spawn: impl FnOnce(BoxFuture) -> Driver,
    ) -> Result<(MultiplexedConnection, Driver), StoreError> {
        let (mut connection, driver) = match self {
            Target::Standalone(endpoint) => {
                endpoint.dial(limit, stream_limit, push_handler).await?
            }
            Target::Sentinel {
                sentinels,
                master,
                login,
                security,
            } => {
                let (host, port) = ask_sentinels(sentinels, master, limit).await?;
                let endpoint = Endpoint {
                    host: Host::Tcp(host, port),
                    security: security.clone(),
                    login: login.clone(),
                };
                endpoint.dial(limit, stream_limit, push_handler).await?
            }
        };
        let driver = spawn(driver);
        check(&mut connection).await?;
        Ok((connection, driver))
    }
}

/// The task that drives a connection; the connection ends when this is dropped.
pub(super) struct Driver(pub(super) tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Checks that the server is a master and has loaded its data. `HELLO` needs no rights.
async fn check(connection: &mut MultiplexedConnection) -> Result<(), StoreError> {
    let hello = ask(connection, redis::cmd("HELLO")).await?;
    let Value::Map(fields) = hello else {
        return Err(classify::unexpected_reply().error);
    };
    let is = |value: &Value, text: &[u8]| match value {
        Value::BulkString(bytes) => bytes == text,
        Value::SimpleString(string) => string.as_bytes() == text,
        _ => false,
    };
    let role = fields.iter().find(|(name, _)| is(name, b"role"));
    if !role.is_some_and(|(_, role)| is(role, b"master")) {
        return Err(StoreError::new(ErrorClass::Refused, "not a master"));
    }
    match ask(connection, redis::cmd("PING")).await {
        // A server that cannot write to its disk refuses `PING`, but reads still work.
        Err(error) if error.class() == ErrorClass::Refused => Ok(()),
        answer => answer.map(drop),
    }
}

/// Sends one command on a connection that has no other user yet.
pub(super) async fn ask(
    connection: &mut MultiplexedConnection,
    command: Cmd,
) -> Result<Value, StoreError> {
    match connection.send_packed_command(&command).await {
        Ok(Value::ServerError(error)) => Err(classify::server(&error).error),
        Ok(value) => Ok(value),
        Err(error) => Err(classify::client(error).error),
    }
}

pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

/// Asks for the address of the master; the first sentinel that knows it counts.
async fn ask_sentinels(
    sentinels: &[Endpoint],
    master: &str,
    limit: Duration,
) -> Result<(String, u16), StoreError> {
    let mut last = setting("no sentinel was given");
    for sentinel in sentinels {
        // A sentinel that hangs must leave time for the others.
        let each = limit / (sentinels.len() as u32 + 1);
        match tokio::time::timeout(each, ask_sentinel(sentinel, master, each)).await {
            Ok(Ok(address)) => return Ok(address),
            Ok(Err(error)) => last = error,
            Err(_) => last = StoreError::new(ErrorClass::TimedOut, "sentinel"),
        }
    }
    Err(last)
}

async fn ask_sentinel(
    sentinel: &Endpoint,
    master: &str,
    limit: Duration,
) -> Result<(String, u16), StoreError> {
    let (mut connection, driver) = sentinel.dial(limit, &StreamLimit::new(0), None).await?;
    let _driver = Driver(tokio::spawn(driver));
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    match ask(&mut connection, command).await? {
        Value::Array(parts) => match &parts[..] {
            [host, port] => text(host).zip(text(port).and_then(|port| port.parse().ok())),
            _ => None,
        }
        .ok_or_else(|| classify::unexpected_reply().error),
        Value::Nil => Err(StoreError::new(
            ErrorClass::Unavailable,
            "the sentinels know no master of that name",
        )),
        _ => Err(classify::unexpected_reply().error),
    }
}

// Omits addresses and logins, so that they stay out of logs.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Standalone(_) => "Standalone",
            Target::Sentinel { .. } => "Sentinel",
        })
    }
}
