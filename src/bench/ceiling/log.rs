//! A group's frames, one behind the other. Pure.
//!
//! A client is a cursor into it: an outbox costs nothing, and what has gathered for a client is one
//! slice, so one write. Every thread has its own copy of the logs of its clients' groups: a message
//! is copied once per thread, and nothing is locked on its way.

/// What is behind this is only kept for clients that lag, who are looked for no more often than the
/// log doubles.
const TRIM_BYTES: usize = 32 * 1024;
/// A client that lags by more loses messages.
pub(super) const LAG_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes that were appended, less those that nobody needs any more.
pub(super) struct Log {
    bytes: Vec<u8>,
    /// The position of the first byte that is still there.
    base: u64,
    /// Messages that were ever appended.
    messages: u64,
    trim_at: usize,
}

impl Default for Log {
    fn default() -> Self {
        Self { bytes: Vec::new(), base: 0, messages: 0, trim_at: TRIM_BYTES }
    }
}

impl Log {
    pub(super) fn append(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.messages += 1;
    }

    /// The position behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// What stands behind a cursor; none if the cursor lags too far.
    pub(super) fn after(&self, cursor: u64) -> Option<&[u8]> {
        let skip = usize::try_from(cursor.checked_sub(self.base)?).ok()?;
        self.bytes.get(skip..)
    }

    /// Is it time to look for what nobody needs?
    pub(super) fn wants_trim(&self) -> bool {
        self.bytes.len() > self.trim_at
    }

    /// Everybody has everything.
    pub(super) fn clear(&mut self) {
        self.base = self.end();
        self.bytes.clear();
        self.trim_at = TRIM_BYTES;
    }

    /// Everybody who counts has what stands before this.
    pub(super) fn trim(&mut self, least: u64) {
        let floor = self.end().saturating_sub(LAG_BYTES_MAX as u64);
        let least = least.max(floor).clamp(self.base, self.end());
        let skip = usize::try_from(least - self.base).unwrap_or(self.bytes.len());
        self.bytes.drain(..skip);
        self.base = least;
        self.trim_at = (self.bytes.len() * 2).max(TRIM_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_sees_what_was_appended_behind_it() {
        let mut log = Log::default();
        log.append(b"abc");
        let cursor = log.end();
        log.append(b"de");
        assert_eq!(log.after(0), Some(&b"abcde"[..]));
        assert_eq!(log.after(cursor), Some(&b"de"[..]));
        assert_eq!((log.after(log.end()), log.messages()), (Some(&b""[..]), 2));
    }

    #[test]
    fn trimming_and_clearing_keep_positions() {
        let mut log = Log::default();
        log.append(b"abc");
        log.append(b"de");
        log.trim(3);
        assert_eq!((log.after(2), log.after(3)), (None, Some(&b"de"[..])));
        log.clear();
        assert_eq!((log.end(), log.after(5), log.after(4)), (5, Some(&b""[..]), None));
        log.append(b"f");
        assert_eq!(log.after(5), Some(&b"f"[..]));
    }

    #[test]
    fn who_lags_too_far_is_not_waited_for_and_is_looked_for_ever_less_often() {
        let mut log = Log::default();
        let frame = vec![0; 1024 * 1024];
        for _ in 0..40 {
            log.append(&frame);
            if log.wants_trim() {
                log.trim(0);
            }
        }
        assert!(log.after(0).is_none());
        assert!(log.bytes.len() <= 2 * LAG_BYTES_MAX + frame.len());
    }
}
