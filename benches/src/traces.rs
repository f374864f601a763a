//! Access traces: keys as little-endian `u32`, compressed by zstd.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use ruzstd::decoding::StreamingDecoder;

pub struct Trace {
    pub name: String,
    pub accesses: Vec<u32>,
    /// The number of distinct keys.
    pub keys: usize,
}

/// The files among the paths, and the files in the folders among them.
pub fn files(paths: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let inside = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
            let inside: Vec<PathBuf> = inside.collect::<io::Result<_>>()?;
            let is_trace = |file: &PathBuf| file.extension().is_some_and(|end| end == "zst");
            files.extend(inside.into_iter().filter(is_trace));
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    Ok(files)
}

pub fn read(path: &Path) -> io::Result<Trace> {
    let file = BufReader::new(File::open(path)?);
    let mut bytes = Vec::new();
    let mut decoder = StreamingDecoder::new(file).map_err(io::Error::other)?;
    decoder.read_to_end(&mut bytes)?;
    let words = bytes.chunks_exact(4);
    if bytes.is_empty() || !words.remainder().is_empty() {
        return Err(io::Error::other("not a sequence of 32-bit keys"));
    }
    let accesses: Vec<u32> = words
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    let mut keys = accesses.clone();
    keys.sort_unstable();
    keys.dedup();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(Trace {
        name: name.split('.').next().unwrap_or_default().to_owned(),
        accesses,
        keys: keys.len(),
    })
}
