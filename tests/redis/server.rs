//! A redis-server for one test, and the stores at it.
use std::fs;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use dev_support::redis::{Answer, Talk};
use dev_support::until;
use everfresh::store::{RedisBuilder, RedisStore, Store, StoreKey};
use everfresh::testing::store_contract::{LIMIT, StoreUnderTest};

/// A server that ends with the test. Its errors fail the test.
pub struct Server(dev_support::redis::Server);

impl Server {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server with these options, as on the command line.
    pub fn with(options: &[&str]) -> Self {
        Server(dev_support::redis::Server::with(options).unwrap())
    }

    /// A store with short limits.
    pub fn builder(&self) -> RedisBuilder {
        RedisStore::builder(self.url())
            .timeout(Duration::from_millis(300))
            .connect_timeout(Duration::from_secs(3))
            .limit(LIMIT)
    }

    pub fn store(&self) -> RedisStore {
        self.builder()
            .timeout(Duration::from_secs(10))
            .connect_blocking()
            .unwrap()
    }

    pub fn signal(&self, name: &str) {
        self.0.signal(name).unwrap();
    }

    pub fn restart(&mut self) {
        self.0.restart().unwrap();
    }

    pub fn begin_restart(&mut self) {
        self.0.begin_restart().unwrap();
    }

    /// Makes every save fail, also for root, because a folder that is not empty has the name of the
    /// file.
    pub fn block_disk(&self) {
        let _ = fs::remove_file(self.dump());
        fs::create_dir_all(self.dump().join("in the way")).unwrap();
    }

    pub fn talk(&self) -> Talk {
        self.0.talk().unwrap()
    }

    /// The number of connections, including the one that asks.
    pub fn clients(&self) -> usize {
        match self.ask(&["CLIENT", "LIST"]) {
            Answer::Bytes(list) => String::from_utf8_lossy(&list).lines().count(),
            other => panic!("{other:?}"),
        }
    }

    /// One command that must not fail.
    pub fn ask(&self, command: &[&str]) -> Answer {
        match self.0.ask(command).unwrap() {
            Answer::Error(text) => panic!("{}: {text}", command[0]),
            answer => answer,
        }
    }
}

impl Deref for Server {
    type Target = dev_support::redis::Server;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

pub fn data(key: &StoreKey) -> String {
    format!("{}:d:{{{:032x}}}", key.namespace().as_str(), key.hash())
}

pub fn lease(key: &StoreKey) -> String {
    format!("{}:l:{{{:032x}}}", key.namespace().as_str(), key.hash())
}

/// A server with one store at it.
pub struct OnServer {
    pub server: Server,
    pub store: RedisStore,
}

impl OnServer {
    pub fn new() -> Self {
        let server = Server::start();
        let store = server.store();
        OnServer { server, store }
    }

    /// A store with short limits, so that operations that hang end soon.
    pub fn hurried() -> Self {
        Self::of(Server::start())
    }

    pub fn of(server: Server) -> Self {
        let store = server.builder().connect_blocking().unwrap();
        OnServer { server, store }
    }

    /// Waits until the store can be used.
    pub fn wait_until_up(&self) {
        until("the store is up", || self.store.state().is_up());
    }

    pub fn wait_until_down(&self) {
        until("the store is down", || !self.store.state().is_up());
    }

    /// Waits until the store has noticed that its server was restarted, and can be used.
    pub fn wait_until_down_or_new(&self) {
        until("a new connection of both", || {
            self.store.stats().connections >= 4
        });
        self.wait_until_up();
    }

    fn left(&self, name: &str) -> Option<Duration> {
        match self.server.ask(&["PTTL", name]) {
            Answer::Number(left) => u64::try_from(left).ok().map(Duration::from_millis),
            other => panic!("{other:?}"),
        }
    }
}

impl StoreUnderTest for OnServer {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    fn limit(&self) -> usize {
        LIMIT
    }

    fn lose_lease(&self, key: &StoreKey) {
        self.server.ask(&["DEL", &lease(key)]);
    }

    fn lose_data(&self, key: &StoreKey) {
        self.server.ask(&["DEL", &data(key)]);
    }

    fn plant(&self, key: &StoreKey, bytes: Vec<u8>) {
        let set = self
            .server
            .talk()
            .ask(&[b"SET".as_slice(), data(key).as_bytes(), &bytes]);
        assert_eq!(set.unwrap(), Answer::Text("OK".to_owned()));
    }

    fn lease_left(&self, key: &StoreKey) -> Option<Duration> {
        self.left(&lease(key))
    }

    fn data_left(&self, key: &StoreKey) -> Option<Duration> {
        self.left(&data(key))
    }
}
