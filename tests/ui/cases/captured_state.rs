//! An async closure that captures a client: its future borrows it from the closure.

use everfresh::Cache;

struct Db;

impl Db {
    async fn find(&self, id: u64) -> Result<Option<String>, std::io::Error> {
        Ok(Some(format!("user {id}")))
    }
}

fn main() {
    let db = Db;
    let _users: Result<Cache<u64, String>, _> = Cache::builder()
        .try_load(async move |id: &u64| db.find(*id).await)
        .build();
}
