//! The cable to Redis: a small proxy inside the service that the page can cut to show an outage.

use std::io;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Cable {
    cut: watch::Sender<bool>,
}

impl Cable {
    /// Lays a cable to the server of a URL. Returns the cable, and the URL that leads through it.
    pub async fn lay(url: &str) -> io::Result<(Arc<Cable>, String)> {
        let wrong = "--redis takes redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]";
        let parts =
            Parts::of(url).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, wrong))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let through = parts.through(listener.local_addr()?.port());
        let cable = Arc::new(Cable {
            cut: watch::Sender::new(false),
        });
        tokio::spawn(carry(listener, parts.server, cable.cut.subscribe()));
        Ok((cable, through))
    }

    /// While it is cut, every connection ends and none is made.
    pub fn set_cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    pub fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }
}

/// Accepts for as long as the cable lives.
async fn carry(listener: TcpListener, server: String, mut cut: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = cut.wait_for(|_| false) => return,
        };
        let Ok((mut near, _)) = accepted else {
            continue;
        };
        if *cut.borrow() {
            continue;
        }
        let (server, mut cut) = (server.clone(), cut.clone());
        tokio::spawn(async move {
            let carried = async {
                let mut far = TcpStream::connect(&server).await?;
                far.set_nodelay(true)?;
                near.set_nodelay(true)?;
                copy_bidirectional(&mut near, &mut far).await
            };
            tokio::select! {
                _ = carried => {}
                _ = cut.wait_for(|cut| *cut) => {}
            }
        });
    }
}

/// The parts of a URL around its server.
struct Parts {
    before: String,
    server: String,
    after: String,
}

impl Parts {
    fn of(url: &str) -> Option<Parts> {
        let rest = url.strip_prefix("redis://")?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, after) = rest.split_at(end);
        let (user, server) = match authority.rsplit_once('@') {
            Some((user, server)) => (format!("{user}@"), server),
            None => (String::new(), authority),
        };
        let has_port = server.rsplit_once(':').is_some_and(|(_, port)| {
            !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
        });
        let server = match (server.is_empty(), has_port) {
            (true, _) => return None,
            (_, true) => server.to_owned(),
            (_, false) => format!("{server}:6379"),
        };
        Some(Parts {
            before: format!("redis://{user}"),
            server,
            after: after.to_owned(),
        })
    }

    fn through(&self, port: u16) -> String {
        format!("{}127.0.0.1:{port}{}", self.before, self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::Parts;

    #[test]
    fn only_the_server_of_a_url_changes() {
        for (url, server, through) in [
            ("redis://localhost", "localhost:6379", "redis://127.0.0.1:7"),
            ("redis://h:1/2", "h:1", "redis://127.0.0.1:7/2"),
            ("redis://u:p@h:1/", "h:1", "redis://u:p@127.0.0.1:7/"),
            (
                "redis://u:p@[::1]/",
                "[::1]:6379",
                "redis://u:p@127.0.0.1:7/",
            ),
        ] {
            let parts = Parts::of(url).expect(url);
            assert_eq!(parts.server, server);
            assert_eq!(parts.through(7), through);
        }
        assert!(Parts::of("unix:///tmp/redis").is_none());
        assert!(Parts::of("redis:///1").is_none());
    }
}
