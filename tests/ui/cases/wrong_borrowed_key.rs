//! A read by a borrowed form of keys that are numbers.

use everfresh::Cache;

fn main() {
    let squares: Cache<u64, u64> = Cache::builder().compute(|n: &u64| n * n).build().unwrap();
    let _ = squares.get_blocking("7");
}
