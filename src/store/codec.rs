//! How values become bytes.

use std::error::Error as StdError;

/// The error with which a codec rejects a value or its bytes.
pub type Rejected = Box<dyn StdError + Send + Sync>;

/// Encodes values as bytes, and decodes them again.
///
/// `decode` gets bytes that this codec wrote, possibly in another version of the program, unless
/// other programs write to the store. A codec may fail or panic: the value is then not stored, or
/// is read as missing.
///
/// # Example
///
/// ```
/// use everfresh::store::{Codec, Format, Rejected};
///
/// /// Text, unchanged.
/// struct Plain;
///
/// impl Codec<String> for Plain {
///     fn id(&self) -> u8 {
///         64 // 0 to 63 are reserved for everfresh
///     }
///
///     fn encode(&self, value: &String, out: &mut Vec<u8>) -> Result<(), Rejected> {
///         out.extend_from_slice(value.as_bytes());
///         Ok(())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<String, Rejected> {
///         Ok(std::str::from_utf8(bytes)?.to_owned())
///     }
/// }
///
/// let format: Format<String> = Format::new(Plain); // for `SecondLevel::with`
/// ```
pub trait Codec<V>: Send + Sync + 'static {
    /// Identifies the codec; payloads of other codecs are not read. 0 to 63 are reserved for
    /// everfresh.
    fn id(&self) -> u8;

    /// Appends the value to `out`.
    ///
    /// # Errors
    ///
    /// The value cannot be encoded.
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), Rejected>;

    /// Decodes a value from exactly these bytes.
    ///
    /// # Errors
    ///
    /// The bytes are not a complete value, or bytes are left over.
    fn decode(&self, bytes: &[u8]) -> Result<V, Rejected>;
}

/// The format of the crate `postcard`: small, fast and stable.
///
/// Fields are identified by their position, so every change of the type needs a new namespace or
/// [schema](crate::store::Format::schema). Without one, values of the other version can be decoded
/// to [wrong values](crate::docs::store#when-the-type-of-a-value-changes).
///
/// Recursive values (trees) are decoded without a limit of depth and can overflow the stack. If
/// other programs may write to the store, use [`Json`] or [`MessagePack`], which stop at a depth of
/// 128.
#[cfg(feature = "postcard")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

#[cfg(feature = "postcard")]
impl<V: serde::Serialize + serde::de::DeserializeOwned> Codec<V> for Postcard {
    fn id(&self) -> u8 {
        1
    }

    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), Rejected> {
        *out = postcard::to_extend(value, std::mem::take(out))?;
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, Rejected> {
        match postcard::take_from_bytes(bytes)? {
            (value, []) => Ok(value),
            _ => Err("bytes are left over".into()),
        }
    }
}

/// JSON: readable in the store, and tolerant of new fields that have defaults.
///
/// Floats are restored exactly. NaN and infinities are not: JSON has no form for them, so their
/// payload is unreadable.
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

#[cfg(feature = "json")]
impl<V: serde::Serialize + serde::de::DeserializeOwned> Codec<V> for Json {
    fn id(&self) -> u8 {
        2
    }

    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), Rejected> {
        Ok(serde_json::to_writer(out, value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, Rejected> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// MessagePack with named fields: smaller than JSON, and as tolerant of new fields.
#[cfg(feature = "msgpack")]
#[derive(Clone, Copy, Debug, Default)]
pub struct MessagePack;

#[cfg(feature = "msgpack")]
impl<V: serde::Serialize + serde::de::DeserializeOwned> Codec<V> for MessagePack {
    fn id(&self) -> u8 {
        3
    }

    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), Rejected> {
        Ok(rmp_serde::encode::write_named(out, value)?)
    }

    fn decode(&self, mut bytes: &[u8]) -> Result<V, Rejected> {
        let mut deserializer = rmp_serde::Deserializer::new(&mut bytes);
        // The limit of `serde_json`. The default of 1024 levels can overflow the stack of a thread.
        deserializer.set_max_depth(128);
        let value = V::deserialize(&mut deserializer)?;
        match bytes {
            [] => Ok(value),
            _ => Err("bytes are left over".into()),
        }
    }
}
