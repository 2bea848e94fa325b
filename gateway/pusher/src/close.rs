//! Close codes of Pusher clients. pusher-js reconnects at once after 4200 to 4299, after a second after 4100
//! to 4199 and codes below 4000, and never after 4001 to 4099 or from 4300 on: those are for clients that
//! must stop.

use broadgate_proto::v1::Cause;

/// A code, and its meaning in the protocol's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PusherClose {
    pub code: u16,
    pub reason: &'static str,
}

const fn close(code: u16, reason: &'static str) -> PusherClose {
    PusherClose { code, reason }
}

pub const TLS_ONLY: PusherClose =
    close(4000, "Application only accepts SSL connections, reconnect using wss://");
pub const NO_APP: PusherClose =
    close(4001, "App key not known here. Did you forget to add it to the server's apps?");
/// For a raw client, which knows no key.
pub const REMOVED: PusherClose = close(4001, "Application removed");
pub const DISABLED: PusherClose = close(4003, "Application disabled");
pub const OVER_QUOTA: PusherClose = close(4004, "Application is over connection quota");
pub const BAD_VERSION: PusherClose = close(4006, "Invalid version string format");
pub const UNSUPPORTED: PusherClose = close(4007, "Unsupported protocol version");
pub const UNAUTHORIZED: PusherClose = close(4009, "Connection is unauthorized");
pub const OVER_CAPACITY: PusherClose = close(4100, "Over capacity");
pub const RECONNECT: PusherClose = close(4200, "Generic reconnect immediately");
const NO_PONG: PusherClose = close(4201, "Pong reply not received");

/// The close code for a cause on the server's side; none where the caller chooses the code.
pub fn for_cause(cause: Cause) -> Option<PusherClose> {
    match cause {
        // Drains are spread over time, so clients may reconnect at once.
        Cause::Drain => Some(RECONNECT),
        Cause::Silent => Some(NO_PONG),
        Cause::Slow | Cause::NoWorker => Some(OVER_CAPACITY),
        _ => None,
    }
}

/// The protocol version that a client asks for: 4 to 7 are accepted and treated as 7.
pub fn check_protocol(asked: Option<&str>) -> Result<(), PusherClose> {
    match asked.map(str::parse::<u32>) {
        None | Some(Ok(4..=7)) => Ok(()),
        Some(Ok(_)) => Err(UNSUPPORTED),
        Some(Err(_)) => Err(BAD_VERSION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_should_reconnect_do() {
        for cause in [Cause::Drain, Cause::Silent, Cause::Slow, Cause::NoWorker] {
            assert!((4100..4300).contains(&for_cause(cause).unwrap().code), "{cause:?}");
        }
        assert_eq!(for_cause(Cause::Command), None);
    }

    #[test]
    fn protocols_four_to_seven_are_spoken() {
        for (asked, answer) in [
            (None, Ok(())),
            (Some("4"), Ok(())),
            (Some("7"), Ok(())),
            (Some("3"), Err(UNSUPPORTED)),
            (Some("8"), Err(UNSUPPORTED)),
            (Some("seven"), Err(BAD_VERSION)),
            (Some(""), Err(BAD_VERSION)),
        ] {
            assert_eq!(check_protocol(asked), answer, "{asked:?}");
        }
    }
}
