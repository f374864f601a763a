//! An async closure that is lent one thing and captures another.

use everfresh::Cache;

struct Db;

impl Db {
    async fn page(&self, path: &str) -> String {
        format!("the page {path}")
    }
}

fn main() {
    let (db, base) = (Db, String::from("/base"));
    let _pages: Result<Cache<String, String>, _> = Cache::builder()
        .load_on(db, async move |db: &Db, path: &String| {
            db.page(&format!("{base}/{path}")).await
        })
        .build();
}
