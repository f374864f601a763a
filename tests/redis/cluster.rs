//! A cluster of three masters: all contracts, the death of a master, a slot that moves.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use dev_support::redis::{Answer, Talk, free_port};
use dev_support::until;
use everfresh::store::{ErrorClass, RedisBuilder, RedisStore, Store, StoreKey};
use everfresh::testing::store_contract::{LIMIT, Recording, StoreUnderTest, key, namespace};

use crate::faults::{class, read, set, works};
use crate::server::{Server, data, lease};

const SLOTS: usize = 16_384;

/// Three masters, with or without a replica of each.
struct Cluster {
    masters: Vec<Server>,
    replicas: Vec<Server>,
}

/// A node that declares another one failed after `patience`.
fn node(patience: Duration) -> Server {
    let patience = patience.as_millis().to_string();
    let bus = free_port().unwrap().to_string();
    let mut options = vec!["--cluster-enabled", "yes", "--cluster-port", &bus];
    options.extend(["--cluster-node-timeout", &patience]);
    options.extend(["--cluster-require-full-coverage", "no"]);
    options.extend(["--cluster-allow-replica-migration", "no"]);
    Server::with(&options)
}

fn text(answer: Answer) -> String {
    match answer {
        Answer::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
        Answer::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

fn name(server: &Server) -> String {
    text(server.ask(&["CLUSTER", "MYID"]))
}

/// Whether one of the nodes knows the complete cluster.
fn knows(server: &Server, nodes: usize) -> bool {
    let info = text(server.ask(&["CLUSTER", "INFO"]));
    let assigned = "cluster_slots_ok:16384";
    info.contains("cluster_state:ok")
        && info.contains(assigned)
        && info.contains(&format!("cluster_known_nodes:{nodes}\r"))
}

impl Cluster {
    fn new(with_replicas: bool) -> Self {
        // Without replicas no node must be declared failed, however slow the machine is.
        let patience = Duration::from_secs(if with_replicas { 2 } else { 60 });
        let masters: Vec<_> = (0..3).map(|_| node(patience)).collect();
        let replicas: Vec<_> = (0..if with_replicas { 3 } else { 0 })
            .map(|_| node(patience))
            .collect();
        for (place, master) in masters.iter().enumerate() {
            let first = (SLOTS * place / 3).to_string();
            let last = (SLOTS * (place + 1) / 3 - 1).to_string();
            master.ask(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
        }
        let all = || masters.iter().chain(&replicas);
        for (place, server) in all().enumerate() {
            server.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(place + 1).to_string()]);
            let bus = match server.ask(&["CONFIG", "GET", "cluster-port"]) {
                Answer::Many(pair) => text(pair[1].clone()),
                other => panic!("{other:?}"),
            };
            let port = server.port.to_string();
            masters[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        let count = all().count();
        until("the nodes know each other", || {
            all().all(|server| knows(server, count))
        });
        for (master, replica) in masters.iter().zip(&replicas) {
            let master = name(master);
            until("it is a replica", || {
                let asked = ["CLUSTER", "REPLICATE", &master];
                replica.talk().ask(&asked).unwrap() == Answer::Text("OK".to_owned())
            });
            until("the replica has its data", || {
                text(replica.ask(&["INFO", "replication"])).contains("master_link_status:up")
            });
        }
        until("the masters know their replicas", || {
            let nodes = all().map(|server| text(server.ask(&["CLUSTER", "NODES"])));
            nodes
                .map(|nodes| nodes.matches("slave ").count())
                .all(|slaves| slaves == replicas.len())
        });
        Cluster { masters, replicas }
    }

    fn builder(&self) -> RedisBuilder {
        // The first of the URLs leads nowhere.
        let dead = format!("redis://127.0.0.1:{}", free_port().unwrap());
        RedisStore::cluster([dead, self.masters[1].url()]).limit(LIMIT)
    }

    /// The index of the master that has a key.
    fn owner(&self, key: &StoreKey) -> usize {
        let slot = slot_number(&self.masters[0], key);
        (0..3)
            .find(|place| (SLOTS * place / 3..SLOTS * (place + 1) / 3).contains(&slot))
            .unwrap()
    }

    /// A key that this master has.
    fn key_at(&self, place: usize) -> StoreKey {
        let mut keys = (0..).map(|number: u32| key(&number.to_string()));
        keys.find(|key| self.owner(key) == place).unwrap()
    }
}

fn slot_number(server: &Server, key: &StoreKey) -> usize {
    match server.ask(&["CLUSTER", "KEYSLOT", &data(key)]) {
        Answer::Number(slot) => slot.try_into().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The cluster that the contract tests share. They run one at a time.
static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
static TURN: Mutex<()> = Mutex::new(());

struct OnCluster {
    store: RedisStore,
    cluster: Arc<Cluster>,
    // The last field, because the turn ends after the other fields are dropped.
    _turn: MutexGuard<'static, ()>,
}

impl OnCluster {
    fn new() -> Self {
        let cluster = {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            shared.upgrade().unwrap_or_else(|| {
                let cluster = Arc::new(Cluster::new(false));
                *shared = Arc::downgrade(&cluster);
                cluster
            })
        };
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        for master in &cluster.masters {
            master.ask(&["FLUSHALL"]);
        }
        let builder = cluster.builder().timeout(Duration::from_secs(10));
        OnCluster {
            store: builder.connect_blocking().unwrap(),
            cluster,
            _turn: turn,
        }
    }

    fn at(&self, key: &StoreKey) -> &Server {
        &self.cluster.masters[self.cluster.owner(key)]
    }

    fn left(&self, key: &StoreKey, name: &str) -> Option<Duration> {
        match self.at(key).ask(&["PTTL", name]) {
            Answer::Number(left) => u64::try_from(left).ok().map(Duration::from_millis),
            other => panic!("{other:?}"),
        }
    }
}

impl StoreUnderTest for OnCluster {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    fn limit(&self) -> usize {
        LIMIT
    }

    fn lose_lease(&self, key: &StoreKey) {
        self.at(key).ask(&["DEL", &lease(key)]);
    }

    fn lose_data(&self, key: &StoreKey) {
        self.at(key).ask(&["DEL", &data(key)]);
    }

    fn plant(&self, key: &StoreKey, bytes: Vec<u8>) {
        let name = data(key);
        let set = self
            .at(key)
            .talk()
            .ask(&[b"SET".as_slice(), name.as_bytes(), &bytes]);
        assert_eq!(set.unwrap(), Answer::Text("OK".to_owned()));
    }

    fn lease_left(&self, key: &StoreKey) -> Option<Duration> {
        self.left(key, &lease(key))
    }

    fn data_left(&self, key: &StoreKey) -> Option<Duration> {
        self.left(key, &data(key))
    }
}

everfresh::store_contract_tests!(OnCluster::new());

fn hurried(cluster: &Cluster) -> RedisStore {
    let builder = cluster.builder().timeout(Duration::from_millis(600));
    let store = builder.start().unwrap();
    until("the store is up", || store.state().is_up());
    store
}

/// Whether an operation may fail with this class while the cluster changes.
fn passes(class: ErrorClass) -> bool {
    use ErrorClass::{Busy, TimedOut, Unavailable};
    [Busy, TimedOut, Unavailable].contains(&class)
}

#[test]
fn a_masters_death_is_survived() {
    let mut cluster = Cluster::new(true);
    let store = hurried(&cluster);
    let recording = Recording::of(&store, &namespace());
    let (lost, kept) = (cluster.key_at(0), cluster.key_at(1));
    let before = set(&store, &lost, b"one").unwrap();
    until("the replica has it", || {
        cluster.replicas[0].ask(&["DBSIZE"]) == Answer::Number(1)
    });
    recording.wait_for(1);
    let gaps = store.gaps();
    cluster.masters[0].kill();
    if let Err(error) = set(&store, &lost, b"two") {
        assert!(passes(error.class()), "{error:?}");
    }
    works(&store, &kept);
    until("the store has moved", || {
        store.gaps() > gaps && store.state().is_up()
    });
    assert!(read(&store, &lost).unwrap().is_some(), "it was replicated");
    assert!(set(&store, &lost, b"three").unwrap() > before);
    assert_eq!(recording.gaps().last(), Some(&store.gaps()));
    let before = recording.changes().len();
    works(&store, &lost);
    until("changes arrive", || recording.changes().len() >= before + 2);
    assert!(
        recording
            .changes()
            .iter()
            .any(|change| change.hash == lost.hash())
    );
    // The old master comes back as a replica, and is not used.
    cluster.masters[0].restart();
    until("it was demoted", || {
        text(cluster.masters[0].ask(&["INFO", "replication"])).contains("role:slave")
    });
    works(&store, &lost);
    works(&store, &kept);
}

#[test]
fn a_slot_moves() {
    let cluster = Cluster::new(false);
    let store = hurried(&cluster);
    let recording = Recording::of(&store, &namespace());
    let moved = cluster.key_at(0);
    let before = set(&store, &moved, b"one").unwrap();
    recording.wait_for(1);
    let gaps = store.gaps();
    let [from, to] = [&cluster.masters[0], &cluster.masters[1]];
    let slot = slot_number(from, &moved).to_string();
    to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &name(from)]);
    from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &name(to)]);
    // A payload that has not moved yet can be read. A lease cannot be taken on either master.
    assert!(read(&store, &moved).unwrap().is_some());
    assert_eq!(class(set(&store, &moved, b"no")), ErrorClass::Busy);
    let port = to.port.to_string();
    from.ask(&["MIGRATE", "127.0.0.1", &port, &data(&moved), "0", "5000"]);
    assert_eq!(class(read(&store, &moved)), ErrorClass::Busy);
    for server in [to, from, &cluster.masters[2]] {
        server.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &name(to)]);
    }
    until("the store follows", || read(&store, &moved).is_ok());
    until("the store reconnected", || store.gaps() > gaps);
    assert!(read(&store, &moved).unwrap().is_some());
    assert!(set(&store, &moved, b"two").unwrap() > before);
    works(&store, &moved);
    // Each change arrives once, and the last of them is the removal.
    let last = recording.wait_for(4);
    assert_eq!(last.len(), 4, "{last:?}");
    assert_eq!(recording.gaps().last(), Some(&store.gaps()));
}

#[test]
fn keys_of_all_masters_are_read_together() {
    let cluster = Cluster::new(false);
    let store = hurried(&cluster);
    let keys: Vec<_> = (0..50)
        .map(|number: u32| key(&number.to_string()))
        .collect();
    for place in 0..3 {
        assert!(keys.iter().any(|key| cluster.owner(key) == place));
    }
    for key in &keys {
        set(&store, key, b"value").unwrap();
    }
    let answers = futures_lite::future::block_on(store.read(&keys));
    for (key, answer) in keys.iter().zip(answers) {
        let payload = answer.unwrap().unwrap();
        assert_eq!(
            everfresh::testing::store_contract::value(key, &payload),
            b"value"
        );
    }
}

#[test]
fn a_server_outside_a_cluster_is_an_error() {
    let server = Server::start();
    let error = RedisStore::cluster([server.url()]).connect_blocking();
    assert_eq!(class(error), ErrorClass::Setting);
    let database = RedisStore::cluster([server.url()]).database(1).start();
    assert_eq!(class(database), ErrorClass::Setting);
    let none: [String; 0] = [];
    assert_eq!(
        class(RedisStore::cluster(none).start()),
        ErrorClass::Setting
    );
    // A cluster whose slots no node has.
    let lonely = node(Duration::from_secs(60));
    let error = RedisStore::cluster([lonely.url()]).connect_blocking();
    assert_eq!(class(error), ErrorClass::Busy);
    assert!(Talk::to(lonely.port).is_ok());
}
