//! A stream on which no reply is larger than a limit, whatever the server holds.
//!
//! The client takes a reply in whole, however large it is. So here the announcement of each string is read on its way, and one that is
//! too long arrives as [`CUT`] instead: what was announced is taken from the network and forgotten. Everything else passes as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What stands for a string that is too long.
pub(super) const CUT: &[u8] = b"\x01";

const CUT_REPLY: &[u8] = b"$1\r\n\x01\r\n";

/// The limit is not less: an announcement that is over it has room for the reply that stands for it.
const LEAST: usize = 1_000_000;

/// The first bytes of a line, by which it may announce a string: its kind, and the digits of any length.
const HEAD: usize = 24;

pub(super) struct Capped<S> {
    stream: S,
    limit: usize,
    buffer: Box<[u8]>,
    /// The first byte that has not been passed on, and the end of those that have been read.
    start: usize,
    end: usize,
    /// How many of them may be passed on.
    passing: usize,
    next: Next,
}

/// What the next bytes are.
enum Next {
    /// The beginning of a line.
    Line,
    /// The rest of one that announces nothing.
    Rest,
    /// So many bytes of a string.
    String(usize),
    /// So many of one that is too long.
    Excess(usize),
}

impl<S> Capped<S> {
    pub(super) fn new(stream: S, limit: usize) -> Self {
        Capped {
            stream,
            limit: limit.max(LEAST),
            buffer: vec![0; 16 << 10].into(),
            start: 0,
            end: 0,
            passing: 0,
            next: Next::Line,
        }
    }

    /// Passes on what may pass and there is room for; how much that was.
    fn pass(&mut self, into: &mut ReadBuf<'_>) -> usize {
        if self.passing == 0 {
            self.passing = self.look();
        }
        let passed = self.passing.min(into.remaining());
        into.put_slice(&self.buffer[self.start..][..passed]);
        self.start += passed;
        self.passing -= passed;
        passed
    }

    /// How many of the bytes from `start` on may pass; 0 if more must be read first.
    fn look(&mut self) -> usize {
        let mut passing = 0;
        loop {
            let ahead = &self.buffer[self.start + passing..self.end];
            if ahead.is_empty() {
                return passing;
            }
            match self.next {
                Next::String(left) => {
                    let here = left.min(ahead.len());
                    passing += here;
                    self.next = match left - here {
                        0 => Next::Line,
                        left => Next::String(left),
                    };
                }
                // What comes before it passes first.
                Next::Excess(_) if passing > 0 => return passing,
                Next::Excess(left) => {
                    let here = left.min(ahead.len());
                    self.start += here;
                    self.next = match left - here {
                        0 => Next::Line,
                        left => Next::Excess(left),
                    };
                }
                Next::Rest => match end_of_line(ahead) {
                    Some(line) => {
                        passing += line;
                        self.next = Next::Line;
                    }
                    None => return passing + ahead.len(),
                },
                Next::Line => match (end_of_line(&ahead[..ahead.len().min(HEAD)]), ahead[0]) {
                    (Some(line), b'$' | b'=' | b'!') => {
                        let string = announced(&ahead[1..line]);
                        let excess = string.is_some_and(|length| length > self.limit);
                        if excess && passing > 0 {
                            return passing;
                        }
                        // The string and the end of its line.
                        let length = string.map_or(0, |length| length.saturating_add(2));
                        if !excess {
                            passing += line;
                            self.next = match length {
                                0 => Next::Line,
                                length => Next::String(length),
                            };
                            continue;
                        }
                        self.start += line - CUT_REPLY.len();
                        self.buffer[self.start..][..CUT_REPLY.len()].copy_from_slice(CUT_REPLY);
                        self.next = Next::Excess(length);
                        return CUT_REPLY.len();
                    }
                    // Not known yet.
                    (None, b'$' | b'=' | b'!') if ahead.len() < HEAD => return passing,
                    _ => self.next = Next::Rest,
                },
            }
        }
    }
}

/// The length of a line, with its end.
fn end_of_line(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    end.map(|end| end + 1)
}

/// The length that a line announces; `None` if it announces no string.
fn announced(digits: &[u8]) -> Option<usize> {
    let digits = digits.strip_suffix(b"\r\n")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

impl<S: AsyncRead + Unpin> AsyncRead for Capped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.pass(into) > 0 || into.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            this.buffer.copy_within(this.start..this.end, 0);
            this.end -= this.start;
            this.start = 0;
            let mut room = ReadBuf::new(&mut this.buffer[this.end..]);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut room))?;
            match room.filled().len() {
                // The end; a line that was not complete is of no use to anybody.
                0 => return Poll::Ready(Ok(())),
                more => this.end += more,
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Capped<S> {
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
    use std::collections::VecDeque;
    use std::future::poll_fn;

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A server whose bytes arrive in pieces.
    struct Pieces(VecDeque<Vec<u8>>);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(mut piece) = self.0.pop_front() {
                let rest = piece.split_off(piece.len().min(into.remaining()));
                into.put_slice(&piece);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    /// One part of a reply, and what arrives of it.
    fn part() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let same = |bytes: Vec<u8>| (bytes.clone(), bytes);
        let string = |kind: char, length: usize| {
            let mut bytes = format!("{kind}{length}\r\n").into_bytes();
            // Not to be taken for lines.
            bytes.extend(b"$9999999\r\n".iter().cycle().take(length));
            bytes.extend(b"\r\n");
            bytes
        };
        let kind = || prop::sample::select(vec!['$', '=', '!']);
        prop_oneof![
            4 => (kind(), 0..300_usize).prop_map(move |(kind, length)| same(string(kind, length))),
            1 => (kind(), LEAST + 1..LEAST + 9).prop_map(move |(kind, length)| (string(kind, length), CUT_REPLY.to_vec())),
            1 => Just(same(string('$', LEAST))),
            2 => prop::sample::select(vec!["*64\r\n", "$-1\r\n", "_\r\n", ":7\r\n", "+OK\r\n", ">2\r\n", "-ERR $5 and more than anybody wants to read\r\n"])
                .prop_map(move |line| same(line.into())),
        ]
    }

    fn received(sent: &[u8], pieces: &[usize], room: usize) -> Vec<u8> {
        let mut rest = sent;
        let mut sizes = pieces.iter().cycle();
        let mut arriving = VecDeque::new();
        while !rest.is_empty() {
            let size = sizes.next().map_or(1, |size| *size).min(rest.len());
            let (piece, after) = rest.split_at(size);
            arriving.push_back(piece.to_vec());
            rest = after;
        }
        let mut capped = Capped::new(Pieces(arriving), 0);
        futures_lite::future::block_on(async {
            let (mut received, mut into) = (Vec::new(), vec![0; room]);
            loop {
                let mut into = ReadBuf::new(&mut into);
                let read =
                    |context: &mut Context<'_>| Pin::new(&mut capped).poll_read(context, &mut into);
                poll_fn(read).await.unwrap();
                match into.filled() {
                    [] => return received,
                    more => received.extend(more),
                }
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However the bytes arrive, what is short passes unchanged, and what is too long is cut.
        #[test]
        fn only_what_is_too_long_is_cut(
            parts in vec(part(), 1..8),
            pieces in vec(1..70_000_usize, 1..6),
            room in 1..20_000_usize,
        ) {
            let sent: Vec<u8> = parts.iter().flat_map(|(sent, _)| sent.clone()).collect();
            let expected: Vec<u8> = parts.iter().flat_map(|(_, arrives)| arrives.clone()).collect();
            prop_assert!(received(&sent, &pieces, room) == expected);
        }

        /// Whatever else a server sends passes as it is, up to a line that never ends.
        #[test]
        fn rubbish_passes(rubbish in vec(any::<u8>(), 0..500), pieces in vec(1..50_usize, 1..6)) {
            let arrived = received(&rubbish, &pieces, 64);
            prop_assert!(rubbish.starts_with(&arrived) && rubbish.len() - arrived.len() < HEAD);
        }
    }
}
