//! The stream of one tab: the tab says what it shows, and gets one picture after the other: of the cluster (the head),
//! and of what its page shows (the body). Neither waits for the other.
//!
//! A tab that does not draw gets no further picture, and a hidden one gets none, so what is open and not looked at
//! costs the cluster nothing. After some minutes its stream is closed.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use broadgate_proto::limits::{DASHBOARD_HIDDEN_TIME_MAX, DASHBOARD_REQUEST_BYTES_MAX, WRITE_TIME_MAX};
use futures_util::{SinkExt as _, StreamExt as _, future::OptionFuture};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    dashboard::{
        head::ClusterHead,
        shown::ShownPage,
        tap::{OpenTap, Tapped},
        visitor::Visitor,
    },
    failure::Failure,
};

/// From one look at the cluster to the next: what it costs does not depend on how much the cluster has.
const HEAD_INTERVAL: Duration = Duration::from_secs(2);
/// Between two pictures of one kind at least, however often a tab says that it shows another page or is seen again.
const PICTURE_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// How often it is looked whether the session has ended.
const SESSION_LOOK: Duration = Duration::from_secs(5);
/// Batches of a tap that a tab has not drawn yet; meanwhile no more are read, and the gateways count what is missed.
const TAP_UNDRAWN_MAX: u32 = 2;
/// The close code after which the page asks for a login.
const LOGGED_OUT: u16 = 4401;
/// The close code after which the page waits until somebody looks at it again.
const UNSEEN: u16 = 4402;

/// What a tab says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Said {
    /// It shows this page now; its pictures carry the number.
    Show { number: u64, what: ShownPage },
    /// It has drawn one of the pictures.
    Drawn,
    /// Whether nobody can see it.
    Hidden(bool),
    /// It watches this from now on, and nothing else.
    Tap(Tapped),
    /// It watches nothing any more.
    Untap,
    /// It has drawn a batch of the tap.
    TapDrawn,
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;
type PictureFuture = Pin<Box<dyn Future<Output = Value> + Send>>;

/// A tab, and whose it is.
pub(super) struct Tab {
    pub(super) visitor: Arc<Visitor>,
    /// Whether the session still lasts; the argument says whether that counts as a use of it.
    pub(super) is_logged_in: Box<dyn Fn(bool) -> bool + Send + Sync>,
    /// Ends the session of somebody whose own token the cluster does not accept any more.
    pub(super) log_out: Option<Box<dyn Fn() + Send + Sync>>,
    pub(super) stop: CancellationToken,
}

/// What the tab looks at, and what it is owed.
struct VisitorLook {
    shown: Option<(u64, ShownPage)>,
    hidden: bool,
    /// When its stream is closed, if nobody looks until then.
    unseen_until: Option<Instant>,
    /// Pictures, and batches of its tap, that it has not drawn yet.
    undrawn: u32,
    tap_undrawn: u32,
    next_head: Instant,
    next_body: Instant,
    /// When the last ones were asked for.
    last_head: Option<Instant>,
    last_body: Option<Instant>,
}

/// Questions that are being asked.
#[derive(Default)]
struct PictureQuestions {
    head: Option<PictureFuture>,
    body: Option<PictureFuture>,
    opening: Option<Pin<Box<dyn Future<Output = OpenTap> + Send>>>,
    tap: Option<OpenTap>,
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
        let mut looking = VisitorLook::new();
        let mut asked = PictureQuestions::default();
        let mut look = tokio::time::interval(SESSION_LOOK);
        loop {
            let is_due = looking.is_due();
            let unseen_until = looking.unseen_until;
            let is_asked = (asked.head.is_some(), asked.body.is_some());
            tokio::select! {
                () = self.stop.cancelled() => return (1001, "the dashboard stops"),
                () = sleep_until(unseen_until.unwrap_or_else(Instant::now)), if unseen_until.is_some() => {
                    return (UNSEEN, "nobody has looked for some minutes");
                }
                _ = look.tick() => {
                    // To look counts as use: a tab that nobody sees looks at nothing.
                    if !(self.is_logged_in)(is_due) {
                        return (LOGGED_OUT, "logged out");
                    }
                }
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                        Ok(said) => {
                            asked.take(&said, &self.visitor);
                            looking.take(said);
                        }
                        Err(_) => return (1008, "not understood: reload the page"),
                    },
                    Some(Err(Error::Capacity(_))) => return (1009, "longer than anything that a page says"),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return (1000, ""),
                    Some(Ok(_)) => {}
                },
                picture = asked.next(looking.may_tap()) => {
                    if let Some(log_out) = self.log_out.as_ref().filter(|_| self.visitor.asker.is_refused()) {
                        log_out();
                        return (LOGGED_OUT, "your token is not accepted any more");
                    }
                    if !looking.give(socket, &picture).await {
                        return (1000, "");
                    }
                }
                () = sleep_until(looking.next_head), if is_due && !is_asked.0 => {
                    let now = Instant::now();
                    (looking.last_head, looking.next_head) = (Some(now), now + HEAD_INTERVAL);
                    asked.head = Some(Box::pin(head(Arc::clone(&self.visitor))));
                }
                () = sleep_until(looking.next_body), if is_due && !is_asked.1 => {
                    if let Some((number, shown)) = looking.shown.clone() {
                        let now = Instant::now();
                        (looking.last_body, looking.next_body) = (Some(now), now + shown.interval());
                        asked.body = Some(Box::pin(body(Arc::clone(&self.visitor), number, shown)));
                    }
                }
            }
        }
    }
}

impl PictureQuestions {
    /// What a tab says ends what was asked for before.
    fn take(&mut self, said: &Said, visitor: &Arc<Visitor>) {
        match said {
            Said::Show { .. } => self.body = None,
            Said::Untap => (self.opening, self.tap) = (None, None),
            Said::Tap(tapped) => {
                let (tapped, visitor) = (tapped.clone(), Arc::clone(visitor));
                self.tap = None;
                self.opening = Some(Box::pin(async move { tapped.open(&visitor.asker).await }));
            }
            Said::Drawn | Said::Hidden(_) | Said::TapDrawn => {}
        }
    }

    /// The next answer. May be dropped and called again.
    async fn next(&mut self, may_tap: bool) -> Value {
        if let Some(opening) = &mut self.opening {
            tokio::select! {
                tap = opening => {
                    self.opening = None;
                    self.tap = Some(tap);
                }
                picture = picture(&mut self.head, &mut self.body) => return picture,
            }
        }
        let tap = self.tap.as_mut().filter(|_| may_tap);
        let batch = OptionFuture::from(tap.map(OpenTap::next));
        tokio::select! {
            Some(batch) = batch => {
                self.tap.take_if(|tap| tap.is_over());
                batch
            }
            picture = picture(&mut self.head, &mut self.body) => picture,
        }
    }
}

/// The next picture.
async fn picture(head: &mut Option<PictureFuture>, body: &mut Option<PictureFuture>) -> Value {
    tokio::select! {
        Some(picture) = OptionFuture::from(head.as_mut()) => {
            *head = None;
            picture
        }
        Some(picture) = OptionFuture::from(body.as_mut()) => {
            *body = None;
            picture
        }
        else => std::future::pending().await,
    }
}

impl VisitorLook {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            shown: None,
            hidden: false,
            unseen_until: None,
            undrawn: 0,
            tap_undrawn: 0,
            next_head: now,
            next_body: now,
            last_head: None,
            last_body: None,
        }
    }

    /// Now, or as soon as the last picture is old enough.
    fn soon(last: Option<Instant>) -> Instant {
        let now = Instant::now();
        last.map_or(now, |last| now.max(last + PICTURE_INTERVAL_MIN))
    }

    /// Whether anything may be asked for it.
    fn is_due(&self) -> bool {
        self.shown.is_some() && !self.hidden && self.undrawn == 0
    }

    /// Whether a batch of its tap may be read for it.
    fn may_tap(&self) -> bool {
        !self.hidden && self.tap_undrawn < TAP_UNDRAWN_MAX
    }

    fn take(&mut self, said: Said) {
        match said {
            Said::Tap(_) | Said::Untap => self.tap_undrawn = 0,
            Said::TapDrawn => self.tap_undrawn = self.tap_undrawn.saturating_sub(1),
            Said::Show { number, what } => {
                self.shown = Some((number, what));
                self.next_body = Self::soon(self.last_body);
            }
            Said::Drawn => self.undrawn = self.undrawn.saturating_sub(1),
            Said::Hidden(hidden) => {
                // Said again, it does not begin again.
                self.unseen_until = hidden
                    .then(|| self.unseen_until.unwrap_or_else(|| Instant::now() + DASHBOARD_HIDDEN_TIME_MAX));
                self.hidden = hidden;
                if !hidden {
                    (self.next_head, self.next_body) =
                        (Self::soon(self.last_head), Self::soon(self.last_body));
                }
            }
        }
    }

    /// Sends it; whether the tab takes it.
    async fn give(&mut self, socket: &mut Socket, what: &Value) -> bool {
        let is_tap = what.get("tap").is_some();
        *(if is_tap { &mut self.tap_undrawn } else { &mut self.undrawn }) += 1;
        matches!(timeout(WRITE_TIME_MAX, socket.send(Message::text(what.to_string()))).await, Ok(Ok(())))
    }
}

/// The cluster, as of now.
async fn head(visitor: Arc<Visitor>) -> Value {
    let began = Instant::now();
    let head = if visitor.sees_all() {
        part(visitor.head.look(&visitor.asker).await)
    } else {
        part(ClusterHead::of_apps(&visitor.who.apps))
    };
    json!({ "took_ms": took_ms(began), "head": head })
}

/// What the page shows, as of now.
async fn body(visitor: Arc<Visitor>, number: u64, shown: ShownPage) -> Value {
    let began = Instant::now();
    let body = part(shown.body(&visitor.asker, &visitor.chosen).await);
    json!({ "number": number, "took_ms": took_ms(began), "body": body })
}

fn took_ms(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or_default()
}

fn part(part: Result<Value, Failure>) -> Value {
    match part {
        Ok(value) => json!({ "ok": value }),
        Err(failure) => {
            let is_missing = matches!(failure, Failure::NotFound(_));
            json!({ "error": failure.to_string(), "is_missing": is_missing })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tab_says_what_it_shows_and_nothing_else() {
        let parse = |text: &str| serde_json::from_str::<Said>(text);
        let show = parse(r#"{"show": {"number": 3, "what": {"page": "overview"}}}"#).unwrap();
        assert!(matches!(show, Said::Show { number: 3, what: ShownPage::Overview { .. } }));
        assert!(matches!(parse(r#""drawn""#).unwrap(), Said::Drawn));
        assert!(matches!(parse(r#"{"hidden": true}"#).unwrap(), Said::Hidden(true)));
        for wrong in [r#"{"close": {}}"#, "[]", r#"{"show": {"number": 3}}"#, r#"{"hidden": 1}"#] {
            parse(wrong).unwrap_err();
        }
    }

    #[test]
    fn nothing_is_asked_for_a_tab_that_is_hidden_or_slow() {
        let mut looking = VisitorLook::new();
        assert!(!looking.is_due(), "it shows nothing yet");
        looking.take(Said::Show { number: 1, what: ShownPage::Overview { app: String::new() } });
        assert!(looking.is_due());
        looking.undrawn = 2;
        looking.take(Said::Drawn);
        assert!(!looking.is_due(), "one is not drawn yet");
        looking.take(Said::Drawn);
        looking.take(Said::Drawn);
        assert!(looking.is_due());
        looking.take(Said::Hidden(true));
        assert!(!looking.is_due());
        let until = looking.unseen_until.expect("its stream is closed some time");
        looking.take(Said::Hidden(true));
        assert_eq!(looking.unseen_until, Some(until), "from when it was hidden first");
        let later = Instant::now() + Duration::from_secs(9);
        (looking.next_head, looking.next_body) = (later, later);
        looking.take(Said::Hidden(false));
        assert!(looking.is_due() && looking.next_head < later && looking.next_body < later, "at once");
        assert_eq!(looking.unseen_until, None);
        let last = Instant::now();
        (looking.last_head, looking.last_body) = (Some(last), Some(last));
        for _ in 0..9 {
            looking.take(Said::Hidden(false));
            looking.take(Said::Show { number: 2, what: ShownPage::Overview { app: String::new() } });
        }
        assert_eq!(
            (looking.next_head, looking.next_body),
            (last + PICTURE_INTERVAL_MIN, last + PICTURE_INTERVAL_MIN)
        );
    }
}
