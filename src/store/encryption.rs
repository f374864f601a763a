//! The encryption of encoded values: XChaCha20-Poly1305, bound to the key, the namespace and the
//! header of the payload.

use std::fmt;

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};

use super::envelope::{CHECKED_FROM, EPOCH_AT};
use super::key::StoreKey;
use super::payload_error::PayloadError;

/// The bytes after an encrypted value: the tag, the nonce, the number of the key.
const TAG: usize = 16;
const NONCE: usize = 24;
const ID: usize = 4;

/// The text whose authentication makes the number of a key. No payload begins like this.
const ID_OF: &[u8] = b"everfresh: the number of a key";

/// The secret keys with which a [`Format`](crate::store::Format) encrypts values.
///
/// The cipher is XChaCha20-Poly1305. Each payload has a nonce of 24 random bytes from the system.
/// Nonces of that length do not repeat by chance, so any number of processes may use one key for
/// any number of values.
///
/// An encrypted payload names its key by four bytes that are derived from the key. So keys can be
/// replaced while a fleet runs, in three deployments:
///
/// 1. `new(&old).also_decrypts(&new)`: every process can read both.
/// 2. `new(&new).also_decrypts(&old)`: values are written with the new key.
/// 3. `new(&new)`, once the last process of deployment 1 has ended and the values that it stored
///    are past their hard limit.
///
/// # Security
///
/// The keys are not shown by `Debug`, errors, traces or metrics. They are erased from memory when
/// the format is dropped. Erase your own copy yourself. In the memory of the process the values are
/// not encrypted.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "json")] {
/// use everfresh::store::{EncryptionKeys, Format, Json};
///
/// # let (from_vault, before) = ([1; 32], [2; 32]);
/// let keys = EncryptionKeys::new(&from_vault).also_decrypts(&before);
/// let format: Format<String> = Format::new(Json).encrypt_with(keys); // for `SecondLevel::with`
/// # }
/// ```
pub struct EncryptionKeys(Vec<Key>);

#[derive(Clone)]
struct Key {
    id: [u8; ID],
    cipher: XChaCha20Poly1305,
}

impl EncryptionKeys {
    /// Encrypts and decrypts with this key. Take its 32 bytes from a source of random numbers for
    /// cryptography, not from a password.
    pub fn new(key: &[u8; 32]) -> Self {
        EncryptionKeys(vec![Key::new(key)])
    }

    /// Decrypts with this key too.
    pub fn also_decrypts(self, key: &[u8; 32]) -> Self {
        // Copies and does not move, because a key is erased when it is dropped.
        let keys = self.0.iter().cloned().chain([Key::new(key)]);
        EncryptionKeys(keys.collect())
    }

    /// Encrypts what follows the header of a payload. The header is complete, but for the epoch and
    /// the checksum.
    pub(super) fn seal(
        &self,
        payload: &mut Vec<u8>,
        header: usize,
        key: &StoreKey,
    ) -> Result<(), PayloadError> {
        // There is at least one key.
        let with = self.0.first().ok_or(PayloadError::UnknownKey)?;
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| PayloadError::NoRandom)?;
        let (header, value) = payload.split_at_mut(header);
        let bound = bound_to(header, key);
        let tag = with.cipher.encrypt_inout_detached(
            &XNonce::from(nonce),
            &bound,
            InOutBuf::from(&mut *value),
        );
        let tag = tag.map_err(|_| PayloadError::TooLarge)?;
        payload.extend_from_slice(&tag);
        payload.extend_from_slice(&nonce);
        payload.extend_from_slice(&with.id);
        Ok(())
    }

    /// Decrypts what follows the header of a payload.
    pub(super) fn open(
        &self,
        payload: &[u8],
        header: usize,
        key: &StoreKey,
    ) -> Result<Vec<u8>, PayloadError> {
        let (header, body) = payload.split_at(header);
        let (body, id) = last::<ID>(body)?;
        let (body, nonce) = last::<NONCE>(body)?;
        let (body, tag) = last::<TAG>(body)?;
        let (nonce, tag) = (XNonce::from(nonce), Tag::from(tag));
        let bound = bound_to(header, key);
        let mut error = PayloadError::UnknownKey;
        // Two keys may have the same number.
        for with in self.0.iter().filter(|with| with.id == id) {
            let mut value = body.to_vec();
            let buffer = InOutBuf::from(&mut value[..]);
            match with
                .cipher
                .decrypt_inout_detached(&nonce, &bound, buffer, &tag)
            {
                Ok(()) => return Ok(value),
                Err(_) => error = PayloadError::Forged,
            }
        }
        Err(error)
    }
}

impl Key {
    fn new(key: &[u8; 32]) -> Self {
        let cipher = XChaCha20Poly1305::new(key.into());
        // A tag reveals nothing about the key. No value has this nonce, because those are random.
        // The error is for messages of more than 256 GiB.
        let nothing = InOutBuf::from(&mut [][..]);
        let tag = cipher.encrypt_inout_detached(&XNonce::default(), ID_OF, nothing);
        let [a, b, c, d, ..] = tag.unwrap_or_default().0;
        Key {
            id: [a, b, c, d],
            cipher,
        }
    }
}

/// The data to which an encrypted value is bound: it can be decrypted with exactly these.
///
/// The header is all of it that the store does not write. The parts in front of the namespace have
/// lengths that follow from the header, so no two sets of parts give the same bytes.
fn bound_to(header: &[u8], key: &StoreKey) -> Vec<u8> {
    let (version, terms) = (&header[..EPOCH_AT], &header[CHECKED_FROM..]);
    let hash = key.hash().to_be_bytes();
    [version, terms, &hash, key.namespace().as_str().as_bytes()].concat()
}

/// Takes a field off the end.
fn last<const N: usize>(bytes: &[u8]) -> Result<(&[u8], [u8; N]), PayloadError> {
    let (rest, field) = bytes.split_last_chunk().ok_or(PayloadError::Length)?;
    Ok((rest, *field))
}

impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKeys").finish_non_exhaustive()
    }
}
