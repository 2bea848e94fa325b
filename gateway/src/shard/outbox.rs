//! The bytes waiting for one client. Pure: who writes them is elsewhere.

use std::{io::IoSlice, rc::Rc};

use smallvec::SmallVec;

use crate::codec::encode::SharedFrame;

/// How many frames one vectored write takes at most.
pub(crate) const SLICES_MAX: usize = 64;
/// Up to so many bytes are joined and written from one piece of memory; more go as they lie.
pub(crate) const JOINED_BYTES_MAX: usize = 64 * 1024;
/// A list that a burst made larger than this is given back once it is empty.
const KEEP_FRAMES: usize = 16;

/// Whole frames, in order; the first may be partly written. Frames are shared between clients: an
/// outbox holds references. Its bytes are counted in 32 bits, and its limit may not be larger.
#[derive(Default)]
pub(crate) struct Outbox {
    /// One or two lie in the client itself.
    frames: SmallVec<[SharedFrame; 2]>,
    /// Bytes of the first frame that were written.
    written: u32,
    bytes: u32,
}

/// The frames of one outbox, one after the other in one piece of memory, for as long as outboxes that
/// hold the same follow: those of a group's members do, mostly.
#[derive(Default)]
pub(crate) struct JoinedFrames {
    frames: Vec<SharedFrame>,
    bytes: Vec<u8>,
}

/// What to write next.
pub(crate) enum Piece<'a> {
    One(&'a [u8]),
    /// Too much to be joined, or begun already.
    Several,
}

impl Outbox {
    pub(crate) fn push(&mut self, frame: SharedFrame) {
        if !frame.is_empty() {
            self.bytes += len_u32(&frame);
            self.frames.push(frame);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes that are not written yet.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    pub(crate) fn frames(&self) -> usize {
        self.frames.len()
    }

    /// What to write next: all that there is, if that is not much.
    pub(crate) fn piece<'a>(&'a self, joined: &'a mut JoinedFrames) -> Piece<'a> {
        match self.frames.first() {
            Some(only) if self.frames.len() == 1 => Piece::One(&only[self.written as usize..]),
            Some(_) if self.written == 0 && self.bytes() <= JOINED_BYTES_MAX => {
                joined.join(&self.frames);
                Piece::One(&joined.bytes)
            }
            _ => Piece::Several,
        }
    }

    /// The first frames as they lie; returns how many slices were filled.
    pub(crate) fn slices<'a>(&'a self, out: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut skip = self.written as usize;
        let mut count = 0;
        for (slice, frame) in out.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(&frame[skip..]);
            skip = 0;
            count += 1;
        }
        count
    }

    /// That many bytes were written.
    pub(crate) fn advance(&mut self, written: usize) {
        let mut written = u32::try_from(written).unwrap_or(u32::MAX);
        if written >= self.bytes {
            (self.written, self.bytes) = (0, 0);
            self.frames.clear();
            if self.frames.capacity() > KEEP_FRAMES {
                self.frames = SmallVec::new();
            }
            return;
        }
        self.bytes -= written;
        let mut whole = 0;
        for frame in &self.frames {
            let left = len_u32(frame) - self.written;
            if written < left {
                break;
            }
            written -= left;
            self.written = 0;
            whole += 1;
        }
        self.written += written;
        self.frames.drain(..whole);
    }

    /// Drops what is not begun: the rest of a begun frame must still go, or nothing after it could
    /// be read. So many bytes behind what was written are begun too: TLS has sealed them.
    pub(crate) fn keep_begun(&mut self, sealed: usize) {
        let begun = self.written as usize + sealed;
        let (mut keep, mut bytes) = (0, 0);
        while bytes < begun && keep < self.frames.len() {
            bytes += self.frames[keep].len();
            keep += 1;
        }
        self.frames.truncate(keep);
        self.bytes = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_sub(self.written);
    }
}

fn len_u32(frame: &SharedFrame) -> u32 {
    u32::try_from(frame.len()).unwrap_or(u32::MAX)
}

impl JoinedFrames {
    /// Joins these, unless they are joined already.
    fn join(&mut self, frames: &[SharedFrame]) {
        let same = self.frames.len() == frames.len()
            && self.frames.iter().zip(frames).all(|(mine, theirs)| Rc::ptr_eq(mine, theirs));
        if same {
            return;
        }
        self.frames.clear();
        self.bytes.clear();
        for frame in frames {
            self.bytes.extend_from_slice(frame);
            // Held, so that no other frame can come to lie where it lay.
            self.frames.push(Rc::clone(frame));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::encode::LiveBytes;

    fn shared(bytes: impl Into<Bytes>) -> SharedFrame {
        LiveBytes::default().frame(bytes.into())
    }

    fn piece(outbox: &Outbox, joined: &mut JoinedFrames) -> Vec<u8> {
        match outbox.piece(joined) {
            Piece::One(bytes) => bytes.to_vec(),
            Piece::Several => {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = outbox.slices(&mut slices);
                slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
            }
        }
    }

    proptest! {
        /// Two clients of one group, one of which is slower and has messages of its own.
        #[test]
        fn bytes_leave_in_order_whatever_the_sockets_take(
            steps in prop::collection::vec((0..4u8, 0..40usize), 0..120),
        ) {
            let mut joined = JoinedFrames::default();
            let mut outboxes = [Outbox::default(), Outbox::default()];
            let (mut due, mut sent) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
            for (step, size) in steps {
                let frame = shared(vec![(size + due[0].len()) as u8; size]);
                let to = if step == 0 { 1..2 } else { 0..2 };
                for client in to {
                    outboxes[client].push(Rc::clone(&frame));
                    due[client].extend_from_slice(&frame);
                    prop_assert_eq!(outboxes[client].bytes(), due[client].len() - sent[client].len());
                }
                for client in 0..2 {
                    let piece = piece(&outboxes[client], &mut joined);
                    let takes = if client == 0 || step == 3 { piece.len() } else { size.min(piece.len()) };
                    sent[client].extend_from_slice(&piece[..takes]);
                    outboxes[client].advance(takes);
                }
            }
            for client in 0..2 {
                while !outboxes[client].is_empty() {
                    let piece = piece(&outboxes[client], &mut joined);
                    outboxes[client].advance(piece.len());
                    sent[client].extend(piece);
                }
                prop_assert_eq!(&sent[client], &due[client]);
            }
        }
    }

    #[test]
    fn what_several_have_is_joined_once() {
        let (first, second) = (shared("one"), shared("two"));
        let mut joined = JoinedFrames::default();
        let mut outbox = Outbox::default();
        outbox.push(Rc::clone(&first));
        outbox.push(Rc::clone(&second));
        assert_eq!(piece(&outbox, &mut joined), b"onetwo");
        joined.bytes[0] = b'O';
        assert_eq!(piece(&outbox, &mut joined), b"Onetwo", "not joined again");
        outbox.push(second);
        assert_eq!(piece(&outbox, &mut joined), b"onetwotwo");
        // What is too much is not joined, and what was begun neither.
        outbox.advance(1);
        assert_eq!(piece(&outbox, &mut joined), b"netwotwo");
        outbox.push(shared(vec![0; JOINED_BYTES_MAX]));
        assert_eq!(piece(&outbox, &mut joined).len(), 8 + JOINED_BYTES_MAX);
        assert_eq!(joined.frames.len(), 3);
    }

    #[test]
    fn a_begun_frame_is_kept_whole() {
        let mut joined = JoinedFrames::default();
        let mut outbox = Outbox::default();
        outbox.push(shared("first"));
        outbox.push(shared("second"));
        outbox.advance(2);
        outbox.keep_begun(0);
        outbox.push(shared("!"));
        assert_eq!(piece(&outbox, &mut joined), b"rst!");
        assert_eq!(outbox.bytes(), 4);
        outbox.advance(4);
        outbox.push(shared("unbegun"));
        outbox.keep_begun(0);
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn sealed_frames_are_kept_whole() {
        for (written, sealed, left) in
            [(0, 0, 0), (0, 1, 5), (0, 5, 5), (0, 6, 11), (2, 0, 3), (2, 3, 3), (2, 4, 9)]
        {
            let mut outbox = Outbox::default();
            for text in ["first", "second", "third"] {
                outbox.push(shared(text));
            }
            outbox.advance(written);
            outbox.keep_begun(sealed);
            assert_eq!(outbox.bytes(), left, "{written} {sealed}");
            assert_eq!(piece(&outbox, &mut JoinedFrames::default()).len(), left);
        }
    }
}
