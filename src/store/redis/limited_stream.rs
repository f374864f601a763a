//! A stream on which no string is longer than a limit, whatever the server holds.
//!
//! The client takes a reply in whole, however large it is. So the lines that announce strings are read on their way here, and one that is too long
//! ends the connection before the string is in memory. From then on nothing is asked for whose size is not known ([`StreamLimit::is_strict`]);
//! what others push into a channel may end one again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sync::{Arc, AtomicU8, Ordering};

/// What servers say of themselves is shorter.
const LEAST: usize = 64 << 10;

/// A line that announces a string is no longer than this.
const HEAD: usize = 24;

/// How long a string may be, and whether one was longer.
pub(super) struct StreamLimit {
    longest: usize,
    exceeded: AtomicU8,
}

impl StreamLimit {
    pub(super) fn new(longest: usize) -> Arc<Self> {
        Arc::new(StreamLimit {
            longest: longest.max(LEAST),
            exceeded: AtomicU8::new(0),
        })
    }

    // Relaxed: who misses it ends one more connection.
    pub(super) fn exceed(&self) {
        self.exceeded.store(1, Ordering::Relaxed);
    }

    /// Whether something too long is stored somewhere.
    pub(super) fn is_strict(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed) == 1
    }
}

pub(super) struct LimitedStream<S> {
    stream: S,
    cap: Arc<StreamLimit>,
    next: Next,
}

/// What the next byte belongs to.
enum Next {
    /// A line, of which so many bytes have come that may announce a string.
    Line([u8; HEAD], usize),
    /// The rest of one that announces nothing.
    Rest,
    /// A string, of which so many are to come.
    String(usize),
}

const LINE: Next = Next::Line([0; HEAD], 0);

impl<S> LimitedStream<S> {
    pub(super) fn new(stream: S, cap: Arc<StreamLimit>) -> Self {
        let next = LINE;
        LimitedStream { stream, cap, next }
    }

    /// Follows what arrives; false if it announces something too long.
    fn follow(&mut self, mut bytes: &[u8]) -> bool {
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
                        // With the end of its line.
                        self.next =
                            string.map_or(LINE, |string| Next::String(string.saturating_add(2)));
                        if string.is_some_and(|string| string > self.cap.longest) {
                            return false;
                        }
                    } else if *length == HEAD {
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

/// The length that a line announces; `None` if it announces no string.
fn announced(digits: &[u8]) -> Option<usize> {
    let digits = digits.strip_suffix(b"\r\n")?;
    let length: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    // One that no address could reach is too long as well, not none.
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
        if self.follow(&into.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        self.cap.exceed();
        Poll::Ready(Err(io::Error::other("a reply is too long")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LimitedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
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
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn string(kind: char, length: usize) -> Vec<u8> {
        let mut bytes = format!("{kind}{length}\r\n").into_bytes();
        // Not to be taken for lines.
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
            "-ERR $9999999 and more than anybody wants to read\r\n",
            "$123456789012345678901234567890\r\n",
        ];
        prop_oneof![
            4 => (kind(), 0..300_usize).prop_map(|(kind, length)| string(kind, length)),
            1 => kind().prop_map(|kind| string(kind, LEAST)),
            3 => prop::sample::select(lines.to_vec()).prop_map(|line| line.as_bytes().to_vec()),
        ]
    }

    /// Whether all of it passes, in pieces of these sizes.
    fn passes(sent: &[u8], pieces: &[usize]) -> bool {
        let mut limited = LimitedStream::new((), StreamLimit::new(0));
        let mut passes = true;
        let mut sizes = pieces.iter().cycle();
        let mut rest = sent;
        while !rest.is_empty() {
            let size = sizes.next().map_or(1, |size| *size).min(rest.len());
            let (piece, after) = rest.split_at(size);
            // Also after it was refused.
            passes &= limited.follow(piece);
            rest = after;
        }
        passes
    }

    proptest! {
        /// However the bytes arrive, what is short passes, and what is too long does not, wherever it comes.
        #[test]
        fn only_what_is_too_long_is_refused(
            parts in vec(part(), 1..8),
            at in any::<prop::sample::Index>(),
            kind in prop::sample::select(vec!['$', '=', '!']),
            excess in 1..u32::MAX as usize,
            digits in 1..22_usize,
            pieces in vec(1..3_000_usize, 1..6),
        ) {
            prop_assert!(passes(&parts.concat(), &pieces));
            let mut parts = parts;
            let announced = format!("{kind}{:0digits$}\r\n", LEAST + excess);
            parts.insert(at.index(parts.len()), announced.into_bytes());
            prop_assert!(!passes(&parts.concat(), &pieces));
        }

        #[test]
        fn rubbish_is_followed(rubbish in vec(any::<u8>(), 0..500), pieces in vec(1..50_usize, 1..6)) {
            passes(&rubbish, &pieces);
        }
    }
}
