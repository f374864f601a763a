//! A stream that refuses replies with a string above a limit.
//!
//! The client reads a reply in whole, however large it is. This stream scans the lines that
//! announce strings, and ends the connection before a string above the limit is in memory. From
//! then on the limit is strict ([`StreamLimit::is_strict`]): the store sends no command whose reply
//! has an unknown size. A message that another client publishes can still end a connection.
//!
//! The stream also counts signs of life: every arrival of bytes, and every write that went on after
//! it had to wait for room, because then the other side has taken bytes. A write that finds room
//! is no sign, because a server that hangs leaves room in the buffers of both systems.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sync::{Arc, AtomicU8, AtomicU64, Ordering};

/// Replies without payloads, such as `HELLO`, are shorter than this.
const MIN_LIMIT: usize = 64 << 10;

/// The longest line that announces a string, in bytes.
const MAX_HEADER: usize = 24;

/// The length limit of strings, and whether a string exceeded it.
pub(super) struct StreamLimit {
    longest: usize,
    strict: AtomicU8,
}

impl StreamLimit {
    pub(super) fn new(longest: usize) -> Arc<Self> {
        Arc::new(StreamLimit {
            longest: longest.max(MIN_LIMIT),
            strict: AtomicU8::new(0),
        })
    }

    // Relaxed: a reader that misses it loses one more connection.
    pub(super) fn set_strict(&self) {
        self.strict.store(1, Ordering::Relaxed);
    }

    /// Whether a string above the limit was seen.
    pub(super) fn is_strict(&self) -> bool {
        self.strict.load(Ordering::Relaxed) == 1
    }
}

pub(super) struct LimitedStream<S> {
    stream: S,
    stream_limit: Arc<StreamLimit>,
    next: Next,
    /// Whether the last write had to wait for room.
    full: bool,
    signs: SignsOfLife,
}

/// The number of signs of life of a connection.
#[derive(Clone)]
pub(super) struct SignsOfLife(Arc<AtomicU64>);

impl SignsOfLife {
    // Relaxed, as below: the number orders nothing.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The part of a reply to which the next byte belongs.
enum Next {
    /// A line that can announce a string, and the number of bytes read of it.
    Line([u8; MAX_HEADER], usize),
    /// The rest of a line that announces no string.
    Rest,
    /// A string, and the number of its bytes still to come.
    String(usize),
}

const LINE: Next = Next::Line([0; MAX_HEADER], 0);

impl<S> LimitedStream<S> {
    pub(super) fn new(stream: S, stream_limit: Arc<StreamLimit>) -> Self {
        let next = LINE;
        LimitedStream {
            stream,
            stream_limit,
            next,
            full: false,
            signs: SignsOfLife(Arc::new(AtomicU64::new(0))),
        }
    }

    pub(super) fn signs_of_life(&self) -> SignsOfLife {
        self.signs.clone()
    }

    fn written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.full = true,
            Poll::Ready(_) => {
                if std::mem::take(&mut self.full) {
                    self.signs.add();
                }
            }
        }
        written
    }

    /// Scans bytes; returns false if they announce a string above the limit.
    fn scan(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(byte) = bytes.first() {
            let taken = match &mut self.next {
                Next::String(left) => {
                    let here = bytes.len().min(*left);
                    *left -= here;
                    if *left == 0 {
                        self.next = LINE;
                    }
                    here
                }
                Next::Rest => match bytes.iter().position(|byte| *byte == b'\n') {
                    Some(end) => {
                        self.next = LINE;
                        end + 1
                    }
                    None => bytes.len(),
                },
                Next::Line(_, 0) if !matches!(byte, b'$' | b'=' | b'!') => {
                    self.next = Next::Rest;
                    0
                }
                Next::Line(line, length) => {
                    line[*length] = *byte;
                    *length += 1;
                    if *byte == b'\n' {
                        let string = announced(&line[1..*length]);
                        // Includes the line end after the string.
                        self.next =
                            string.map_or(LINE, |string| Next::String(string.saturating_add(2)));
                        if string.is_some_and(|string| string > self.stream_limit.longest) {
                            return false;
                        }
                    } else if *length == MAX_HEADER {
                        self.next = Next::Rest;
                    }
                    1
                }
            };
            bytes = &bytes[taken..];
        }
        true
    }
}

/// The length of the string that a line announces; `None` if it announces none.
fn announced(digits: &[u8]) -> Option<usize> {
    let digits = digits.strip_suffix(b"\r\n")?;
    let length: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    // A length above the address space counts as too long, and not as none.
    Some(usize::try_from(length).unwrap_or(usize::MAX))
}

impl<S: AsyncRead + Unpin> AsyncRead for LimitedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        if into.filled().len() > before {
            self.signs.add();
        }
        if self.scan(&into.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        self.stream_limit.set_strict();
        Poll::Ready(Err(io::Error::other("a reply is too long")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LimitedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_lite::future::poll_once;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn string(kind: char, length: usize) -> Vec<u8> {
        let mut bytes = format!("{kind}{length}\r\n").into_bytes();
        // Contents that must not be taken for lines.
        bytes.extend(b"\n$9999999\r\n".iter().cycle().take(length));
        bytes.extend(b"\r\n");
        bytes
    }

    fn part() -> impl Strategy<Value = Vec<u8>> {
        let kind = || prop::sample::select(vec!['$', '=', '!']);
        let lines = [
            "*64\r\n",
            "$-1\r\n",
            "_\r\n",
            ":7\r\n",
            "+OK\r\n",
            ">2\r\n",
            "-ERR $9999999 and more text than a header holds\r
",
            "$123456789012345678901234567890\r\n",
        ];
        prop_oneof![
            4 => (kind(), 0..300_usize).prop_map(|(kind, length)| string(kind, length)),
            1 => kind().prop_map(|kind| string(kind, MIN_LIMIT)),
            3 => prop::sample::select(lines.to_vec()).prop_map(|line| line.as_bytes().to_vec()),
        ]
    }

    /// Whether all bytes pass, sent in pieces of these sizes.
    fn passes(sent: &[u8], pieces: &[usize]) -> bool {
        let mut limited = LimitedStream::new((), StreamLimit::new(0));
        let mut passes = true;
        let mut sizes = pieces.iter().cycle();
        let mut rest = sent;
        while !rest.is_empty() {
            let size = sizes.next().map_or(1, |size| *size).min(rest.len());
            let (piece, after) = rest.split_at(size);
            // Continues even after a refusal.
            passes &= limited.scan(piece);
            rest = after;
        }
        passes
    }

    proptest! {
        /// Strings within the limit pass and longer ones are refused, at every position and for
        /// every split of the bytes.
        #[test]
        fn only_strings_above_the_limit_are_refused(
            parts in vec(part(), 1..8),
            at in any::<prop::sample::Index>(),
            kind in prop::sample::select(vec!['$', '=', '!']),
            excess in 1..u32::MAX as usize,
            digits in 1..22_usize,
            pieces in vec(1..3_000_usize, 1..6),
        ) {
            prop_assert!(passes(&parts.concat(), &pieces));
            let mut parts = parts;
            let announced = format!("{kind}{:0digits$}\r
    ", MIN_LIMIT + excess);
            parts.insert(at.index(parts.len()), announced.into_bytes());
            prop_assert!(!passes(&parts.concat(), &pieces));
        }

        #[test]
        fn arbitrary_bytes_are_scanned(
            bytes in vec(any::<u8>(), 0..500),
            pieces in vec(1..50_usize, 1..6),
        ) {
            passes(&bytes, &pieces);
        }
    }

    #[tokio::test]
    async fn bytes_that_the_other_side_sends_or_takes_are_signs_of_life() {
        let (ours, mut theirs) = duplex(64);
        let mut stream = LimitedStream::new(ours, StreamLimit::new(0));
        let signs = stream.signs_of_life();
        // There is room.
        assert!(stream.write_all(&[0; 64]).await.is_ok());
        assert_eq!(signs.count(), 0);
        let mut write = pin!(stream.write_all(&[0; 64]));
        assert!(poll_once(write.as_mut()).await.is_none());
        assert_eq!(signs.count(), 0);
        assert!(theirs.read_exact(&mut [0; 64]).await.is_ok());
        assert!(write.await.is_ok());
        assert_eq!(signs.count(), 1);
        assert!(theirs.write_all(b"+OK\r\n").await.is_ok());
        assert!(stream.read_exact(&mut [0; 5]).await.is_ok());
        assert_eq!(signs.count(), 2);
    }
}
