//! A master that sentinels name, and its successor.
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dev_support::redis::{Answer, Talk, free_port, temporary};
use dev_support::until;
use everfresh::store::{ErrorClass, RedisStore, Store, StoreState};
use everfresh::testing::store_contract::{LIMIT, Recording, key, namespace};

use crate::faults::{class, read, set, works};
use crate::server::Server;

pub struct Sentinel {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Sentinel {
    /// A sentinel that watches a master, and alone decides that the master is down.
    pub fn of(master: &Server) -> Self {
        Self::with(master, "")
    }

    fn of_secured(master: &Server, password: &str) -> Self {
        Self::with(master, &format!("sentinel auth-pass main {password}\n"))
    }

    fn with(master: &Server, more: &str) -> Self {
        let folder = temporary().unwrap();
        let port = free_port().unwrap();
        let watched = master.port;
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor main 127.0.0.1 {watched} 1\n\
             sentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 3000\n{more}",
            folder.display()
        );
        let file = folder.join("sentinel.conf");
        fs::write(&file, settings).unwrap();
        let child = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sentinel = Sentinel {
            child,
            port,
            folder,
        };
        until("the sentinel answers", || {
            Talk::to(port).is_ok_and(|mut talk| talk.ask(&["PING"]).is_ok())
        });
        sentinel
    }

    fn ask(&self, command: &[&str]) -> Answer {
        Talk::to(self.port).unwrap().ask(command).unwrap()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn knows_replicas(&self, count: usize) -> bool {
        let replicas = self.ask(&["SENTINEL", "REPLICAS", "main"]);
        matches!(replicas, Answer::Many(replicas) if replicas.len() == count)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub fn replica_of(master: &Server) -> Server {
    let replica = Server::with(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    until("the replica has its data", || {
        match replica.ask(&["INFO", "replication"]) {
            Answer::Bytes(info) => String::from_utf8(info)
                .unwrap()
                .contains("master_link_status:up"),
            _ => false,
        }
    });
    replica
}

fn through(sentinels: Vec<String>) -> RedisStore {
    RedisStore::behind_sentinels(sentinels, "main")
        .timeout(Duration::from_secs(3))
        .limit(LIMIT)
        .connect_blocking()
        .unwrap()
}

#[test]
fn a_failover_is_followed() {
    let mut master = Server::start();
    let replica = replica_of(&master);
    let sentinel = Sentinel::of(&master);
    // Two of the three sentinels do not answer.
    let dead = format!("redis://127.0.0.1:{}", free_port().unwrap());
    let store = through(vec![dead.clone(), sentinel.url(), dead]);
    let recording = Recording::of(&store, &namespace());
    let before = set(&store, &key("a"), b"one").unwrap();
    until("the replica has it", || {
        replica.ask(&["DBSIZE"]) == Answer::Number(1)
    });
    until("the sentinel knows the replica", || {
        sentinel.knows_replicas(1)
    });
    let gaps = store.gaps();
    master.kill();
    until("the store has moved", || {
        store.gaps() > gaps && store.state().is_up()
    });
    assert!(
        read(&store, &key("a")).unwrap().is_some(),
        "it was replicated"
    );
    assert!(set(&store, &key("a"), b"two").unwrap() > before);
    works(&store, &key("a"));
    assert_eq!(recording.gaps().last(), Some(&store.gaps()));
    until("changes arrive", || recording.changes().len() >= 4);
    // The old master comes back. It must not be used, even through a URL that names it.
    let old = RedisStore::builder(master.url()).timeout(Duration::from_millis(600));
    master.restart();
    // The server drops its clients when it is demoted.
    until("it was demoted", || {
        let role = Talk::to(master.port).and_then(|mut talk| talk.ask(&["ROLE"]));
        matches!(role, Ok(Answer::Many(role)) if role[0] == Answer::Bytes(b"slave".to_vec()))
    });
    assert_eq!(class(old.connect_blocking()), ErrorClass::Refused);
    works(&store, &key("b"));
}

#[test]
fn sentinels_that_know_no_master_are_an_error() {
    let master = Server::start();
    let sentinel = Sentinel::of(&master);
    let stranger = RedisStore::behind_sentinels([sentinel.url()], "another");
    let error = stranger.connect_blocking().unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unavailable);
    assert!(
        error.to_string().contains("no master of that name"),
        "{error}"
    );
    // A server that is not a sentinel.
    let no_sentinel = RedisStore::behind_sentinels([master.url()], "main")
        .start()
        .unwrap();
    until("an attempt was made", || {
        matches!(no_sentinel.state(), StoreState::Down(_))
    });
}

#[test]
fn the_masters_password_is_not_the_sentinels() {
    let master = Server::with(&["--requirepass", "secret"]);
    let sentinel = Sentinel::of_secured(&master, "secret");
    let store = RedisStore::behind_sentinels([sentinel.url()], "main")
        .login("", "secret")
        .connect_blocking();
    works(&store.unwrap(), &key("a"));
    let without = RedisStore::behind_sentinels([sentinel.url()], "main").connect_blocking();
    assert_eq!(class(without), ErrorClass::Denied);
}
