//! What a shard reads between two looks at its mailbox.

/// Frames that a shard reads in one turn from clients that are not queued: clients with one message each are
/// rarely so many at once.
pub(super) const FRAMES_PER_TURN: u32 = 4096;
/// And bytes.
const BYTES_PER_TURN: usize = 4 * 1024 * 1024;

/// What may still be read in a turn; clients beyond it are queued.
#[derive(Debug)]
pub(crate) struct ReadBudget {
    frames: u32,
    bytes: usize,
}

impl Default for ReadBudget {
    fn default() -> Self {
        Self { frames: FRAMES_PER_TURN, bytes: BYTES_PER_TURN }
    }
}

impl ReadBudget {
    pub(super) fn take_frames(&mut self, frames: u32) {
        self.frames = self.frames.saturating_sub(frames);
    }

    pub(super) fn take_bytes(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub(super) fn is_spent(&self) -> bool {
        self.frames == 0 || self.bytes == 0
    }
}
