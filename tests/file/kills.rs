//! A process that is killed at any moment, and a disk that is full. The child is this test program
//! again; it says which operations have ended.
use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use everfresh::store::{Birth, ErrorClass, FileStore, Origin, Store, StoreError, StoreKey};
use everfresh::testing::store_contract::{HOUR, key, payload, raw};
use futures_lite::future::block_on;

use crate::support::{Folder, MUCH};

const FILE: &str = "EVERFRESH_TEST_FILE";
const FROM: &str = "EVERFRESH_TEST_FROM";
const KEYS: u64 = 16;

/// The key of an operation.
fn key_of(operation: u64) -> StoreKey {
    key(&(operation * 7 % KEYS).to_string())
}

/// What an operation stores; `None` if it removes.
fn value_of(operation: u64) -> Option<Vec<u8>> {
    let bytes = operation
        .to_be_bytes()
        .repeat((operation % 4_000) as usize + 1);
    (operation % 5 != 4).then_some(bytes)
}

fn run(store: &FileStore, operation: u64) -> Result<(), StoreError> {
    let key = key_of(operation);
    block_on(async {
        match value_of(operation) {
            Some(value) => {
                store
                    .set(&key, payload(&key, &value), HOUR, Birth::latest(Origin(1)))
                    .await
            }
            None => store.invalidate(&key, Birth::latest(Origin(1))).await,
        }
    })?;
    Ok(())
}

fn read(store: &FileStore, key: &StoreKey) -> Option<Vec<u8>> {
    let payload = block_on(store.read(std::slice::from_ref(key))).remove(0);
    let payload = payload.unwrap()?;
    Some(raw().open(key, &payload).expect("a whole payload").value)
}

/// Not a test by itself: the process that is killed.
#[test]
#[ignore = "a child of other tests"]
fn a_child_that_writes() {
    let store = FileStore::open(env::var(FILE).unwrap(), MUCH).unwrap();
    let from: u64 = env::var(FROM).unwrap().parse().unwrap();
    let mut out = std::io::stdout();
    for operation in from..u64::MAX {
        let result = run(&store, operation);
        let word = match result {
            Ok(()) => "ended",
            Err(error) if error.class() == ErrorClass::Refused => "refused",
            Err(error) => panic!("{error}"),
        };
        // A caller that is killed has heard this; so has its parent.
        writeln!(out, "\n{word} {operation}").unwrap();
        out.flush().unwrap();
        if word == "refused" {
            // The store goes on in memory.
            assert_eq!(read(&store, &key_of(operation)), value_of(operation));
            return;
        }
    }
}

/// Starts the child, through a shell that sets a limit first, if there is one.
fn child(file: &Path, from: u64, limit: &str) -> Child {
    let script = format!("{limit} exec \"$0\" \"$@\"");
    Command::new("sh")
        .args(["-c", &script])
        .arg(env::current_exe().unwrap())
        .args(["kills::a_child_that_writes", "--exact", "--ignored"])
        .args(["--nocapture", "--test-threads=1"])
        .env(FILE, file)
        .env(FROM, from.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The operation that a line of the child names.
fn operation(line: &str, word: &str) -> Option<u64> {
    line.strip_prefix(word)?.trim().parse().ok()
}

/// The number of kills: more by `EVERFRESH_KILLS`.
fn kills() -> u64 {
    let kills = env::var("EVERFRESH_KILLS").ok();
    kills.map_or(30, |kills| kills.parse().unwrap())
}

#[test]
fn a_killed_process_leaves_the_old_or_the_new_value() {
    let folder = Folder::new();
    let mut present: HashMap<StoreKey, Option<Vec<u8>>> = HashMap::new();
    let (mut from, mut torn, mut in_progress) = (0, 0, 0);
    for round in 0..kills() {
        let mut child = child(&folder.file(), from, "");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ended = |present: &mut HashMap<_, _>, from: &mut u64| {
            let Some(line) = lines.next() else {
                return false;
            };
            if let Some(number) = operation(&line.unwrap(), "ended ") {
                present.insert(key_of(number), value_of(number));
                *from = number + 1;
            }
            true
        };
        // A moment that no pattern of writes follows: a number of operations, then some time.
        let first = from;
        let wanted = first + round * 37 % 211;
        while from < wanted {
            assert!(ended(&mut present, &mut from), "the child ended by itself");
        }
        let moment = Instant::now() + Duration::from_micros(round * 7_919 % 3_001);
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while ended(&mut present, &mut from) {}

        // The operation after the last one that ended may have happened or not.
        let store = FileStore::open(folder.file(), MUCH).unwrap();
        let recovery = store.recovery();
        assert_eq!(recovery.damaged, 0, "round {round}: {recovery:?}");
        torn += u64::from(recovery.torn > 0);
        for number in 0..KEYS {
            let key = key(&number.to_string());
            let found = read(&store, &key);
            let old = present.get(&key).cloned().flatten();
            if found != old {
                assert!(
                    key == key_of(from) && found == value_of(from),
                    "round {round}"
                );
                in_progress += 1;
                present.insert(key, found);
            }
        }
        from += 1;
    }
    println!(
        "{} kills, {from} writes: {torn} torn, {in_progress} new",
        kills()
    );
}

#[test]
fn a_disk_that_is_full_refuses_writes_and_loses_nothing() {
    let folder = Folder::new();
    // The limit on the length of a file, in blocks of 512 or 1024 bytes.
    let mut child = child(&folder.file(), 0, "trap '' XFSZ; ulimit -f 200;");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut present = HashMap::new();
    let mut refused = false;
    for line in lines.map(Result::unwrap) {
        if let Some(number) = operation(&line, "ended ") {
            present.insert(key_of(number), value_of(number));
        }
        refused |= operation(&line, "refused ").is_some();
    }
    assert!(child.wait().unwrap().success() && refused);
    let store = FileStore::open(folder.file(), MUCH).unwrap();
    assert_eq!(store.recovery().damaged, 0);
    for (key, value) in present {
        // The refused one may be in the file: its key may have changed after all.
        assert_eq!(read(&store, &key), value);
    }
}
