//! The bytes waiting for one client. Pure: who writes them is elsewhere.

use std::{collections::VecDeque, io::IoSlice};

use bytes::Bytes;

/// How many frames one system call takes at most.
pub(crate) const SLICES_MAX: usize = 64;
/// A deque that a burst made larger than this is given back once it is empty.
const KEEP_FRAMES: usize = 16;

/// Whole frames, in order; the first may be partly written. Frames are shared between clients: an
/// outbox holds references.
#[derive(Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Bytes>,
    /// Bytes of the first frame that were written.
    written: usize,
    bytes: usize,
}

impl Outbox {
    pub(crate) fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.bytes += frame.len();
            self.frames.push_back(frame);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes that are not written yet.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn frames(&self) -> usize {
        self.frames.len()
    }

    /// What to write next; returns how many slices were filled.
    pub(crate) fn slices<'a>(&'a self, out: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut skip = self.written;
        let mut count = 0;
        for (slice, frame) in out.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(&frame[skip..]);
            skip = 0;
            count += 1;
        }
        count
    }

    /// That many bytes were written.
    pub(crate) fn advance(&mut self, mut written: usize) {
        self.bytes -= written.min(self.bytes);
        while let Some(front) = self.frames.front() {
            let left = front.len() - self.written;
            if written < left {
                self.written += written;
                return;
            }
            written -= left;
            self.written = 0;
            self.frames.pop_front();
        }
        if self.frames.capacity() > KEEP_FRAMES {
            self.frames = VecDeque::new();
        }
    }

    /// Drops what is not begun: the rest of a begun frame must still go, or nothing after it could
    /// be read.
    pub(crate) fn keep_begun(&mut self) {
        let keep = usize::from(self.written > 0);
        self.frames.truncate(keep);
        self.bytes = self.frames.front().map_or(0, |front| front.len() - self.written);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rest(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = outbox.slices(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    proptest! {
        #[test]
        fn bytes_leave_in_order_whatever_the_socket_takes(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..30),
            takes in prop::collection::vec(0..40usize, 0..60),
        ) {
            let mut outbox = Outbox::default();
            let whole: Vec<u8> = frames.concat();
            for frame in frames {
                outbox.push(frame.into());
            }
            let mut sent = Vec::new();
            for take in takes {
                prop_assert_eq!(outbox.bytes(), whole.len() - sent.len());
                let rest = rest(&outbox);
                let take = take.min(rest.len());
                sent.extend_from_slice(&rest[..take]);
                outbox.advance(take);
            }
            sent.extend(rest(&outbox));
            prop_assert_eq!(sent, whole);
        }
    }

    #[test]
    fn a_begun_frame_is_kept_whole() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"first"));
        outbox.push(Bytes::from_static(b"second"));
        outbox.advance(2);
        outbox.keep_begun();
        outbox.push(Bytes::from_static(b"!"));
        assert_eq!(rest(&outbox), b"rst!");
        assert_eq!(outbox.bytes(), 4);
        outbox.advance(4);
        outbox.push(Bytes::from_static(b"unbegun"));
        outbox.keep_begun();
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes(), 0);
    }
}
