//! The records in memory, and the keys of those that differ from the file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;
use std::mem::take;

use super::{FileKey, log};
use crate::store::record::Record;

/// The memory of a record besides its payload, in bytes.
const OVERHEAD: u64 = 256;

/// The longest record: a frame has 32 bits for the length of its payload.
const LONGEST: u64 = u32::MAX as u64;

/// How many keys may differ from a file that takes no writes, before it is given up.
const MOST_UNSAVED: usize = 65_536;

/// The number of a batch of changes that are written together.
pub(super) type Batch = u64;

pub(super) struct State {
    records: HashMap<FileKey, Held>,
    /// The keys of all records, the one that was stored first at the front.
    order: BTreeMap<u64, FileKey>,
    next: u64,
    /// The memory of the records, and its bound.
    pub bytes: u64,
    most: u64,
    /// The keys that changed since the last batch began, and those of the batch being written.
    dirty: HashSet<FileKey>,
    writing: HashSet<FileKey>,
    /// Whether keys differ that neither set contains.
    pub is_given_up: bool,
    /// The batch that takes the next change, and the last one that ended.
    batch: Batch,
    ended: Batch,
    /// Why the last batch was not written.
    error: Option<ErrorKind>,
    /// Whether a caller waits for a batch that has not begun.
    pub is_awaited: bool,
    pub is_closed: bool,
}

struct Held {
    record: Record,
    serial: u64,
}

impl State {
    pub(super) fn new(most: u64) -> Self {
        State {
            records: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
            bytes: 0,
            most,
            dirty: HashSet::new(),
            writing: HashSet::new(),
            is_given_up: false,
            batch: 1,
            ended: 0,
            error: None,
            is_awaited: false,
            is_closed: false,
        }
    }

    pub(super) fn values(&self) -> u64 {
        let records = self.records.values();
        records.filter(|held| held.record.payload.is_some()).count() as u64
    }

    #[cfg(test)]
    pub(super) fn payload(&self, key: &FileKey) -> Option<&[u8]> {
        let payload = self.records.get(key)?.record.payload.as_ref()?;
        Some(&payload.bytes)
    }

    /// Runs a step on the record of a key. The batch for which the caller has to wait, if any.
    pub(super) fn step<T>(
        &mut self,
        key: FileKey,
        now: u64,
        step: impl FnOnce(&mut Record) -> T,
    ) -> (T, Option<Batch>) {
        let (mut record, serial) = self.remove(&key);
        record.expire(now);
        record.has_new_payload = false;
        let result = step(&mut record);
        if record.has_new_payload {
            // Also a removal of nothing: the file may have a payload that has expired, or that
            // could not be removed there before.
            self.dirty.insert(key.clone());
            self.put(key, record, None);
            self.is_awaited = true;
            return (result, Some(self.batch));
        }
        // Leases are not in the file, because they end with the process.
        self.put(key, record, serial);
        (result, None)
    }

    /// Stores a payload that the file contains, or removes it.
    pub(super) fn load(&mut self, key: FileKey, record: Record) {
        self.remove(&key);
        self.put(key, record, None);
    }

    /// Removes the records of a key in every namespace.
    pub(super) fn forget(&mut self, hash: u128) {
        let keys = self.records.keys().filter(|key| key.1 == hash).cloned();
        for key in keys.collect::<Vec<_>>() {
            self.remove(&key);
        }
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.order.clear();
        self.dirty.clear();
        self.bytes = 0;
    }

    fn remove(&mut self, key: &FileKey) -> (Record, Option<u64>) {
        let Some(held) = self.records.remove(key) else {
            return (Record::default(), None);
        };
        self.order.remove(&held.serial);
        self.bytes -= bytes(&held.record);
        (held.record, Some(held.serial))
    }

    /// Keeps a record, at its old place in the order or as the newest, and evicts the oldest ones.
    fn put(&mut self, key: FileKey, mut record: Record, serial: Option<u64>) {
        if bytes(&record) > self.most.min(LONGEST) {
            record.payload = None;
            self.dirty.insert(key.clone());
        }
        if record.is_empty() {
            return;
        }
        let serial = serial.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        self.bytes += bytes(&record);
        self.order.insert(serial, key.clone());
        self.records.insert(key, Held { record, serial });
        while self.bytes > self.most {
            let Some((_, oldest)) = self.order.pop_first() else {
                return;
            };
            if self.remove(&oldest).0.payload.is_some() {
                // Otherwise a restart would bring it back, also after an invalidation.
                self.dirty.insert(oldest);
            }
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.is_given_up
    }

    /// Begins a batch with all keys that changed.
    pub(super) fn begin(&mut self) -> Vec<FileKey> {
        self.is_awaited = false;
        self.batch += 1;
        self.writing = take(&mut self.dirty);
        self.writing.iter().cloned().collect()
    }

    /// Ends the batch that began last.
    pub(super) fn end(&mut self, error: Option<ErrorKind>) {
        let writing = take(&mut self.writing);
        if error.is_some() {
            self.dirty.extend(writing);
            if self.dirty.len() > MOST_UNSAVED {
                self.dirty.clear();
                self.is_given_up = true;
            }
        }
        self.ended = self.batch - 1;
        self.error = error;
    }

    /// The result of a batch, if it has ended. One that failed is written with the next one.
    pub(super) fn result(&self, batch: Batch) -> Option<Result<(), ErrorKind>> {
        let result = self.error.map_or(Ok(()), Err);
        (self.ended >= batch).then_some(result)
    }

    /// Appends the frame for the present record of a key.
    pub(super) fn frame(&self, key: &FileKey, to: &mut Vec<u8>) {
        let payload = self.records.get(key);
        log::frame(
            key,
            payload.and_then(|held| held.record.payload.as_ref()),
            to,
        );
    }

    /// Appends frames from this place in the order on, about so many bytes of them, and removes
    /// records that have expired. Returns the next place, or `None` after the last record.
    pub(super) fn frames(
        &mut self,
        from: u64,
        now: u64,
        length: usize,
        to: &mut Vec<u8>,
    ) -> Option<u64> {
        let mut expired = Vec::new();
        let mut next = None;
        for (serial, key) in self.order.range(from..) {
            if to.len() + expired.len() * 64 >= length {
                next = Some(*serial);
                break;
            }
            let Some(held) = self.records.get(key) else {
                continue;
            };
            match &held.record.payload {
                Some(payload) if payload.until > now => log::frame(key, Some(payload), to),
                _ if held.record.expires() <= now => expired.push(key.clone()),
                _ => {}
            }
        }
        for key in expired {
            self.remove(&key);
        }
        next
    }
}

fn bytes(record: &Record) -> u64 {
    let payload = record.payload.as_ref();
    OVERHEAD + payload.map_or(0, |payload| payload.bytes.len() as u64)
}
