//! An async loader on tokio: a crowd shares one query, an unknown key is remembered, and stale
//! values bridge an outage of the database.
//!
//! `cargo run --example async_load`; in your `Cargo.toml`: `everfresh = { version = "0.1", features
//! = ["tokio"] }`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use everfresh::{Cache, Loaded, Source};
use tokio::task::JoinSet;

/// Stands for a connection pool.
#[derive(Default)]
struct Database {
    queries: AtomicU32,
    is_down: AtomicBool,
}

impl Database {
    async fn user(&self, id: u64) -> Result<Option<String>, std::io::Error> {
        self.queries.fetch_add(1, Relaxed);
        tokio::task::yield_now().await; // here it would wait for the network
        match self.is_down.load(Relaxed) {
            true => Err(std::io::ErrorKind::ConnectionRefused.into()),
            false => Ok((id < 1_000).then(|| format!("user {id}"))),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = Arc::new(Database::default());
    let users: Cache<u64, String> = Cache::builder()
        .fresh_for(Duration::from_secs(30))
        .stale_for(Duration::from_secs(600)) // the longest outage to bridge
        .load_timeout(Duration::from_secs(5))
        // The cache lends the database to each load. `None` means "not found".
        .try_load_on(database.clone(), async |db: &Arc<Database>, id: &u64| {
            db.user(*id).await
        })
        .build()?;

    let mut crowd = JoinSet::new();
    for _ in 0..1_000 {
        let users = users.clone();
        crowd.spawn(async move { users.get(&7).await.map(|user| user.len()) });
    }
    while let Some(length) = crowd.join_next().await {
        assert_eq!(length??, "user 7".len());
    }
    assert_eq!(database.queries.swap(0, Relaxed), 1);
    println!("1 000 tasks, 1 query");

    for _ in 0..3 {
        let answer = users.get(&5_000).await;
        assert!(answer.is_err_and(|error| error.is_not_found()));
    }
    assert_eq!(database.queries.swap(0, Relaxed), 1);
    println!("an unknown user, read 3 times: 1 query");

    // The database fails while a value is stale: the cache still serves the value, marked as stale.
    database.is_down.store(true, Relaxed);
    let user = Loaded::new("user 8".to_owned()).fresh_for(Duration::ZERO);
    users.insert(8, user);
    let error = users
        .refresh(&8)
        .await
        .err()
        .ok_or("the database is down")?;
    let user = users.get(&8).await?;
    assert_eq!(*user, "user 8");
    assert_eq!(user.source(), Source::AfterFailure);
    println!("{error}; the stale {user} is still served");
    Ok(())
}
