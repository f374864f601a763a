//! Values that are encrypted in the store in memory.

use std::sync::Arc;

use dev_support::caches::encrypted::{encrypted, names};
use everfresh::store::{MemoryStore, Store};
use futures_lite::future::block_on;

#[test]
fn the_store_holds_no_plain_text_and_processes_with_the_key_share_values() {
    let store = Arc::new(MemoryStore::new());
    encrypted(&store, || {
        let payloads = block_on(store.read(&names()));
        payloads
            .into_iter()
            .flat_map(|it| it.unwrap())
            .flatten()
            .collect()
    });
}
