//! One stream to a register, from the dialling to its end.

use std::{net::SocketAddr, time::Duration};

use broadgate_proto::v1::{
    self, Beat, Goodbye, Hello, JoinReply, JoinRequest, MemberState, SetState, View, join_reply::Reply,
    join_request::Request,
};
use tokio::{
    sync::mpsc,
    time::{sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{RegisterLink, RegisterLinkEnd};
use crate::member::{
    address,
    config::Advertise,
    dial::{self, Dialed},
    event::MemberEvent,
    life::FollowStep,
    refusal::{is_refusal, leader},
    rivals::{self, Looking, Looks, Rival, RivalAction},
};

/// Requests waiting for one stream: a beat or a state each, at the pace of beats.
const REQUESTS_MAX: usize = 16;
/// From dialing to the opening of the stream.
const OPEN_TIME_MAX: Duration = Duration::from_secs(2);

impl RegisterLink {
    /// Joins at one address, and follows the register there.
    pub(super) async fn attempt(&mut self, register: &str, address: SocketAddr) -> RegisterLinkEnd {
        let credentials = self.config.credentials.clone();
        let dialed = match self.unwanted_within(dial::connect(address, &credentials)).await {
            None => return RegisterLinkEnd::Over,
            Some(Err(error)) => return self.unasked(address, format!("{error:#}")).await,
            Some(Ok(dialed)) => dialed,
        };
        let member = match self.describe(&dialed) {
            Ok(member) => member,
            Err(sentence) => return RegisterLinkEnd::Refused { sentence, fatal: true },
        };
        let state = member.state();
        let (requests, outgoing) = mpsc::channel(REQUESTS_MAX);
        let view =
            Some(View::clone(self.life.known())).filter(|view| broadgate_proto::view::epoch(view).term > 0);
        let hello = Request::Hello(Hello { member: Some(member), view, changes: true });
        let _ = requests.try_send(JoinRequest { request: Some(hello) });
        let Dialed { mut client, peer, .. } = dialed;
        let opening = timeout(OPEN_TIME_MAX, client.join(ReceiverStream::new(outgoing)));
        // Also if the process leaves meanwhile: the register may have taken the member in, and has to hear its goodbye.
        let replies = match self.ended_within(opening).await {
            None => return RegisterLinkEnd::Over,
            Some(Err(_)) => {
                let why = format!("{address} did not open a stream in {OPEN_TIME_MAX:?}");
                return self.unasked(address, why).await;
            }
            Some(Ok(Err(status))) => {
                if let Some(leader) = leader(&status, peer) {
                    return RegisterLinkEnd::Standby(leader);
                }
                return match refusal(&status) {
                    RegisterLinkEnd::Next(why) => self.unasked(address, why).await,
                    refused => refused,
                };
            }
            Some(Ok(Ok(response))) => response.into_inner(),
        };
        self.life.greeted(self.now());
        let known = self.publisher.views.subscribe();
        let looking = Looking::start(self.redial.all().to_vec(), credentials, known);
        let looks = Looks::new(peer);
        let end = self.follow(register, state, requests, replies, (looking, looks)).await;
        if let RegisterLinkEnd::Elsewhere(_) = end {
            self.avoid = Some(peer);
        }
        end
    }

    /// A register that could not even be asked: is something else at its address? Looked at until it has been
    /// logged, and not at every try.
    async fn unasked(&mut self, address: SocketAddr, why: String) -> RegisterLinkEnd {
        let known = self.strange.take().filter(|(known, _)| *known == address && self.trouble_logged);
        let why = match known {
            Some((_, why)) => why,
            None => {
                let tls = self.config.credentials.tls.clone();
                match self.unwanted_within(dial::explained(address, why, tls.as_ref())).await {
                    Some(why) => why,
                    None => return RegisterLinkEnd::Over,
                }
            }
        };
        self.strange = Some((address, why.clone()));
        RegisterLinkEnd::Next(why)
    }

    /// What a look at the other registers has shown: which one is to be followed instead.
    fn compare(&mut self, register: &str, looks: &mut Looks, seen: Vec<Rival>) -> Option<Rival> {
        let RivalAction { higher, lower, active, outside } = looks.take(seen, self.life.known());
        match active {
            Some(address) => {
                let why = format!("register {address} is active as well: run only one");
                if !std::mem::replace(&mut self.split_logged, true) {
                    tracing::error!(
                        register,
                        why,
                        ?outside,
                        "two registers are active: answers are incomplete"
                    );
                }
                self.publisher.split(register, why, outside);
            }
            None if std::mem::take(&mut self.split_logged) => self.publish_heard(register),
            None => {}
        }
        for rival in lower {
            let higher = broadgate_proto::view::epoch(self.life.known());
            broadgate_tasks::spawn(
                "step-down",
                rivals::step_down(rival, self.config.credentials.clone(), higher, looks.followed()),
            );
        }
        higher
    }

    fn publish_heard(&self, register: &str) {
        if self.redial.is_given(register) || self.led.as_deref() == Some(register) {
            self.publisher.heard(register);
        } else {
            self.publisher.heard_at_another(register);
        }
    }

    /// Describes this member to the register.
    fn describe(&mut self, dialed: &Dialed) -> Result<v1::Member, String> {
        let address = match &self.config.advertise {
            Advertise::None => String::new(),
            Advertise::Address(address) => address.clone(),
            Advertise::LocalPort(port) => {
                SocketAddr::new(dialed.local.ip().to_canonical(), *port).to_string()
            }
        };
        if let Some(sentence) = address::refusal(&address, dialed.local, dialed.peer) {
            return Err(sentence);
        }
        if !address.is_empty() && !std::mem::replace(&mut self.address_logged, true) {
            tracing::info!(%address, "advertising this address to the other members");
        }
        let config = &self.config;
        Ok(v1::Member {
            incarnation: self.incarnation.to_string(),
            role: config.role.into(),
            name: config.name.clone(),
            address,
            state: self.wishes.borrow().state.into(),
            ring_version: broadgate_proto::ring::RING_VERSION,
            version: config.version.clone(),
            services: config.services.clone(),
            since_ms: 0,
            listeners: config.listeners.clone(),
        })
    }

    /// The life of one stream.
    async fn follow(
        &mut self,
        register: &str,
        mut announced: MemberState,
        requests: mpsc::Sender<JoinRequest>,
        mut replies: Streaming<JoinReply>,
        (mut looking, mut looks): (Looking, Looks),
    ) -> RegisterLinkEnd {
        let mut welcomed = false;
        loop {
            if self.wishes.borrow().leave {
                return self.goodbye(&requests, &mut replies).await;
            }
            // Looked at in every turn: it may have changed while the stream was being opened.
            let wanted = self.wishes.borrow().state;
            if wanted != announced {
                announced = wanted;
                send(&requests, Request::SetState(SetState { state: announced.into() }));
            }
            let wake = self.started + self.life.wake();
            let step = tokio::select! {
                changed = self.wishes.changed() => {
                    if changed.is_err() {
                        return RegisterLinkEnd::Over;
                    }
                    if self.learn() {
                        return RegisterLinkEnd::Next("a peer knows of a register of a higher term".to_owned());
                    }
                    continue;
                }
                Some(seen) = looking.seen.recv(), if welcomed => {
                    if let Some(higher) = self.compare(register, &mut looks, seen) {
                        return RegisterLinkEnd::Elsewhere(higher);
                    }
                    continue;
                }
                reply = replies.message() => match reply {
                    // A reply of a later version says nothing to this one, but it was heard.
                    Ok(Some(JoinReply { reply: None })) => continue,
                    Ok(Some(JoinReply { reply: Some(reply) })) => {
                        match &reply {
                            Reply::Welcome(welcome) => self.publisher.ledger(Some(&welcome.ledger), 0),
                            Reply::Beat(answer) => self.publisher.ledger(None, answer.ledger_lag_ms),
                            Reply::Refused(refused) => self.publisher.refused_members(refused.members.clone()),
                            _ => {}
                        }
                        self.life.reply(reply, self.now())
                    }
                    Ok(None) if welcomed => return RegisterLinkEnd::Broken("it ended the stream".to_owned()),
                    Ok(None) => return RegisterLinkEnd::Next("it ended the stream".to_owned()),
                    Err(status) if welcomed => return RegisterLinkEnd::Broken(status.to_string()),
                    Err(status) => return refusal(&status),
                },
                () = sleep_until(wake) => self.life.tick(self.now()),
            };
            match step {
                FollowStep::Nothing => {}
                FollowStep::Welcomed => {
                    (welcomed, self.belongs) = (true, true);
                    self.redial.heard();
                    self.refusal_logged = false;
                    self.trouble_logged = false;
                    self.publish_heard(register);
                    tracing::info!(register, incarnation = %self.incarnation, "the register accepted this member");
                }
                FollowStep::Install(view) => self.publisher.view(view),
                FollowStep::Beat(number) => send(&requests, Request::Beat(Beat { number })),
                FollowStep::Drain(by) => self.emit(MemberEvent::Drain { by }),
                FollowStep::Dead(reason) => {
                    tracing::warn!(register, reason, incarnation = %self.incarnation, "removed from the cluster");
                    self.belongs = false;
                    self.emit(MemberEvent::Removed { reason });
                    return RegisterLinkEnd::Over;
                }
                FollowStep::Next(why) => return RegisterLinkEnd::Next(why),
                FollowStep::Elsewhere(other) if address::is_register(&other) => {
                    return RegisterLinkEnd::Referred(other);
                }
                FollowStep::Elsewhere(_) => {}
            }
        }
    }

    /// Says goodbye and waits for the register to end the stream; the caller bounds the wait.
    async fn goodbye(
        &mut self,
        requests: &mpsc::Sender<JoinRequest>,
        replies: &mut Streaming<JoinReply>,
    ) -> RegisterLinkEnd {
        send(requests, Request::Goodbye(Goodbye {}));
        let was_heard = loop {
            match replies.message().await {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        self.belongs &= !was_heard;
        RegisterLinkEnd::Over
    }
}

/// Queues a request. A full queue means that the register does not read: its silence ends the
/// stream soon.
fn send(requests: &mpsc::Sender<JoinRequest>, request: Request) {
    if requests.try_send(JoinRequest { request: Some(request) }).is_err() {
        metrics::counter!("broadgate_member_requests_dropped_total").increment(1);
    }
}

fn refusal(status: &Status) -> RegisterLinkEnd {
    match is_refusal(status) {
        // Only a register has the call.
        Some(fatal) if status.code() == Code::Unimplemented => {
            let sentence = format!("it is not a register, but speaks gRPC, as gateways do; {}", dial::HINT);
            RegisterLinkEnd::Refused { sentence, fatal }
        }
        Some(fatal) => RegisterLinkEnd::Refused { sentence: status.message().to_owned(), fatal },
        None => RegisterLinkEnd::Next(status.message().to_owned()),
    }
}
