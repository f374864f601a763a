//! The encoding of names, arguments and replies.

use std::time::Duration;

use redis::Value;

use crate::store::key::StoreKey;
use crate::store::lease::{Acquired, Epoch, Stored, Token};

pub(super) fn data(key: &StoreKey) -> String {
    let mut name = String::new();
    write_data(&mut name, key);
    name
}

/// Writes the name into a buffer that is reused.
pub(super) fn write_data(name: &mut String, key: &StoreKey) {
    write(name, key, ":d:{");
}

pub(super) fn lease(key: &StoreKey) -> String {
    let mut name = String::new();
    write(&mut name, key, ":l:{");
    name
}

/// Written without `format!`, which takes ten times as long, because every key that is read needs a
/// name.
fn write(name: &mut String, key: &StoreKey, kind: &str) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let namespace = key.namespace().as_str();
    name.clear();
    name.reserve(namespace.len() + kind.len() + 33);
    name.push_str(namespace);
    name.push_str(kind);
    for byte in key.hash().to_be_bytes() {
        name.push(char::from(DIGITS[usize::from(byte >> 4)]));
        name.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    name.push('}');
}

pub(super) fn token_bytes(token: Token) -> [u8; 16] {
    (u128::from(token.origin.0) << 64 | u128::from(token.serial)).to_be_bytes()
}

/// Milliseconds for the server: at least 1, at most a century.
pub(super) fn millis(duration: Duration) -> String {
    const CENTURY: u128 = 3_155_760_000_000;
    duration.as_millis().clamp(1, CENTURY).to_string()
}

pub(super) fn seen(epoch: Option<Epoch>) -> String {
    epoch.map_or(0, Epoch::micros).to_string()
}

pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    }
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

/// The present and the previous replication id of a server, from its `INFO replication`.
pub(super) fn replication_ids(reply: &Value) -> Option<(String, String)> {
    let text = text(reply)?;
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(value.to_owned())
    };
    field("master_replid:").zip(field("master_replid2:"))
}

/// The reply of a script that changes the payload, or refuses to.
pub(super) fn stored(value: Value) -> Option<Stored> {
    match value {
        Value::Nil => Some(Stored::Refused),
        value => {
            let epoch = number(&value).and_then(Epoch::from_micros)?;
            Some(Stored::Yes { epoch })
        }
    }
}

pub(super) fn yes(value: Value) -> Option<bool> {
    number(&value).map(|number| number != 0)
}

/// The answer to a request for a lease; `None` inside if a payload with another epoch is stored.
pub(super) fn acquired(value: Value) -> Option<Option<Acquired>> {
    let Value::Array(parts) = value else {
        return None;
    };
    let [kind, number_of] = &parts[..] else {
        return None;
    };
    let number_of = number(number_of)?;
    let left = Duration::from_millis(number_of);
    Some(match number(kind)? {
        0 => Some(Acquired::Granted {
            base: Epoch::from_micros(number_of)?,
        }),
        1 => Some(Acquired::Held { left }),
        2 => Some(Acquired::Cooling { left }),
        3 => None,
        _ => return None,
    })
}
