//! Redis's protocol (RESP2), as far as a subscriber needs it: commands out, replies in. Pure.
//!
//! The whole of a reply stays in one buffer and is given out as slices of it. What exceeds the bound of a
//! reply is skipped as it arrives and never stored, so a peer decides neither how much memory is taken nor
//! when the connection ends.

use std::ops::Range;

use broadgate_proto::limits::REDIS_LINE_BYTES_MAX;
use smallvec::SmallVec;

/// Elements of an array: a message of a pattern has four.
const ELEMENTS_MAX: i64 = 16;
/// An empty buffer keeps this much.
const BUFFER_BYTES_KEPT: usize = 64 * 1024;
/// So much of what is no reply is quoted.
const QUOTED_BYTES_MAX: usize = 60;

/// Writes a command.
pub(super) fn command(parts: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", parts.len());
    for part in parts {
        out.push_str(&format!("${}\r\n{part}\r\n", part.len()));
    }
    out.into_bytes()
}

/// What stands in a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element<'a> {
    Text(&'a [u8]),
    Number(i64),
    Nothing,
    /// A text that exceeded the bound, and its length in bytes.
    TooLong(u64),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum RedisReply<'a> {
    Status(&'a [u8]),
    Error(&'a [u8]),
    One(Element<'a>),
    Array(SmallVec<[Element<'a>; 4]>),
}

/// The other side does not speak this protocol. It cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotRedis {
    #[error("it answers with TLS: url must begin with rediss://")]
    Tls,
    #[error("it is no Redis: it answers {0}")]
    Other(String),
}

#[derive(Debug, Clone)]
enum ReplyPiece {
    Text(Range<usize>),
    Number(i64),
    Nothing,
    TooLong(u64),
    Status(Range<usize>),
    Error(Range<usize>),
}

/// Takes bytes in pieces of any size and gives out whole replies.
#[derive(Debug)]
pub(super) struct ReplyDecoder {
    buffer: Vec<u8>,
    /// Where the reply begins that is being read. What is before it is removed at the next read.
    start: usize,
    /// How far it has been parsed; like all ranges, from its beginning.
    at: usize,
    pieces: SmallVec<[ReplyPiece; 4]>,
    /// Elements of the array that are missing; none if the reply is no array.
    missing: Option<usize>,
    /// Bytes of a text that are still to be skipped, with its end of line, and its length.
    skipped: Option<(u64, u64)>,
    /// The reply in the buffer was given out.
    is_done: bool,
    reply_bytes_max: usize,
}

impl ReplyDecoder {
    pub(super) fn new(reply_bytes_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            at: 0,
            pieces: SmallVec::new(),
            missing: None,
            skipped: None,
            is_done: false,
            reply_bytes_max,
        }
    }

    /// Where received bytes are to be appended.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.is_done {
            self.forget();
        }
        self.buffer.drain(..std::mem::take(&mut self.start));
        if self.buffer.is_empty() {
            self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        }
        &mut self.buffer
    }

    /// The next whole reply, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<RedisReply<'_>>, NotRedis> {
        if self.is_done {
            self.forget();
        }
        loop {
            let Some(piece) = self.piece()? else { return Ok(None) };
            if let Some(piece) = piece {
                self.pieces.push(piece);
            }
            match &mut self.missing {
                None => break,
                // The head of the array itself is no element.
                Some(missing) if *missing == self.pieces.len() => break,
                Some(_) => {}
            }
        }
        self.is_done = true;
        let reply = &self.buffer[self.start..];
        let text = |range: &Range<usize>| &reply[range.clone()];
        let element = |piece: &ReplyPiece| match piece {
            ReplyPiece::Text(range) | ReplyPiece::Status(range) | ReplyPiece::Error(range) => {
                Element::Text(text(range))
            }
            ReplyPiece::Number(number) => Element::Number(*number),
            ReplyPiece::Nothing => Element::Nothing,
            ReplyPiece::TooLong(len) => Element::TooLong(*len),
        };
        Ok(Some(match (self.missing, &self.pieces[..]) {
            (None, [ReplyPiece::Status(range)]) => RedisReply::Status(text(range)),
            (None, [ReplyPiece::Error(range)]) => RedisReply::Error(text(range)),
            (None, [one]) => RedisReply::One(element(one)),
            (_, pieces) => RedisReply::Array(pieces.iter().map(element).collect()),
        }))
    }

    /// Removes the reply that was given out.
    fn forget(&mut self) {
        self.start += self.at;
        (self.at, self.missing, self.is_done) = (0, None, false);
        self.pieces.clear();
    }

    /// The next element; the inner is none for the head of an array.
    fn piece(&mut self) -> Result<Option<Option<ReplyPiece>>, NotRedis> {
        if let Some((left, len)) = self.skipped {
            let from = self.start + self.at;
            let gone = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len() - from);
            self.buffer.drain(from..from + gone);
            let left = left - gone as u64;
            self.skipped = (left > 0).then_some((left, len));
            return Ok((left == 0).then_some(Some(ReplyPiece::TooLong(len))));
        }
        let rest = &self.buffer[self.start + self.at..];
        let Some(&kind) = rest.first() else { return Ok(None) };
        if !b"+-:$*".contains(&kind) {
            return Err(not_redis(rest));
        }
        let Some(end) = rest.iter().take(REDIS_LINE_BYTES_MAX).position(|&byte| byte == b'\n') else {
            return if rest.len() < REDIS_LINE_BYTES_MAX { Ok(None) } else { Err(not_redis(rest)) };
        };
        let Some(line) = rest[1..end].strip_suffix(b"\r") else { return Err(not_redis(rest)) };
        let (from, after) = (self.at + 1, self.at + end + 1);
        let line_range = from..from + line.len();
        let number = || -> Result<i64, NotRedis> {
            let number = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
            number.ok_or_else(|| not_redis(rest))
        };
        let piece = match kind {
            b'+' => ReplyPiece::Status(line_range),
            b'-' => ReplyPiece::Error(line_range),
            b':' => ReplyPiece::Number(number()?),
            b'$' => match u64::try_from(number()?) {
                Err(_) => ReplyPiece::Nothing,
                Ok(len) => return self.text(len, after),
            },
            _ if self.missing.is_some() => return Err(not_redis(rest)),
            _ => match number()? {
                -1 => ReplyPiece::Nothing,
                len @ 1..=ELEMENTS_MAX => {
                    (self.missing, self.at) = (usize::try_from(len).ok(), after);
                    return Ok(Some(None));
                }
                _ => return Err(not_redis(rest)),
            },
        };
        self.at = after;
        Ok(Some(Some(piece)))
    }

    /// A text of so many bytes that begins at `from`.
    fn text(&mut self, len: u64, from: usize) -> Result<Option<Option<ReplyPiece>>, NotRedis> {
        let whole = usize::try_from(len).ok().and_then(|len| from.checked_add(len)?.checked_add(2));
        let Some(end) = whole.filter(|end| *end <= self.reply_bytes_max) else {
            self.at = from;
            self.skipped = Some((len.saturating_add(2), len));
            return self.piece();
        };
        let Some(read) = self.buffer[self.start..].get(..end) else { return Ok(None) };
        if !read.ends_with(b"\r\n") {
            return Err(not_redis(&read[self.at..]));
        }
        self.at = end;
        Ok(Some(Some(ReplyPiece::Text(from..end - 2))))
    }
}

/// A TLS record of an alert or a handshake, or anything else.
fn not_redis(bytes: &[u8]) -> NotRedis {
    if let [0x15 | 0x16, 3, ..] | [0x15 | 0x16] = bytes {
        return NotRedis::Tls;
    }
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let some = &line[..line.len().min(QUOTED_BYTES_MAX)];
    NotRedis::Other(format!("{:?}", String::from_utf8_lossy(some)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 64;

    /// Everything that is decoded from these bytes, given in pieces of this size.
    fn decoded(bytes: &[u8], step: usize) -> (Vec<String>, Option<NotRedis>) {
        let mut decoder = ReplyDecoder::new(MAX);
        let mut all = Vec::new();
        for piece in bytes.chunks(step) {
            decoder.buffer().extend_from_slice(piece);
            loop {
                match decoder.next() {
                    Ok(Some(reply)) => all.push(format!("{reply:?}")),
                    Ok(None) => break,
                    Err(error) => return (all, Some(error)),
                }
            }
            assert!(
                decoder.buffer.len() <= MAX + step + REDIS_LINE_BYTES_MAX,
                "{} bytes are kept",
                decoder.buffer.len()
            );
        }
        (all, None)
    }

    fn text(text: &str) -> Element<'_> {
        Element::Text(text.as_bytes())
    }

    #[test]
    fn commands_are_arrays_of_texts() {
        assert_eq!(command(&["AUTH", "é"]), "*2\r\n$4\r\nAUTH\r\n$2\r\né\r\n".as_bytes());
    }

    #[test]
    fn replies_are_the_same_however_they_arrive() {
        let bytes =
            b"+OK\r\n-NOAUTH a b\r\n*3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n$-1\r\n*-1\r\n:-7\r\n\
            *4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nc\r\n$3\r\na\r\n\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n";
        let expected = [
            RedisReply::Status(b"OK"),
            RedisReply::Error(b"NOAUTH a b"),
            RedisReply::Array(SmallVec::from_slice(&[text("psubscribe"), text("*"), Element::Number(1)])),
            RedisReply::One(Element::Nothing),
            RedisReply::One(Element::Nothing),
            RedisReply::One(Element::Number(-7)),
            RedisReply::Array(SmallVec::from_slice(&[text("pmessage"), text("*"), text("c"), text("a\r\n")])),
            RedisReply::Array(SmallVec::from_slice(&[text("pong"), text("")])),
        ];
        let expected: Vec<String> = expected.iter().map(|reply| format!("{reply:?}")).collect();
        for step in [1, 2, 3, 7, bytes.len()] {
            assert_eq!(decoded(bytes, step), (expected.clone(), None), "{step}");
        }
    }

    #[test]
    fn what_exceeds_the_bound_is_skipped_and_never_stored() {
        let long = "x".repeat(10_000);
        let bytes = format!("*2\r\n$10000\r\n{long}\r\n$1\r\na\r\n+OK\r\n");
        for step in [1, 100, 9_999] {
            let (all, error) = decoded(bytes.as_bytes(), step);
            let array = RedisReply::Array(SmallVec::from_slice(&[Element::TooLong(10_000), text("a")]));
            assert_eq!(
                (all, error),
                (vec![format!("{array:?}"), format!("{:?}", RedisReply::Status(b"OK"))], None)
            );
        }
        // Several elements share the bound.
        let bytes = format!("*2\r\n$40\r\n{0}\r\n$40\r\n{0}\r\n", "y".repeat(40));
        let (all, _) = decoded(bytes.as_bytes(), 5);
        assert!(all.len() == 1 && all[0].contains("TooLong(40)"), "{all:?}");
        // A length that no memory holds is only waited for.
        assert_eq!(decoded(b"$9223372036854775807\r\nabc", 4), (Vec::new(), None));
    }

    #[test]
    fn other_servers_are_recognised() {
        for (bytes, words) in [
            (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "it answers \"HTTP/1.1 400 Bad Request\""),
            (b"\x15\x03\x03\x00\x02\x02\x46", "rediss://"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0"),
            (b"$x\r\n", "no Redis"),
            (b"*2\r\n*1\r\n", "no Redis"),
            (b"*1000000\r\n", "no Redis"),
            (b"$1\r\nabc", "no Redis"),
            (b"+a\n", "no Redis"),
        ] {
            for step in [1, bytes.len()] {
                let (all, error) = decoded(bytes, step);
                let sentence = error.unwrap().to_string();
                assert!(all.is_empty() && (step == 1 || sentence.contains(words)), "{sentence}");
            }
        }
        let endless = [b"+", &b"a".repeat(REDIS_LINE_BYTES_MAX)[..]].concat();
        assert!(decoded(&endless, 1000).1.is_some());
    }
}
