//! Values that are encrypted in the file.

use std::fs;
use std::sync::Arc;

use dev_support::caches::encrypted::encrypted;
use everfresh::store::FileStore;

use crate::support::{Folder, MUCH};

#[test]
fn the_file_holds_no_plain_text_and_processes_with_the_key_share_values() {
    let folder = Folder::new();
    let store = Arc::new(FileStore::open(folder.file(), MUCH).unwrap());
    encrypted(&store, || fs::read(folder.file()).unwrap());
}
