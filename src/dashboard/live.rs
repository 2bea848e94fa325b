//! The stream of one tab: the tab says what it shows, and gets one snapshot of it after the other.
//!
//! A tab that does not answer gets no further snapshot, and a hidden one gets none, so what is open and not looked
//! at costs the cluster nothing.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate_proto::limits::{DASHBOARD_REQUEST_BYTES_MAX, WRITE_TIME_MAX};
use futures_util::{SinkExt as _, StreamExt as _, future::OptionFuture};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    dashboard::{shown::Shown, visitor::Visitor},
    failure::Failure,
};

/// How often it is looked whether the session has ended.
const SESSION_LOOK: Duration = Duration::from_secs(5);
/// The close code after which the page asks for a login.
const LOGGED_OUT: u16 = 4401;

/// What a tab says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Said {
    /// It shows this page now; its snapshots carry the number.
    Show { number: u64, what: Shown },
    /// It has drawn the last snapshot.
    Drawn,
    /// Whether nobody can see it.
    Hidden(bool),
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;
type Asking = Pin<Box<dyn Future<Output = Value> + Send>>;

/// A tab, and whose it is.
pub(super) struct Tab {
    pub(super) visitor: Arc<Visitor>,
    /// Whether the session still lasts; the argument says whether that counts as a use of it.
    pub(super) is_logged_in: Box<dyn Fn(bool) -> bool + Send + Sync>,
    pub(super) stop: CancellationToken,
}

/// What the tab looks at.
struct Looking {
    shown: Option<(u64, Shown)>,
    hidden: bool,
    /// It has drawn what was sent.
    drawn: bool,
    next: Instant,
}

impl Tab {
    /// Serves the stream until its end, or that of the session or the process.
    pub(super) async fn run(self, upgraded: hyper::upgrade::Upgraded) {
        let config = WebSocketConfig::default()
            .max_message_size(Some(DASHBOARD_REQUEST_BYTES_MAX))
            .max_frame_size(Some(DASHBOARD_REQUEST_BYTES_MAX));
        let io = TokioIo::new(upgraded);
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let (code, reason) = self.serve(&mut socket).await;
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        // The peer may be gone.
        let _ = timeout(WRITE_TIME_MAX, socket.close(Some(frame))).await;
    }

    /// Until the end of the stream; then the code and reason of its close.
    async fn serve(&self, socket: &mut Socket) -> (u16, &'static str) {
        let mut looking = Looking { shown: None, hidden: false, drawn: true, next: Instant::now() };
        let mut asking: Option<Asking> = None;
        let mut look = tokio::time::interval(SESSION_LOOK);
        loop {
            let is_due = asking.is_none() && looking.drawn && !looking.hidden && looking.shown.is_some();
            tokio::select! {
                () = self.stop.cancelled() => return (1001, "the dashboard stops"),
                _ = look.tick() => {
                    if !(self.is_logged_in)(false) {
                        return (LOGGED_OUT, "logged out");
                    }
                }
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                        Ok(said) => {
                            if matches!(said, Said::Show { .. }) {
                                // What was asked for is not shown any more.
                                asking = None;
                            }
                            looking.take(said);
                        }
                        Err(_) => return (1008, "not understood: reload the page"),
                    },
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return (1000, ""),
                    Some(Ok(_)) => {}
                },
                Some(snapshot) = OptionFuture::from(asking.as_mut()) => {
                    asking = None;
                    looking.drawn = false;
                    let text = Message::text(snapshot.to_string());
                    if !matches!(timeout(WRITE_TIME_MAX, socket.send(text)).await, Ok(Ok(()))) {
                        return (1000, "");
                    }
                }
                () = sleep_until(looking.next), if is_due => {
                    if !(self.is_logged_in)(true) {
                        return (LOGGED_OUT, "logged out");
                    }
                    if let Some((number, shown)) = looking.shown.clone() {
                        looking.next = Instant::now() + shown.interval();
                        asking = Some(Box::pin(snapshot(Arc::clone(&self.visitor), number, shown)));
                    }
                }
            }
        }
    }
}

impl Looking {
    fn take(&mut self, said: Said) {
        match said {
            Said::Show { number, what } => {
                self.shown = Some((number, what));
                self.drawn = true;
                self.next = Instant::now();
            }
            Said::Drawn => self.drawn = true,
            Said::Hidden(hidden) => {
                self.hidden = hidden;
                if !hidden {
                    self.next = Instant::now();
                }
            }
        }
    }
}

/// What the page shows, as of now.
async fn snapshot(visitor: Arc<Visitor>, number: u64, shown: Shown) -> Value {
    let (began, at) = (Instant::now(), SystemTime::now());
    let head = visitor.head.look(&visitor.asker);
    let body = shown.body(&visitor.asker, &visitor.chosen);
    let (head, body) = futures_util::join!(head, body);
    let part = |part: Result<Value, Failure>| match part {
        Ok(value) => json!({ "ok": value }),
        Err(failure) => {
            let is_missing = matches!(failure, Failure::NotFound(_));
            json!({ "error": failure.to_string(), "is_missing": is_missing })
        }
    };
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "number": number,
        "at_ms": u64::try_from(at.as_millis()).unwrap_or_default(),
        "took_ms": u64::try_from(began.elapsed().as_millis()).unwrap_or_default(),
        "interval_ms": u64::try_from(shown.interval().as_millis()).unwrap_or_default(),
        "head": part(head), "body": part(body),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tab_says_what_it_shows_and_nothing_else() {
        let parse = |text: &str| serde_json::from_str::<Said>(text);
        let show = parse(r#"{"show": {"number": 3, "what": {"page": "overview"}}}"#).unwrap();
        assert!(matches!(show, Said::Show { number: 3, what: Shown::Overview }));
        assert!(matches!(parse(r#""drawn""#).unwrap(), Said::Drawn));
        assert!(matches!(parse(r#"{"hidden": true}"#).unwrap(), Said::Hidden(true)));
        for wrong in [r#"{"close": {}}"#, "[]", r#"{"show": {"number": 3}}"#, r#"{"hidden": 1}"#] {
            parse(wrong).unwrap_err();
        }
    }

    #[test]
    fn hidden_tab_that_is_seen_again_is_due_at_once() {
        let later = Instant::now() + Duration::from_secs(9);
        let mut looking = Looking { shown: None, hidden: false, drawn: false, next: later };
        looking.take(Said::Hidden(true));
        assert!(looking.hidden && looking.next == later);
        looking.take(Said::Hidden(false));
        assert!(!looking.hidden && looking.next < later);
        looking.take(Said::Drawn);
        assert!(looking.drawn);
    }
}
