//! Close codes: why a client is closed, and whether it may reconnect.
//!
//! Codes below 3000 are those of RFC 6455 section 7.4.1 and the IANA registry; those from 4000 follow the
//! Pusher protocol's ranges: after 4000–4099 do not reconnect, after 4100–4199 reconnect with a back-off,
//! after 4200–4299 reconnect at once.

/// What a client should do after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComeBack {
    /// Do not reconnect: the same attempt would fail again.
    Never,
    /// Reconnect at once, with a little jitter.
    Now,
    /// Reconnect after a back-off of a second or more.
    Later,
}

/// One code that Broadgate sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseCode {
    /// The number on the wire.
    pub code: u16,
    /// The reason on the wire.
    pub reason: &'static str,
    /// What the client should do.
    pub come_back: ComeBack,
}

const fn code(code: u16, reason: &'static str, come_back: ComeBack) -> CloseCode {
    CloseCode { code, reason, come_back }
}

/// A Close command without a code, and the answer to a client's own close.
pub const NORMAL: CloseCode = code(1000, "", ComeBack::Never);
/// The client broke RFC 6455.
pub const PROTOCOL_ERROR: CloseCode = code(1002, "protocol error", ComeBack::Never);
/// A text message that is not UTF-8.
pub const INVALID_UTF8: CloseCode = code(1007, "text is not UTF-8", ComeBack::Never);
/// More messages per second than the limit allows.
pub const TOO_MANY_MESSAGES: CloseCode = code(1008, "too many messages", ComeBack::Later);
/// A message over the size limit.
pub const TOO_LARGE: CloseCode = code(1009, "message too large", ComeBack::Never);
/// The gateway is stopping; others serve.
pub const COME_BACK: CloseCode = code(1012, "service restart", ComeBack::Now);
/// No worker accepted the client's events in time.
pub const NO_WORKER: CloseCode = code(1013, "no worker, try again later", ComeBack::Later);
/// Workers died of something that the client has sent.
pub const WORKER_KILLER: CloseCode = code(4011, "workers crashed on a message", ComeBack::Never);
/// An exclusive bind gave the uid to another client.
pub const REPLACED: CloseCode = code(4009, "replaced by another connection", ComeBack::Never);
/// The client does not read what is sent to it.
pub const SLOW: CloseCode = code(4100, "slow: outbox limit met", ComeBack::Later);
/// The client was silent for too long.
pub const SILENT: CloseCode = code(4201, "silent for too long", ComeBack::Now);

/// Every code above, for documents and tests.
pub const ALL: [CloseCode; 11] = [
    NORMAL,
    PROTOCOL_ERROR,
    INVALID_UTF8,
    TOO_MANY_MESSAGES,
    TOO_LARGE,
    COME_BACK,
    NO_WORKER,
    REPLACED,
    WORKER_KILLER,
    SLOW,
    SILENT,
];

/// The meaning of a received code for a client of any server of this kind.
#[must_use]
pub fn come_back(received: u16) -> ComeBack {
    if let Some(known) = ALL.iter().find(|known| known.code == received) {
        return known.come_back;
    }
    match received {
        1001 | 1006 | 1011 | 1014 => ComeBack::Later,
        4100..=4199 => ComeBack::Later,
        4200..=4299 => ComeBack::Now,
        _ => ComeBack::Never,
    }
}

/// Whether an application may send this code. RFC 6455 section 7.4: not the reserved ones.
#[must_use]
pub fn is_sendable(code: u16) -> bool {
    matches!(code, 1000 | 1001 | 1003 | 1007..=1009 | 1011..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_may_be_sent_and_fits_its_frame() {
        for close in ALL {
            assert!(is_sendable(close.code) || close.code == 1002, "{close:?}");
            assert!(close.reason.len() <= crate::limits::CLOSE_REASON_BYTES_MAX);
            assert_eq!(come_back(close.code), close.come_back);
        }
        for reserved in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            assert!(!is_sendable(reserved));
        }
    }
}
