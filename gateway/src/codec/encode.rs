//! Messages to clients, framed once per protocol. Pure.

use std::{cell::Cell, ops::Deref, rc::Rc};

use broadgate_proto::close::CloseCode;
use bytes::{BufMut, Bytes, BytesMut};

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const FIN: u8 = 0x80;

/// The protocols that the gateway's listeners speak; messages are framed for no other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoder {
    pub(crate) websocket: bool,
    pub(crate) text: bool,
    pub(crate) frame: bool,
    /// Does any app have Pusher clients?
    pub(crate) pusher: bool,
}

/// One message, or several merged ones, framed for every protocol in use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frames<F = Bytes> {
    pub(crate) websocket: Option<F>,
    pub(crate) text: Option<F>,
    pub(crate) frame: Option<F>,
    /// For Pusher clients: also a WebSocket frame, but always of an event.
    pub(crate) pusher: Option<F>,
    /// For Socket.IO clients, of apps that may have some: a WebSocket frame of an event.
    pub(crate) socketio: Option<F>,
    /// Bytes of payload, for counters.
    pub(crate) payload: usize,
}

/// What outboxes hold: a frame that one shard's clients share. Its references are counted by that shard
/// alone; those of the `Bytes` would be by all shards at once, for every delivery.
pub(crate) type SharedFrame = Rc<CountedFrame>;

/// A frame whose bytes its shard counts until the last reference is dropped.
#[derive(Debug)]
pub(crate) struct CountedFrame {
    bytes: Bytes,
    live: LiveBytes,
}

/// Memory of all frames of one shard, in bytes. A frame costs one addition when it is created and one
/// when it is dropped, and none per client.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveBytes(Rc<Cell<usize>>);

/// Memory of a frame besides its bytes: the struct, its counters and the allocator's overhead.
const FRAME_BYTES: usize = 96;

impl LiveBytes {
    pub(crate) fn bytes(&self) -> usize {
        self.0.get()
    }

    /// A frame that several clients may share.
    pub(crate) fn frame(&self, bytes: Bytes) -> SharedFrame {
        self.0.set(self.0.get() + bytes.len() + FRAME_BYTES);
        Rc::new(CountedFrame { bytes, live: self.clone() })
    }
}

impl Deref for CountedFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for CountedFrame {
    fn drop(&mut self) {
        let live = &self.live.0;
        live.set(live.get().saturating_sub(self.bytes.len() + FRAME_BYTES));
    }
}

impl Frames {
    /// Bytes of all forms together.
    pub(crate) fn heap_bytes(&self) -> usize {
        let forms = [&self.websocket, &self.text, &self.frame, &self.pusher, &self.socketio];
        forms.into_iter().flatten().map(Bytes::len).sum()
    }

    /// For one shard's outboxes.
    pub(crate) fn share(&self, live: &LiveBytes) -> Frames<SharedFrame> {
        let share = |frame: &Option<Bytes>| frame.clone().map(|frame| live.frame(frame));
        Frames {
            websocket: share(&self.websocket),
            text: share(&self.text),
            frame: share(&self.frame),
            pusher: share(&self.pusher),
            socketio: share(&self.socketio),
            payload: self.payload,
        }
    }
}

impl Frames<SharedFrame> {
    /// What the message says, and whether it is text, from the first form that it has; of several merged messages the
    /// first.
    pub(crate) fn said(&self) -> Option<(bool, &[u8])> {
        let in_frame = [&self.websocket, &self.pusher, &self.socketio].into_iter().flatten().next();
        if let Some(frame) = in_frame {
            let [head, len, rest @ ..] = &frame[..] else { return None };
            let (len, rest) = match (len & 0x7f, rest) {
                (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
                (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                    let len = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                    (usize::try_from(len).ok()?, rest)
                }
                (len, rest) => (usize::from(len), rest),
            };
            return Some((head & 0xf == TEXT, rest.get(..len)?));
        }
        let line = self.text.as_ref().and_then(|line| line.strip_suffix(b"\n"));
        let prefixed = || self.frame.as_ref().and_then(|frame| frame.get(4..));
        line.or_else(prefixed).map(|said| (std::str::from_utf8(said).is_ok(), said))
    }
}

impl Encoder {
    pub(crate) fn text(self, payload: &[u8]) -> Frames {
        self.message(TEXT, payload)
    }

    pub(crate) fn binary(self, payload: &[u8]) -> Frames {
        self.message(BINARY, payload)
    }

    /// Checks frames built by the caller: whole, unmasked, with valid opcodes; for WebSocket clients only.
    pub(crate) fn framed(frames: Bytes) -> Result<Frames, String> {
        check_frames(&frames)?;
        let payload = frames.len();
        Ok(Frames { websocket: Some(frames), payload, ..Frames::default() })
    }

    /// An event that has a name: every client gets the same object.
    pub(crate) fn event(self, object: &[u8]) -> Frames {
        let mut frames = self.text(object);
        if self.pusher {
            frames.pusher = Some(frames.websocket.clone().unwrap_or_else(|| websocket(TEXT, object)));
        }
        frames
    }

    fn message(self, opcode: u8, payload: &[u8]) -> Frames {
        Frames {
            pusher: None,
            socketio: None,
            websocket: self.websocket.then(|| websocket(opcode, payload)),
            text: self.text.then(|| line(payload)),
            frame: self.frame.then(|| length_prefixed(payload)),
            payload: payload.len(),
        }
    }
}

/// A message for one client that speaks WebSocket.
pub(crate) fn text_frame(text: &str) -> Bytes {
    websocket(TEXT, text.as_bytes())
}

/// A ping without payload (RFC 6455 section 5.5.2).
pub(crate) const PING_FRAME: Bytes = Bytes::from_static(&[FIN | PING, 0]);

/// A close frame without a code.
pub(crate) const EMPTY_CLOSE_FRAME: Bytes = Bytes::from_static(&[FIN | CLOSE, 0]);

/// A close frame; the reason is cut to what fits.
pub(crate) fn close_frame(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(broadgate_proto::limits::CLOSE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = BytesMut::with_capacity(2 + end);
    payload.put_u16(code);
    payload.put_slice(&reason.as_bytes()[..end]);
    websocket(CLOSE, &payload)
}

pub(crate) fn close_code_frame(close: CloseCode) -> Bytes {
    close_frame(close.code, close.reason)
}

/// A whole, unmasked frame (RFC 6455 section 5.2).
fn websocket(opcode: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 10);
    frame.put_u8(FIN | opcode);
    match payload.len() {
        len @ 0..=125 => frame.put_u8(len as u8),
        len @ 126..=0xffff => {
            frame.put_u8(126);
            frame.put_u16(len as u16);
        }
        len => {
            frame.put_u8(127);
            frame.put_u64(len as u64);
        }
    }
    frame.put_slice(payload);
    frame.freeze()
}

fn line(payload: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(payload.len() + 1);
    line.put_slice(payload);
    line.put_u8(b'\n');
    line.freeze()
}

/// The length includes its own four bytes, as in GatewayWorker's `frame` protocol.
fn length_prefixed(payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 4);
    frame.put_u32(u32::try_from(payload.len() + 4).unwrap_or(u32::MAX));
    frame.put_slice(payload);
    frame.freeze()
}

/// A broken frame would break every client that gets it.
fn check_frames(mut frames: &[u8]) -> Result<(), String> {
    if frames.is_empty() {
        return Err("framed is empty: give at least one WebSocket frame".to_owned());
    }
    let mut fragmented = false;
    while let [head, len, rest @ ..] = frames {
        let (opcode, fin) = (head & 0x0f, head & FIN != 0);
        if head & 0x70 != 0 || len & 0x80 != 0 {
            return Err(
                "framed contains a frame with a reserved bit or a mask, which servers do not send".to_owned()
            );
        }
        match (opcode, fragmented) {
            (0, true) | (1 | 2, false) => fragmented = !fin,
            (9 | 10, _) if fin && *len <= 125 => {}
            _ => return Err(format!("framed contains opcode {opcode} where it is not allowed")),
        }
        let (header, len) = match *len {
            126 => (2, rest.get(..2).map(|b| u64::from(u16::from_be_bytes([b[0], b[1]])))),
            127 => (8, rest.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes)),
            len => (0, Some(u64::from(len))),
        };
        let end = len.and_then(|len| usize::try_from(len).ok()).and_then(|len| len.checked_add(header));
        match end.and_then(|end| rest.get(end..)) {
            Some(next) => frames = next,
            None => return Err("framed ends within a frame".to_owned()),
        }
    }
    if !frames.is_empty() || fragmented {
        return Err("framed ends within a frame or a fragmented message".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVERY: Encoder = Encoder { websocket: true, text: true, frame: true, pusher: true };

    #[test]
    fn each_protocol_has_its_frame() {
        let frames = EVERY.text(b"hi");
        assert_eq!(frames.websocket.unwrap(), &b"\x81\x02hi"[..]);
        assert_eq!(frames.text.unwrap(), &b"hi\n"[..]);
        assert_eq!(frames.frame.unwrap(), &b"\0\0\0\x06hi"[..]);
        assert_eq!(close_frame(1012, "service restart")[..4], [0x88, 17, 0x03, 0xf4]);
        assert_eq!(close_frame(1000, &"é".repeat(100)).len(), 2 + 2 + 122);
    }

    #[test]
    fn a_frame_counts_once_for_as_long_as_somebody_holds_it() {
        let live = LiveBytes::default();
        let shared = EVERY.text(b"hi").share(&live);
        let whole = live.bytes();
        assert_eq!(whole, 3 * FRAME_BYTES + 4 + 3 + 6);
        let held = [Rc::clone(shared.text.as_ref().unwrap()), Rc::clone(shared.text.as_ref().unwrap())];
        drop(shared);
        assert_eq!(live.bytes(), FRAME_BYTES + 3);
        drop(held);
        assert_eq!(live.bytes(), 0);
    }

    proptest! {
        #[test]
        fn own_frames_pass_the_check_and_cut_ones_do_not(
            payloads in prop::collection::vec(0..70_000usize, 1..3), cut in 1..200usize,
        ) {
            let all: Vec<u8> = payloads.iter().flat_map(|&len| websocket(BINARY, &vec![7; len]).to_vec()).collect();
            prop_assert!(check_frames(&all).is_ok());
            let last = websocket(BINARY, &vec![7; *payloads.last().unwrap()]).len();
            let cut = cut.min(last - 1);
            if cut > 0 {
                prop_assert!(check_frames(&all[..all.len() - cut]).is_err());
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = check_frames(&bytes);
        }
    }

    #[test]
    fn what_a_server_may_not_send_is_refused() {
        for bad in [
            &b""[..],
            b"\x81",
            b"\x81\x82aaaahi",
            b"\xc1\x00",
            b"\x83\x00",
            b"\x00\x00",
            b"\x01\x00",
            b"\x88\x00",
        ] {
            assert!(check_frames(bad).is_err(), "{bad:?}");
        }
        assert!(check_frames(b"\x01\x01a\x89\x00\x80\x01b").is_ok());
    }
}
