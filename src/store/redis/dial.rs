//! Makes a connection: to a single server, or to the master that the sentinels report.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ProtocolVersion, PushInfo, RedisConnectionInfo, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::classify;
use super::greeting::{self, Expected, greet};
use super::limited_stream::{LimitedStream, SignsOfLife, StreamLimit};
use super::url::Url;
use super::wire::text;
use crate::store::error::{ErrorClass, StoreError};
use crate::sync::Arc;
use crate::sync::future::BoxFuture;

/// An address of a host that does not answer in this time is no longer waited for alone: the next
/// address is tried beside it (RFC 8305, section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// The address of the server, and the login for it.
pub(super) enum Target {
    Standalone(Endpoint),
    /// A master of a cluster.
    ClusterMaster(Endpoint),
    Sentinel {
        sentinels: Vec<Endpoint>,
        master: String,
        /// The login and the security for the master.
        login: Login,
        security: Security,
    },
}

/// One server.
pub(super) struct Endpoint {
    pub(super) host: Host,
    pub(super) security: Security,
    pub(super) login: Login,
}

pub(super) enum Host {
    Tcp(String, u16),
    #[cfg_attr(not(unix), allow(dead_code))]
    Unix(PathBuf),
}

/// User, password and database.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: u32,
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

/// A stream whose login was accepted.
type Greeted = LimitedStream<Box<dyn Stream>>;

/// Called with every push of a connection.
pub(super) type PushHandler = Arc<dyn Fn(PushInfo) + Send + Sync>;

pub(super) fn setting(text: &'static str) -> StoreError {
    StoreError::explained(ErrorClass::Setting, text)
}

/// Waits for a step of connecting until the deadline; `late` says what is wrong if it passes.
async fn step<T>(
    deadline: Instant,
    late: &'static str,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match timeout_at(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::explained(ErrorClass::TimedOut, late)),
    }
}

impl Endpoint {
    /// Parses a URL; `encrypted` makes the settings for TLS.
    pub(super) fn parse(
        url: &str,
        encrypted: impl FnOnce() -> Result<Security, StoreError>,
    ) -> Result<Self, StoreError> {
        let url = Url::parse(url)?;
        Ok(Endpoint {
            host: url.host,
            security: match url.encrypted {
                true => encrypted()?,
                false => Security::Plain,
            },
            login: url.login,
        })
    }

    fn name(&self) -> String {
        let database = self.login.database;
        match &self.host {
            Host::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}/{database}"),
            Host::Tcp(host, port) => format!("{host}:{port}/{database}"),
            Host::Unix(path) => format!("{} /{database}", path.display()),
        }
    }

    /// Connects and greets; see [`greet`]. The answers to the questions contain no errors.
    pub(super) async fn ask(
        &self,
        deadline: Instant,
        expected: Expected,
        questions: &[Cmd],
    ) -> Result<Vec<Value>, StoreError> {
        let limit = StreamLimit::new(0);
        let (_, answers) = self.greeted(deadline, &limit, expected, questions).await?;
        match answers.iter().find_map(|answer| match answer {
            Value::ServerError(error) => Some(classify::server(error).error),
            _ => None,
        }) {
            Some(error) => Err(error),
            None => Ok(answers),
        }
    }

    async fn greeted(
        &self,
        deadline: Instant,
        stream_limit: &Arc<StreamLimit>,
        expected: Expected,
        questions: &[Cmd],
    ) -> Result<(Greeted, Vec<Value>), StoreError> {
        let mut stream = LimitedStream::new(self.stream(deadline).await?, stream_limit.clone());
        let late = "the server accepts the connection but does not answer; check that it is Redis \
             and not stopped, and whether its port expects TLS (rediss://)";
        let greeting = greet(&mut stream, &self.login, expected, questions);
        let answers = step(deadline, late, greeting).await?;
        Ok((stream, answers))
    }

    async fn stream(&self, deadline: Instant) -> Result<Box<dyn Stream>, StoreError> {
        match &self.host {
            Host::Tcp(host, port) => {
                let late = "the name of the host is not resolved in time; check the DNS";
                let addresses = step(deadline, late, async {
                    match lookup_host((host.as_str(), *port)).await {
                        Ok(addresses) => Ok(addresses.collect::<Vec<_>>()),
                        Err(_) => Err(no_address()),
                    }
                });
                let addresses = addresses.await?;
                let late = "no address of the host answers; check host and port, and that no \
                     firewall is in between";
                let stream = step(deadline, late, async {
                    let stream = connect_any(addresses, TcpStream::connect).await;
                    stream.map_err(|error| classify::io(&error))
                });
                let stream = stream.await?;
                stream
                    .set_nodelay(true)
                    .map_err(|error| classify::io(&error))?;
                match &self.security {
                    Security::Plain => Ok(Box::new(stream)),
                    #[cfg(feature = "redis-tls")]
                    Security::Tls(tls) => {
                        let late = "the TLS handshake does not end; check that the port expects \
                             TLS, or use redis://";
                        let stream = step(deadline, late, tls.connect(host, stream));
                        Ok(Box::new(stream.await?))
                    }
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

fn no_address() -> StoreError {
    StoreError::explained(
        ErrorClass::Unavailable,
        "the host has no address; check its name in the URL, and the DNS",
    )
}

/// Connects to the first address that accepts. An address that swallows what is sent to it must not
/// use up the time of the others.
async fn connect_any<T, C>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> C,
) -> io::Result<T>
where
    T: Send + 'static,
    C: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut addresses = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    loop {
        match addresses.next() {
            Some(address) => {
                attempts.spawn(connect(address));
            }
            None if attempts.is_empty() => return Err(last),
            None => {}
        }
        let ended = match addresses.len() {
            0 => attempts.join_next().await,
            _ => match timeout(NEXT_ADDRESS, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            },
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => last = error,
            // The runtime ends, and this future with it.
            Some(Err(_)) | None => {}
        }
    }
}

impl Target {
    /// The name of the server in logs, without its login.
    pub(super) fn name(&self) -> String {
        match self {
            Target::Standalone(endpoint) | Target::ClusterMaster(endpoint) => endpoint.name(),
            Target::Sentinel { master, login, .. } => match login.database {
                0 => format!("{master} of the sentinels"),
                database => format!("{master}/{database} of the sentinels"),
            },
        }
    }

    /// Connects to the master, and checks that the server is a master that can be used, also for
    /// scripts if they will be run.
    pub(super) async fn dial(
        &self,
        deadline: Instant,
        stream_limit: &Arc<StreamLimit>,
        push_handler: Option<PushHandler>,
        scripts: bool,
        spawn: impl FnOnce(BoxFuture) -> Driver,
    ) -> Result<(MultiplexedConnection, Driver, SignsOfLife), StoreError> {
        let named;
        let (endpoint, expected) = match self {
            Target::Standalone(endpoint) => (endpoint, Expected::Master),
            Target::ClusterMaster(endpoint) => (endpoint, Expected::ClusterMaster),
            Target::Sentinel {
                sentinels,
                master,
                login,
                security,
            } => {
                let (host, port) = ask_sentinels(sentinels, master, deadline).await?;
                named = Endpoint {
                    host: Host::Tcp(host, port),
                    security: security.clone(),
                    login: login.clone(),
                };
                (&named, Expected::Master)
            }
        };
        let questions = greeting::questions(scripts);
        let greeted = endpoint.greeted(deadline, stream_limit, expected, &questions);
        let (stream, answers) = greeted.await?;
        greeting::check(&answers)?;
        let signs = stream.signs_of_life();
        let late = "the server does not answer a second time; check its load and the network";
        let (connection, driver) = step(deadline, late, connection(stream, push_handler)).await?;
        Ok((connection, spawn(driver), signs))
    }
}

/// Hands a stream to the client library.
async fn connection(
    stream: Greeted,
    push_handler: Option<PushHandler>,
) -> Result<(MultiplexedConnection, BoxFuture), StoreError> {
    let mut config = AsyncConnectionConfig::new()
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
    // The greeting has done all else. Pushes need RESP3.
    let login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name();
    let made = MultiplexedConnection::new_with_config(&login, stream, config).await;
    let (connection, driver) = made.map_err(|error| classify::client(error).error)?;
    Ok((connection, Box::pin(driver)))
}

/// The task that drives a connection; the connection ends when this is dropped.
pub(super) struct Driver(pub(super) tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks for the address of the master; the first sentinel that knows it counts.
async fn ask_sentinels(
    sentinels: &[Endpoint],
    master: &str,
    deadline: Instant,
) -> Result<(String, u16), StoreError> {
    let mut last = setting("no sentinel was given");
    // A sentinel that hangs must leave time for the others, and for the master.
    let left = deadline.saturating_duration_since(Instant::now());
    let each = left / (sentinels.len() as u32 + 1);
    for sentinel in sentinels {
        let deadline = Instant::now() + each;
        match ask_sentinel(sentinel, master, deadline).await {
            Ok(address) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask_sentinel(
    sentinel: &Endpoint,
    master: &str,
    deadline: Instant,
) -> Result<(String, u16), StoreError> {
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let questions = [question];
    let answers = sentinel.ask(deadline, Expected::Sentinel, &questions);
    match &answers.await?[..] {
        [Value::Array(parts)] => match &parts[..] {
            [host, port] => {
                let host = text(host).map(str::to_owned);
                host.zip(text(port).and_then(|port| port.parse().ok()))
            }
            _ => None,
        }
        .ok_or_else(|| classify::unexpected_reply().error),
        [Value::Nil] => Err(StoreError::explained(
            ErrorClass::Unavailable,
            "the sentinels know no master of that name; compare it with `sentinel monitor` in \
             their configuration",
        )),
        _ => Err(classify::unexpected_reply().error),
    }
}

// Omits addresses and logins, so that they stay out of logs.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Standalone(_) => "Standalone",
            Target::ClusterMaster(_) => "ClusterMaster",
            Target::Sentinel { .. } => "Sentinel",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const ALIVE: u16 = 1;
    const CLOSED: u16 = 2;
    const DEAD: u16 = 3;

    async fn connect(address: SocketAddr) -> io::Result<u16> {
        match address.port() {
            DEAD => pending().await,
            CLOSED => Err(io::ErrorKind::ConnectionRefused.into()),
            port => Ok(port),
        }
    }

    fn addresses(ports: &[u16]) -> Vec<SocketAddr> {
        let ports = ports.iter();
        ports.map(|port| ([127, 0, 0, 1], *port).into()).collect()
    }

    #[tokio::test]
    async fn a_dead_address_does_not_use_up_the_time_of_the_others() {
        for ports in [
            &[DEAD, ALIVE][..],
            &[ALIVE, DEAD],
            &[CLOSED, ALIVE],
            &[DEAD, CLOSED, DEAD, ALIVE],
        ] {
            let connected = connect_any(addresses(ports), connect).await;
            assert!(connected.is_ok_and(|port| port == ALIVE), "{ports:?}");
        }
        let refused = connect_any(addresses(&[CLOSED, CLOSED]), connect).await;
        assert!(refused.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused));
        assert!(connect_any(Vec::new(), connect).await.is_err());
    }
}
