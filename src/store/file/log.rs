//! The layout of the file: eight bytes that name it, then one frame for each change.
//!
//! ```text
//! at  bytes
//!  0    8   checksum: xxh3-64 of the 40 bytes after it, seeded with the place in the file
//!  8    8   checksum: xxh3-64 of the name and the payload
//! 16    8   the payload expires, microseconds since 1970
//! 24   16   hash of the key
//! 40    4   length of the payload
//! 44    1   length of the name of the namespace
//! 45    1   1: the payload is stored; 0: it is removed
//! 46    2   zero
//! 48        the name, then the payload
//! ```
//!
//! Numbers are big-endian. The last frame of a key counts. A process that is killed leaves a prefix
//! of what it wrote, so a frame that the end of the file cuts is *torn*: the change did not happen.
//! Zeros up to the end count as torn too, because some file systems leave them after a power
//! failure. Anything else that a checksum refuses is *damaged*. The head has a checksum of its own,
//! so that a damaged length is not taken for a torn frame. Its seed refuses a frame that was
//! written at another place.
//!
//! A damaged frame may have been the removal of an earlier one. So the payload of its key is not
//! used. If the head is damaged, the key is unknown, and nothing of the file is used.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Write};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::FileKey;
use crate::store::key::Namespace;
use crate::store::record::Payload;

/// The first bytes of a file: a name and the version of the layout.
pub(super) const MAGIC: &[u8; 8] = b"EVFFILE\x01";

const HEAD: usize = 48;

/// Appends a frame to a buffer, without the checksum of its head.
pub(super) fn frame(key: &FileKey, payload: Option<&Payload>, to: &mut Vec<u8>) {
    let (namespace, hash) = key;
    let name = namespace.as_str().as_bytes();
    let (bytes, until) = payload.map_or((&[][..], 0), |stored| (&stored.bytes, stored.until));
    let at = to.len();
    to.extend_from_slice(&[0; 16]);
    to.extend_from_slice(&until.to_be_bytes());
    to.extend_from_slice(&hash.to_be_bytes());
    to.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    to.extend_from_slice(&[name.len() as u8, u8::from(payload.is_some()), 0, 0]);
    to.extend_from_slice(name);
    to.extend_from_slice(bytes);
    let body = xxh3_64(&to[at + HEAD..]);
    to[at + 8..at + 16].copy_from_slice(&body.to_be_bytes());
}

/// Writes the checksums of the heads of frames that come to lie at this place in a file.
pub(super) fn seal(mut frames: &mut [u8], mut at: u64) {
    while let Some((head, rest)) = frames.split_first_chunk_mut::<HEAD>() {
        let sum = xxh3_64_with_seed(&head[8..], at);
        head[..8].copy_from_slice(&sum.to_be_bytes());
        let body = body(head);
        at += HEAD as u64 + body;
        frames = rest.get_mut(body as usize..).unwrap_or_default();
    }
}

/// The length of what follows a head.
fn body(head: &[u8; HEAD]) -> u64 {
    u64::from(head[44]) + (word(head, 40) >> 32)
}

/// A part of a file that was read.
pub(super) enum Part {
    Stored(FileKey, Payload),
    Removed(FileKey),
    /// A frame of the key with this hash, so many bytes long, was refused.
    Damaged(u128, u64),
}

/// Where the reading of a file ended.
pub(super) enum End {
    /// At the end of the file.
    Whole,
    /// At a frame that begins here, and that the end of the file cuts.
    Torn(u64),
    /// At a head that is damaged.
    Damaged,
}

/// Reads the frames of a file that is positioned after its first bytes, and is this long.
pub(super) fn read(file: impl Read, length: u64, mut each: impl FnMut(Part)) -> io::Result<End> {
    let mut names = HashMap::new();
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut at = MAGIC.len() as u64;
    while at < length {
        let left = length - at;
        let mut head = [0; HEAD];
        if left < HEAD as u64 {
            return Ok(End::Torn(at));
        }
        file.read_exact(&mut head)?;
        if word(&head, 0) != xxh3_64_with_seed(&head[8..], at) {
            return match head == [0; HEAD] && is_zero(&mut file)? {
                true => Ok(End::Torn(at)),
                false => Ok(End::Damaged),
            };
        }
        let body = body(&head);
        if left - (HEAD as u64) < body {
            return Ok(End::Torn(at));
        }
        let Ok(size) = usize::try_from(body) else {
            // More than this machine has addresses for.
            return Ok(End::Damaged);
        };
        let taken = HEAD as u64 + body;
        at += taken;
        let mut bytes = vec![0; size];
        file.read_exact(&mut bytes)?;
        let hash = u128::from(word(&head, 24)) << 64 | u128::from(word(&head, 32));
        if word(&head, 8) != xxh3_64(&bytes) {
            each(Part::Damaged(hash, taken));
            continue;
        }
        let payload = bytes.split_off(usize::from(head[44]));
        let Some(namespace) = namespace(&mut names, bytes) else {
            each(Part::Damaged(hash, taken));
            continue;
        };
        let until = word(&head, 16);
        each(match head[45] {
            0 => Part::Removed((namespace, hash)),
            _ => Part::Stored(
                (namespace, hash),
                Payload {
                    bytes: payload,
                    until,
                },
            ),
        });
    }
    Ok(End::Whole)
}

/// The namespace of this name. All keys of one namespace share it.
fn namespace(names: &mut HashMap<Vec<u8>, Namespace>, name: Vec<u8>) -> Option<Namespace> {
    if let Some(namespace) = names.get(&name) {
        return Some(namespace.clone());
    }
    let namespace = Namespace::new(std::str::from_utf8(&name).ok()?).ok()?;
    names.insert(name, namespace.clone());
    Some(namespace)
}

fn word(head: &[u8; HEAD], at: usize) -> u64 {
    let bytes = head[at..].iter().take(8);
    bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn is_zero(file: &mut impl Read) -> io::Result<bool> {
    let mut buffer = [0; 1 << 12];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(length) if buffer[..length].iter().all(|byte| *byte == 0) => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file to which frames are appended.
pub(super) struct Log {
    /// Opened for appending, or written by this alone.
    file: File,
    /// The length up to which every frame is whole.
    pub length: u64,
    /// Whether bytes may lie past the length.
    has_tail: bool,
}

impl Log {
    pub(super) fn new(file: File, length: u64, has_tail: bool) -> Self {
        Log {
            file,
            length,
            has_tail,
        }
    }

    /// Appends whole frames, all or none of them.
    pub(super) fn append(&mut self, frames: &mut [u8]) -> io::Result<()> {
        self.cut()?;
        seal(frames, self.length);
        self.has_tail = true;
        self.file.write_all(frames)?;
        self.has_tail = false;
        self.length += frames.len() as u64;
        Ok(())
    }

    /// Removes what an append that failed has left.
    pub(super) fn cut(&mut self) -> io::Result<()> {
        if self.has_tail {
            self.file.set_len(self.length)?;
            self.has_tail = false;
        }
        Ok(())
    }

    /// Removes every frame.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.length = MAGIC.len() as u64;
        self.has_tail = true;
        self.cut()
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
