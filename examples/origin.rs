//! An origin that two caches share, with a limit on its calls and a breaker; and a token that is
//! replaced once, however many callers find out that it is bad.
//!
//! `cargo run --example origin`; in your `Cargo.toml`: `everfresh = { version = "0.1", features =
//! ["tokio"] }`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use everfresh::{Breaker, BreakerState, Budget, Cache};
use tokio::task::JoinSet;

/// Stands for a server that allows four calls at once.
#[derive(Default)]
struct Server {
    calls: AtomicU32,
    now: AtomicU32,
    most: AtomicU32,
    is_down: AtomicBool,
}

impl Server {
    async fn call(&self, path: String) -> Result<String, std::io::Error> {
        self.calls.fetch_add(1, Relaxed);
        self.most
            .fetch_max(self.now.fetch_add(1, Relaxed) + 1, Relaxed);
        tokio::time::sleep(Duration::from_millis(1)).await; // here it would wait for the network
        self.now.fetch_sub(1, Relaxed);
        match self.is_down.load(Relaxed) {
            true => Err(std::io::ErrorKind::ConnectionRefused.into()),
            false => Ok(path),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Arc::new(Server::default());
    let budget = Budget::builder()
        .max_loads(4)
        .breaker(
            Breaker::new()
                .of_last(10)
                .probe_every(Duration::from_secs(30)),
        )
        .build()?;
    let users: Cache<u64, String> = Cache::builder()
        .budget(&budget)
        .try_load_on(server.clone(), async |server: &Arc<Server>, id: &u64| {
            server.call(format!("users/{id}")).await
        })
        .build()?;
    let orders: Cache<u64, String> = Cache::builder()
        .budget(&budget)
        .try_load_on(server.clone(), async |server: &Arc<Server>, id: &u64| {
            server.call(format!("orders/{id}")).await
        })
        .build()?;

    let mut crowd = JoinSet::new();
    for id in 0..100 {
        let (users, orders) = (users.clone(), orders.clone());
        crowd.spawn(async move { users.get(&id).await.is_ok() && orders.get(&id).await.is_ok() });
    }
    assert!(crowd.join_all().await.into_iter().all(|loaded| loaded));
    assert_eq!(server.calls.swap(0, Relaxed), 200);
    assert!(server.most.load(Relaxed) <= 4);
    println!(
        "100 tasks, 200 calls, at most {} at once",
        server.most.load(Relaxed)
    );

    // After five failures the breaker opens for both caches. Later callers get their error at once.
    server.is_down.store(true, Relaxed);
    for id in 1_000..1_050 {
        assert!(orders.get(&id).await.is_err());
    }
    assert_eq!(orders.stats().breaker, BreakerState::Open);
    let error = users.get(&1_000).await.err().ok_or("the server is down")?;
    assert!(error.is_unavailable());
    assert_eq!(*users.get(&7).await?, "users/7");
    println!(
        "{} calls while it is down; {error}",
        server.calls.load(Relaxed)
    );

    // Ten callers find out that a token is bad. One new token is made.
    let issued = AtomicU32::new(0);
    let tokens: Cache<(), u32> = Cache::builder()
        .compute(move |&()| issued.fetch_add(1, Relaxed))
        .build()?;
    let bad = tokens.get(&()).await?;
    for _ in 0..10 {
        assert_eq!(*tokens.refresh_if(&bad).await?, 1);
    }
    println!("token {} was refused ten times: 1 new token", *bad);
    Ok(())
}
