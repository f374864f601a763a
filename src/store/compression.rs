//! The compression of encoded values. A flag of the payload says which one was used.

#[cfg(feature = "zstd")]
use std::cell::Cell;

#[cfg(feature = "zstd")]
use zstd::bulk::Decompressor;

use super::payload_error::PayloadError;

const LZ4: u8 = 1;
const ZSTD: u8 = 8;

/// The level of zstd: its own default. Higher ones take longer, and save little on values of a few
/// KiB.
#[cfg(feature = "zstd")]
const LEVEL: i32 = 3;

// The decompressor of a thread, about 100 KiB. Making one takes six times as long as decompressing
// 2 KiB with it. One that has failed can be used again.
#[cfg(feature = "zstd")]
thread_local! {
    static DECOMPRESSOR: Cell<Option<Decompressor<'static>>> = const { Cell::new(None) };
}

/// A compression, and the length from which on values are compressed.
#[derive(Clone, Copy)]
pub(super) struct Compression {
    from: usize,
    flag: u8,
    compress: fn(&[u8]) -> Option<Vec<u8>>,
}

impl Compression {
    #[cfg(feature = "lz4")]
    pub(super) fn lz4(from: usize) -> Self {
        Compression {
            from,
            flag: LZ4,
            compress: |value| Some(lz4_flex::block::compress(value)),
        }
    }

    #[cfg(feature = "zstd")]
    pub(super) fn zstd(from: usize) -> Self {
        Compression {
            from,
            flag: ZSTD,
            compress: |value| zstd::bulk::compress(value, LEVEL).ok(),
        }
    }

    /// Compresses what follows the first `body` bytes of a payload, if that makes it smaller.
    /// Returns the flag.
    pub(super) fn compress(self, payload: &mut Vec<u8>, body: usize) -> u8 {
        let value = &payload[body..];
        if value.len() < self.from {
            return 0;
        }
        match (self.compress)(value) {
            Some(compressed) if compressed.len() < value.len() => {
                payload.truncate(body);
                payload.extend_from_slice(&compressed);
                self.flag
            }
            _ => 0,
        }
    }
}

/// Restores a value of this length, which the caller has compared with a limit: no more memory is
/// allocated, whatever the bytes say.
pub(super) fn decompress(flag: u8, bytes: &[u8], length: usize) -> Result<Vec<u8>, PayloadError> {
    let value = match flag {
        LZ4 => lz4(bytes, length)?,
        ZSTD => zstd(bytes, length)?,
        _ => return Err(PayloadError::Version),
    };
    match value {
        Some(value) if value.len() == length => Ok(value),
        _ => Err(PayloadError::Length),
    }
}

#[cfg(feature = "lz4")]
fn lz4(bytes: &[u8], length: usize) -> Result<Option<Vec<u8>>, PayloadError> {
    Ok(lz4_flex::block::decompress(bytes, length).ok())
}

#[cfg(not(feature = "lz4"))]
fn lz4(_: &[u8], _: usize) -> Result<Option<Vec<u8>>, PayloadError> {
    Err(PayloadError::Compressed)
}

#[cfg(feature = "zstd")]
fn zstd(bytes: &[u8], length: usize) -> Result<Option<Vec<u8>>, PayloadError> {
    let kept = DECOMPRESSOR.try_with(Cell::take).ok().flatten();
    let Some(mut decompressor) = kept.or_else(|| Decompressor::new().ok()) else {
        return Ok(None);
    };
    let value = decompressor.decompress(bytes, length).ok();
    let _ = DECOMPRESSOR.try_with(|kept| kept.set(Some(decompressor)));
    Ok(value)
}

#[cfg(not(feature = "zstd"))]
fn zstd(_: &[u8], _: usize) -> Result<Option<Vec<u8>>, PayloadError> {
    Err(PayloadError::Compressed)
}
