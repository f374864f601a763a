//! A loader that returns a value of another type than the cache keeps.

use everfresh::Cache;

fn main() {
    let _lengths = Cache::<String, u64>::builder()
        .compute(|text: &String| text.len())
        .build();
}
