//! The contracts of every store.
use std::time::Duration;

use everfresh::store::{FileStore, Store, StoreKey};
use everfresh::testing::store_contract::{LIMIT, StoreUnderTest};

use crate::support::{Folder, MUCH};

struct InFile {
    // Dropped first: it may write until then.
    store: FileStore,
    _folder: Folder,
}

impl InFile {
    fn new() -> Self {
        let folder = Folder::new();
        let store = FileStore::open(folder.file(), MUCH).unwrap().limit(LIMIT);
        InFile {
            store,
            _folder: folder,
        }
    }
}

impl StoreUnderTest for InFile {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    fn limit(&self) -> usize {
        LIMIT
    }

    fn lose_lease(&self, key: &StoreKey) {
        self.store.lose_lease(key);
    }

    fn lose_data(&self, key: &StoreKey) {
        self.store.lose_data(key);
    }

    fn plant(&self, key: &StoreKey, bytes: Vec<u8>) {
        self.store.plant(key, bytes);
    }

    fn lease_left(&self, key: &StoreKey) -> Option<Duration> {
        self.store.lease_left(key)
    }

    fn data_left(&self, key: &StoreKey) -> Option<Duration> {
        self.store.data_left(key)
    }
}

everfresh::store_contract_tests!(InFile::new());
