//! A shop shows pages of 50 products from a table in SQLite. The cache asks for the products of a
//! page with one query, and refreshes them by the hundred.
//!
//! `cargo run -p batches` prints how many queries the pages cost, and ends after a second.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use everfresh::{Cache, Source};
use rusqlite::{Connection, params_from_iter};

const PAGES: usize = 40;
const IDS_OF_A_PAGE: usize = 50;
const PRODUCTS: u64 = 5_000;

/// How long a product is fresh.
const FRESH: Duration = Duration::from_millis(500);

/// A table of products, and the number of queries so far.
struct Shop {
    connection: Mutex<Connection>,
    queries: AtomicUsize,
}

impl Shop {
    fn open() -> rusqlite::Result<Shop> {
        let connection = Connection::open_in_memory()?;
        connection.execute_batch(&format!(
            "CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
             WITH RECURSIVE ids(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM ids LIMIT {PRODUCTS})
             INSERT INTO product SELECT id, 'product ' || id FROM ids;"
        ))?;
        Ok(Shop {
            connection: Mutex::new(connection),
            queries: AtomicUsize::new(0),
        })
    }

    /// The names of the products that exist, with one query.
    fn names(&self, ids: &[u64]) -> rusqlite::Result<Vec<(u64, String)>> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        let marks = vec!["?"; ids.len()].join(", ");
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(|panicked| panicked.into_inner());
        let query = format!("SELECT id, name FROM product WHERE id IN ({marks})");
        let mut query = connection.prepare_cached(&query)?;
        let rows = query.query_map(params_from_iter(ids), |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    }

    fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }
}

/// Pages with 1 649 different products: some are on many pages, most on one.
fn pages() -> Vec<Vec<u64>> {
    let mut pages = Vec::new();
    for page in 0..PAGES as u64 {
        // The best sellers are on each page, and pages overlap.
        let best = 0..9;
        let rest = (0..IDS_OF_A_PAGE as u64 - 9).map(|at| 9 + page * 41 + at);
        pages.push(best.chain(rest).collect());
    }
    pages
}

/// The queries for all pages of an empty cache, and for the refreshes of all products.
fn run() -> Result<(usize, usize), Box<dyn Error>> {
    let shop = Arc::new(Shop::open()?);
    let origin = shop.clone();
    let names: Cache<u64, String> = Cache::builder()
        .fresh_for(FRESH)
        .stale_for(Duration::from_secs(600))
        .beta(0.0)
        .batch(100, Duration::from_millis(500))
        .compute_many(move |ids: &[u64]| origin.names(ids))
        .build()?;
    let pages = pages();

    // Each page is one query, or none.
    for page in &pages {
        for name in names.get_many_blocking(page) {
            name?;
        }
    }
    let (cold, loaded) = (shop.queries(), names.len());
    let keys = names.stats().loads;

    // Some time later every product is stale. All pages are shown at once, and the refreshes share
    // queries.
    thread::sleep(FRESH + Duration::from_millis(100));
    let begun = Instant::now();
    for page in &pages {
        for name in names.get_many_blocking(page) {
            assert_ne!(name?.source(), Source::Loaded, "a reader waited");
        }
    }
    let read = begun.elapsed();
    while names.stats().published < 2 * keys {
        thread::sleep(Duration::from_millis(5));
    }
    let refreshes = shop.queries() - cold;

    println!("{PAGES} pages of {IDS_OF_A_PAGE} ids, {loaded} different products");
    println!("cold:      {cold} queries; one for each product would be {loaded}");
    println!("refreshes: {refreshes} queries; all stale pages were shown in {read:?}");
    println!("{}", names.stats());
    Ok((cold, refreshes))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (cold, refreshes) = run()?;
    assert!(
        cold <= 40 && refreshes <= 20,
        "{cold} and {refreshes} queries"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn pages_cost_a_query_each_and_their_refreshes_half_as_many() {
        let (cold, refreshes) = super::run().unwrap();
        assert!(cold <= 40, "{cold} queries");
        assert!(refreshes <= 20, "{refreshes} queries");
    }

    #[test]
    fn the_pages_have_1649_products() {
        let mut ids: Vec<u64> = super::pages().concat();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 1_649);
    }
}
