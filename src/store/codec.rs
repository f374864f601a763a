//! How values become bytes.

use std::error::Error as StdError;

/// Why a codec could not write or read a value.
pub type Rejected = Box<dyn StdError + Send + Sync>;

/// How values become bytes, and bytes become values again.
///
/// What is read was written by this codec, by some version of the program, unless somebody else writes to the store. A codec may fail and may
/// panic: the value is then not stored, or is as if it were not.
///
/// # Example
///
/// ```
/// use everfresh::store::{Codec, Format, Rejected};
///
/// /// Text as it is.
/// struct Plain;
///
/// impl Codec<String> for Plain {
///     fn id(&self) -> u8 {
///         64 // the first that is not for this crate
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
    /// Which codec it is; payloads of others are not read. 0 to 63 are for the ones in this crate.
    fn id(&self) -> u8;

    /// Appends the value to `out`.
    ///
    /// # Errors
    ///
    /// If the value cannot be written.
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), Rejected>;

    /// Reads a value from exactly these bytes.
    ///
    /// # Errors
    ///
    /// If they are not one.
    fn decode(&self, bytes: &[u8]) -> Result<V, Rejected>;
}

/// The format of the crate `postcard`: small, fast and stable. Fields are known by their position, so any
/// change of the type needs a new namespace or schema.
///
/// Values that contain themselves (trees) are read however deep they are, until the stack is full; where somebody else may write to the store take
/// [`Json`] or [`MessagePack`], which stop at a depth of 128.
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

/// JSON: readable in the store, tolerant of new fields that have defaults. Floats come back exactly, but none that is not a
/// number or infinite can be written.
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

/// MessagePack with the names of fields: smaller than JSON, as tolerant of new fields.
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
        // As deep as JSON: 1024, which it allows by itself, do not fit the stack of a thread.
        deserializer.set_max_depth(128);
        let value = V::deserialize(&mut deserializer)?;
        match bytes {
            [] => Ok(value),
            _ => Err("bytes are left over".into()),
        }
    }
}
