//! Taps: the events of this gateway's clients, and those of all others, each by a stream of its own from the gateway
//! that has them. Links between gateways omit nothing, so what may be omitted goes beside them.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use anyhow::Context as _;
use broadgate_port::connect;
use broadgate_proto::{
    id::Incarnation,
    limits::{TAP_SECONDS_MAX, TAPS_MAX},
    v1::{self, TapEvents, TapStart, observe_client::ObserveClient},
    view,
};
use broadgate_tls::Credentials;
use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream, SelectAll},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{Code, Status, Streaming, transport::Endpoint};

use crate::{
    api::headers::status,
    callers::Caller,
    command::{known_caller, tapping},
    dispatch::{Dispatcher, Installed},
    identity::Identity,
    observers::{TapReader, Taps, whose},
};

/// How often a gateway that cannot be reached is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// A gateway that is silent for this long is asked whether it is there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);

pub(super) type TapResponse = Pin<Box<dyn Stream<Item = Result<TapEvents, Status>> + Send>>;

/// Opens a tap here and, unless this gateway alone is asked, at all others.
pub(super) async fn open(
    dispatcher: &Arc<Dispatcher>,
    taps: &Taps,
    credentials: &Credentials,
    caller: &Caller,
    mut request: v1::TapRequest,
) -> Result<TapResponse, Status> {
    let question = tapping(&request).map_err(status)?;
    let me = dispatcher.me.load_full();
    let own = me.incarnation.to_string();
    if !request.gateway.is_empty() && request.gateway != own {
        return Err(Status::unavailable(format!("this address now belongs to the gateway {own}")));
    }
    let seconds = question.seconds;
    let until = Instant::now() + Duration::from_secs(seconds.into());
    // A gateway says for whom it opens one here.
    let is_relayed = !request.gateway.is_empty() && !caller.has_token();
    if !is_relayed {
        request.by = caller.who().into_owned();
    }
    let asked = question.app.clone();
    // The token of another app may be behind a gateway.
    let sees = |app: &str| *app == *asked || !is_relayed && caller.may_call("Tap", Some(app)).is_ok();
    let stream = taps.open(question, &known_caller(&request.by)).map_err(|open| {
        let (name, whose) = (&me.name, whose(&open, sees));
        let sentence =
            format!("{name} has {TAPS_MAX} taps, as many as it may have: {whose}; end one of them");
        Status::resource_exhausted(sentence)
    })?;
    let place = stream.place;
    let own = OwnTap { stream, _tell: TellShards(Arc::downgrade(dispatcher)), me: Arc::clone(&me), until };
    let clients = dispatcher.local.tap(place).await;
    let start = TapStart { clients, seconds };
    let start = TapEvents { gateway: me.name.clone(), start: Some(start), ..TapEvents::default() };
    let own = stream::iter([start]).chain(stream::unfold(own, OwnTap::next)).boxed();
    if !request.gateway.is_empty() {
        return Ok(own.map(Ok).boxed());
    }
    let all = AllTaps {
        own,
        peers: SelectAll::new(),
        known: HashSet::from([me.incarnation]),
        installed: dispatcher.installed.clone(),
        credentials: credentials.clone(),
        request,
        until,
        silence_max: dispatcher.link_timeout,
    };
    Ok(stream::unfold(all, AllTaps::next).map(Ok).boxed())
}

/// This gateway's own tap. It ends with its time, and with this incarnation.
struct OwnTap {
    // Dropped before the shards hear of it.
    stream: TapReader,
    _tell: TellShards,
    me: Arc<Identity>,
    until: Instant,
}

impl OwnTap {
    async fn next(mut self) -> Option<(TapEvents, Self)> {
        let (missed, events) = tokio::select! {
            biased;
            next = self.stream.next() => next,
            () = self.me.over.cancelled() => return None,
            () = sleep_until(self.until) => return None,
        };
        let gateway = self.me.name.clone();
        Some((TapEvents { gateway, missed, events, ..TapEvents::default() }, self))
    }
}

/// Tells the shards, when this is dropped, that a tap has ended. It does not keep them alive.
struct TellShards(Weak<Dispatcher>);

impl Drop for TellShards {
    fn drop(&mut self) {
        if let Some(dispatcher) = self.0.upgrade() {
            let pool = dispatcher.local.clone();
            dispatcher.spawner.spawn("end of a tap", async move { pool.tap_ended().await });
        }
    }
}

/// The taps of all gateways of the view. It ends with this gateway's own.
struct AllTaps {
    own: BoxStream<'static, TapEvents>,
    peers: SelectAll<BoxStream<'static, TapEvents>>,
    /// Gateways that are tapped, or were.
    known: HashSet<Incarnation>,
    installed: watch::Receiver<Installed>,
    credentials: Credentials,
    request: v1::TapRequest,
    until: Instant,
    silence_max: Duration,
}

impl AllTaps {
    async fn next(mut self) -> Option<(TapEvents, Self)> {
        loop {
            self.follow();
            let events = tokio::select! {
                own = self.own.next() => own?,
                Some(events) = self.peers.next() => events,
                // If there will be no other view, this one holds.
                Ok(()) = self.installed.changed() => continue,
            };
            return Some((events, self));
        }
    }

    /// Taps gateways that are new in the view.
    fn follow(&mut self) {
        let view = Arc::clone(&self.installed.borrow_and_update().view);
        for member in view::gateways(&view).filter(|member| !view::is_leaving(member)) {
            let Ok(incarnation) = member.incarnation.parse::<Incarnation>() else { continue };
            if !self.known.insert(incarnation) {
                continue;
            }
            let peer = PeerTap {
                incarnation,
                name: member.name.clone(),
                address: member.address.clone(),
                credentials: self.credentials.clone(),
                request: v1::TapRequest { gateway: member.incarnation.clone(), ..self.request.clone() },
                installed: self.installed.clone(),
                until: self.until,
                silence_max: self.silence_max,
                open: None,
                tried: false,
                is_told: false,
                is_over: false,
            };
            self.peers.push(stream::unfold(peer, PeerTap::next).boxed());
        }
    }
}

/// What to do about a gateway from which nothing comes.
const LOOK_AT_IT: &str = "see whether it runs and can be reached; it is tried again every second";

/// Why an open tap of another gateway broke: the library's words for a lost connection say nothing to an operator.
fn broken_tap(status: &Status) -> String {
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled => {
            format!("the connection to it broke, or it does not answer; {LOOK_AT_IT}")
        }
        _ => status.message().to_owned(),
    }
}

/// The tap of another gateway, opened again when its stream breaks.
struct PeerTap {
    incarnation: Incarnation,
    name: String,
    address: String,
    credentials: Credentials,
    request: v1::TapRequest,
    installed: watch::Receiver<Installed>,
    until: Instant,
    silence_max: Duration,
    open: Option<Streaming<TapEvents>>,
    tried: bool,
    /// The reader knows that nothing comes from it.
    is_told: bool,
    is_over: bool,
}

impl PeerTap {
    async fn next(mut self) -> Option<(TapEvents, Self)> {
        while !self.is_over {
            let why = match self.open.as_mut() {
                Some(open) => match open.message().await {
                    Ok(Some(events)) => {
                        self.is_told = false;
                        return Some((events, self));
                    }
                    Ok(None) => "its tap has ended".to_owned(),
                    Err(broken) => broken_tap(&broken),
                },
                None => match self.try_once().await? {
                    Ok(open) => {
                        self.open = Some(open);
                        continue;
                    }
                    Err(why) => why,
                },
            };
            self.open = None;
            if Instant::now() >= self.until {
                return None;
            }
            if !std::mem::replace(&mut self.is_told, true) {
                let gateway = self.name.clone();
                return Some((TapEvents { gateway, unreachable: why, ..TapEvents::default() }, self));
            }
        }
        None
    }

    /// Opens the stream, or says why not; none if the time is over.
    async fn try_once(&mut self) -> Option<Result<Streaming<TapEvents>, String>> {
        if std::mem::replace(&mut self.tried, true) {
            sleep(AGAIN).await;
        }
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        if view::find(&self.installed.borrow().view, self.incarnation).is_none() {
            self.is_over = true;
            return Some(Err("it has left the cluster".to_owned()));
        }
        // It ends after this gateway's own, which ends the whole.
        self.request.seconds = (left.as_secs_f64().ceil() as u32).clamp(1, TAP_SECONDS_MAX);
        let silence_max = self.silence_max;
        Some(match timeout(silence_max, self.dial()).await {
            Ok(Ok(Ok(open))) => Ok(open),
            Ok(Ok(Err(refused))) => {
                // Repeating would not help.
                self.is_over = !matches!(refused.code(), Code::Unavailable | Code::Unknown | Code::Internal);
                Err(match (refused.code(), refused.message()) {
                    (Code::Unimplemented, "") => "it is of an earlier version, which has no taps".to_owned(),
                    (_, message) => message.to_owned(),
                })
            }
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_) => Err(format!("no answer within {silence_max:?}; {LOOK_AT_IT}")),
        })
    }

    async fn dial(&self) -> anyhow::Result<Result<Streaming<TapEvents>, Status>> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .context("its address is malformed")?
            .connect_timeout(self.silence_max)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(self.silence_max)
            .keep_alive_while_idle(true);
        let channel = connect(endpoint, self.credentials.tls.as_ref()).await?;
        let mut client = ObserveClient::with_interceptor(channel, self.credentials.sender());
        Ok(client.tap(self.request.clone()).await.map(tonic::Response::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_tap_says_what_to_do() {
        let lost = Status::internal("h2 protocol error: error reading a body from connection");
        assert!(broken_tap(&lost).ends_with(LOOK_AT_IT) && !broken_tap(&lost).contains("h2"));
        assert_eq!(broken_tap(&Status::permission_denied("no")), "no");
    }
}
