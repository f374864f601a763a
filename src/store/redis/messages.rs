//! Messages to the fleet: 33 bytes on the channel of the namespace and the database. A server
//! delivers messages without regard to databases, so the channel carries the number.
//!
//! Kind (1 byte), origin (8), hash of the key (16), epoch (8, written by the script; 0 for none).
//! Big-endian.

use redis::{PushInfo, PushKind, Value};

use super::node::Node;
use super::shared::Shared;
use crate::store::key::StoreKey;
use crate::store::lease::{Epoch, Origin};
use crate::store::{Change, ChangeKind};

/// The end of the names of all channels of a database.
pub(super) fn suffix(database: u32) -> String {
    format!(":c{database}")
}

/// The message without its epoch.
pub(super) fn message(kind: ChangeKind, origin: Origin, key: &StoreKey) -> [u8; 25] {
    let mut message = [0; 25];
    message[0] = match kind {
        ChangeKind::Refreshed => 1,
        ChangeKind::Set => 2,
        ChangeKind::Invalidated => 3,
        ChangeKind::Released => 4,
        ChangeKind::NotStored => 5,
    };
    message[1..9].copy_from_slice(&origin.0.to_be_bytes());
    message[9..].copy_from_slice(&key.hash().to_be_bytes());
    message
}

fn parse(message: &[u8]) -> Option<Change> {
    let message: &[u8; 33] = message.try_into().ok()?;
    let (kind, rest) = message.split_first()?;
    let (origin, rest) = rest.split_first_chunk()?;
    let (hash, epoch) = rest.split_first_chunk()?;
    let epoch = u64::from_be_bytes(epoch.try_into().ok()?);
    Some(Change {
        kind: match kind {
            1 => ChangeKind::Refreshed,
            2 => ChangeKind::Set,
            3 => ChangeKind::Invalidated,
            4 => ChangeKind::Released,
            5 => ChangeKind::NotStored,
            _ => return None,
        },
        epoch: match epoch {
            0 => None,
            _ => Some(Epoch::from_micros(epoch)?),
        },
        hash: u128::from_be_bytes(*hash),
        origin: Origin(u64::from_be_bytes(*origin)),
    })
}

/// Delivers a push to the listeners if it announces a change of a key that belongs to this master.
///
/// In a cluster every master forwards each published message. Each change is delivered once, from
/// the key's own master, because that master knows it first.
pub(super) fn deliver(push: &PushInfo, shared: &Shared, from: &Node) {
    if !matches!(push.kind, PushKind::Message) {
        return;
    }
    let change = match &push.data[..] {
        [Value::BulkString(channel), Value::BulkString(message)] => {
            let channel = std::str::from_utf8(channel).ok();
            let namespace =
                channel.and_then(|channel| channel.strip_suffix(&*shared.channel_suffix));
            namespace.zip(parse(message))
        }
        _ => None,
    };
    if let Some((_, change)) = &change {
        let slots = shared.slots.load();
        let owner = slots.as_ref().and_then(|slots| slots.owner(change.hash));
        if !owner.is_some_and(|owner| std::ptr::eq(&**owner, from)) {
            return;
        }
    }
    shared.counters.changed(change.is_some());
    let now = shared.clock.exact() / 1_000;
    let is_expected = |epoch| from.expects(epoch, now, now);
    if !(change.as_ref()).is_none_or(|(_, change)| change.epoch.is_none_or(is_expected)) {
        // The message came late, or the clock of the server was set.
        from.scripts.wake.notify_one();
    }
    if let Some((namespace, change)) = change {
        shared.change_listeners.notify(namespace, &change);
    }
}
