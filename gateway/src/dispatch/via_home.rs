//! Commands and queries that are sent to the homes of topics.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use broadgate_proto::{
    id::Incarnation,
    v1::{self, answer::Answer, command::Command},
};
use broadgate_topics::{HistoryPage, HomeOp, HomeReply, Topic};
use tonic::Code;

use crate::{
    cluster::{ClusterEvent, Routed, encode_inspection},
    command::{ParsedCommand, TopicCommand, position_text, refusal},
    dispatch::{
        dispatcher::Dispatcher,
        in_flight::{ClientScope, HomeQuestion, Placing, PlacingRight},
        pending::Parts,
        trace::take_taken,
    },
};

/// The part of a command that is sent to homes.
pub(super) enum Homed {
    /// Nothing.
    No,
    /// The whole command, to the home of this topic.
    Whole(Topic, HomeOp<crate::command::GatewayContent>),
    /// Counts of these topics, by name; every gateway answers the rest.
    Counts(ClientScope, BTreeMap<Incarnation, Vec<Topic>>),
}

/// A home's answer.
pub(super) struct Answered {
    pub(super) answer: Answer,
    /// Incarnations that the home lists as missing.
    pub(super) missing: Vec<Incarnation>,
    pub(super) epoch: v1::Epoch,
    /// Names of missing gateways, if every gateway was asked instead of the home.
    pub(super) names: Vec<String>,
}

impl Homed {
    /// Takes out the part of this command that goes to homes; the rest stays in it.
    pub(super) fn of(dispatcher: &Dispatcher, placing: &mut Placing) -> Self {
        let Ok(parsed) = placing.parsed.clone() else { return Self::No };
        match parsed.inner() {
            ParsedCommand::Roster { limit, after, .. } => {
                let op = HomeOp::Roster { limit: *limit + 1, after: (&**after).into() };
                parsed.topic().map_or(Self::No, |topic| Self::Whole(topic, op))
            }
            ParsedCommand::History { since, limit, .. } => {
                let op = HomeOp::History { since: *since, limit: *limit };
                parsed.topic().map_or(Self::No, |topic| Self::Whole(topic, op))
            }
            ParsedCommand::Inspect(topic) => Self::Whole(topic.clone(), HomeOp::Inspect),
            ParsedCommand::LastValue { .. } => {
                parsed.topic().map_or(Self::No, |topic| Self::Whole(topic, HomeOp::Last))
            }
            ParsedCommand::Count { app, groups, uids: false } if !groups.is_empty() => {
                let topics = groups.iter().map(|group| Topic::group(app, group));
                let by_home = dispatcher.by_home(topics);
                if let (Some(by_home), Some(Command::Count(request))) = (by_home, placing.message_mut()) {
                    request.groups.clear();
                    placing.parsed = Ok(Arc::new(ParsedCommand::Count {
                        app: app.clone(),
                        groups: Vec::new(),
                        uids: false,
                    }));
                    return Self::Counts(ClientScope::Groups, by_home);
                }
                Self::No
            }
            ParsedCommand::Online { app, clients, uids } if !uids.is_empty() => {
                let by_home = dispatcher.by_home(uids.iter().map(|uid| Topic::uid(app, uid)));
                if let (Some(by_home), Some(Command::Online(request))) = (by_home, placing.message_mut()) {
                    request.uids.clear();
                    let clients = clients.clone();
                    placing.parsed =
                        Ok(Arc::new(ParsedCommand::Online { app: app.clone(), clients, uids: Vec::new() }));
                    return Self::Counts(ClientScope::Uids, by_home);
                }
                Self::No
            }
            _ => match parsed.topic() {
                Some(topic) => Self::Whole(topic, HomeOp::Deliver(placing.share(&parsed))),
                None => Self::No,
            },
        }
    }

    /// Is the whole command sent to homes?
    pub(super) const fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(..))
    }

    /// Sends the questions to the homes.
    pub(super) async fn ask(
        &self,
        dispatcher: &Dispatcher,
        index: usize,
        placing: &Placing,
        parts: &mut Parts,
    ) {
        match self {
            Self::No => {}
            Self::Whole(topic, op) if placing.no_receipt => {
                let (topic, op) = (topic.clone(), op.clone());
                dispatcher.homes.send(ClusterEvent::Route { topic, op, reply: None }).await;
            }
            Self::Whole(topic, op) => {
                let traced = placing.tracing.is_some().then(|| dispatcher.asks_home(topic));
                let routed = dispatcher.homes.route(topic.clone(), op.clone()).await;
                parts.homed.push(HomeQuestion { index, routed, counted: None, traced });
            }
            Self::Counts(what, by_home) => {
                for topics in by_home.values() {
                    let routed =
                        dispatcher.homes.route(topics[0].clone(), HomeOp::Count(topics.clone())).await;
                    let counted = Some((*what, topics.clone()));
                    parts.homed.push(HomeQuestion { index, routed, counted, traced: None });
                }
            }
        }
    }
}

impl Dispatcher {
    /// Groups topics by their homes; empty while no gateway is ready.
    fn by_home(&self, topics: impl Iterator<Item = Topic>) -> Option<BTreeMap<Incarnation, Vec<Topic>>> {
        let ring = self.installed.borrow().ring.clone()?;
        let mut by_home: BTreeMap<Incarnation, Vec<Topic>> = BTreeMap::new();
        for topic in topics {
            by_home.entry(ring.pick(topic.key())?).or_default().push(topic);
        }
        Some(by_home)
    }

    /// Waits for a home's answer; if no home can give one, asks every gateway instead.
    pub(super) async fn answered(self: &Arc<Self>, asked: HomeQuestion, placing: &Placing) -> Answered {
        let HomeQuestion { routed, counted, traced, .. } = asked;
        let no_home = match routed.await {
            Ok(Routed::Reply(HomeReply::Busy)) => {
                return failed(format!(
                    "{} cannot take or park more commands now: repeat",
                    self.home_in_words(placing, "the topic's home")
                ));
            }
            Ok(Routed::Reply(reply)) => match self.read(reply, counted.as_ref()) {
                Some(mut answered) => {
                    self.note_asked(&mut answered.answer, traced, placing, None);
                    return as_asked(answered, placing);
                }
                None => counted,
            },
            Ok(Routed::NoHome) => counted,
            Err(_) => {
                return failed(
                    "this gateway was removed from the cluster meanwhile: repeat elsewhere".to_owned(),
                );
            }
        };
        if let Some(which) = only_by_home(self, placing) {
            let home = self.home_in_words(placing, "the group's home");
            return failed(format!("{home}, which {which}, does not answer: repeat"));
        }
        let given_up = traced.is_some().then(Instant::now);
        let command = no_home.map_or_else(|| placing.message(), |(what, topics)| count(what, &topics));
        let answer = Box::pin(self.run_by(command, None, PlacingRight::Everywhere, None)).await;
        let mut answered = everywhere(answer);
        self.note_asked(&mut answered.answer, traced, placing, given_up);
        answered
    }

    /// "the group's home, gateway-2": it may be another one since it was asked.
    fn home_in_words(&self, placing: &Placing, what: &str) -> String {
        let topic = placing.parsed.as_ref().ok().and_then(|parsed| parsed.topic());
        let name = topic.and_then(|topic| self.home_name(&topic));
        name.map_or_else(|| what.to_owned(), |name| format!("{what}, {name}"))
    }

    /// None if the home cannot answer.
    fn read(
        &self,
        reply: HomeReply<crate::command::GatewayContent>,
        counted: Option<&(ClientScope, Vec<Topic>)>,
    ) -> Option<Answered> {
        match reply {
            HomeReply::Done(done) => {
                let mut answer = done.answer.unwrap_or(Answer::Receipt(v1::Receipt::default()));
                if let Answer::Receipt(receipt) = &mut answer {
                    // Clients that got it the first time have it at another position.
                    receipt.ordered = !receipt.repeated;
                    receipt.position = done.position.map(position_text);
                    self.note_home(receipt, done.trace);
                }
                Some(Answered { answer, missing: done.missing, epoch: done.epoch, names: Vec::new() })
            }
            HomeReply::Counted { epoch, clients, missing } => {
                let (what, topics) = counted?;
                let counts = topics.iter().map(|topic| topic.name().to_owned()).zip(clients);
                let answer = match what {
                    ClientScope::Groups => {
                        let counts = counts
                            .map(|(name, clients)| (name, v1::Counts { clients, ..v1::Counts::default() }));
                        Answer::Count(v1::CountReply { groups: counts.collect(), ..Default::default() })
                    }
                    ClientScope::Uids => {
                        Answer::Online(v1::OnlineReply { uids: counts.collect(), ..Default::default() })
                    }
                };
                Some(Answered { answer, missing, epoch, names: Vec::new() })
            }
            HomeReply::Roster { epoch, members, total, missing } => {
                let members = members
                    .iter()
                    .map(|(user, info)| v1::PresenceMember {
                        user_id: user.to_string(),
                        info: info.to_string(),
                    })
                    .collect();
                let answer = Answer::Roster(v1::RosterReply { members, total, ..Default::default() });
                Some(Answered { answer, missing, epoch, names: Vec::new() })
            }
            HomeReply::Inspected(state) => {
                let answer = Answer::Inspected(encode_inspection(&state, |gateway| self.peers.name(gateway)));
                Some(Answered { answer, missing: state.missing, epoch: state.epoch, names: Vec::new() })
            }
            HomeReply::History { epoch, page } => {
                let answer = Answer::History(history_reply(page));
                Some(Answered { answer, missing: Vec::new(), epoch, names: Vec::new() })
            }
            HomeReply::Last { epoch, command, missing } => {
                use v1::{last_value_reply::Payload as Out, send_request::Payload};
                let age_ms = command.as_ref().map_or(0, |(_, age)| age.as_millis() as u64);
                let event = command.as_ref().map(|(job, _)| job.event_name().to_owned()).unwrap_or_default();
                let payload = command.and_then(|(job, _)| job.payload()).map(|payload| match payload {
                    Payload::Text(text) => Out::Text(text),
                    Payload::Binary(bytes) => Out::Binary(bytes),
                    Payload::Framed(bytes) => Out::Framed(bytes),
                });
                let answer = Answer::LastValue(v1::LastValueReply { coverage: None, payload, age_ms, event });
                Some(Answered { answer, missing, epoch, names: Vec::new() })
            }
            // A claim is not sent as a command.
            HomeReply::Claimed(_) | HomeReply::Moved | HomeReply::Busy | HomeReply::NotHome(_) => None,
        }
    }
}

/// Leaves out of a home's answer what its caller does not want.
fn as_asked(mut answered: Answered, placing: &Placing) -> Answered {
    if let (Answer::History(reply), Ok(parsed)) = (&mut answered.answer, &placing.parsed)
        && matches!(**parsed, ParsedCommand::History { payload: false, .. })
    {
        reply.messages.iter_mut().for_each(|message| message.payload = None);
    }
    answered
}

fn history_reply(page: HistoryPage<crate::command::GatewayContent>) -> v1::HistoryReply {
    use v1::{history_message::Payload as Out, send_request::Payload};
    let message = |(offset, age, job): (u64, Duration, Arc<TopicCommand>)| {
        let (command_id, event) = (job.id().to_owned(), job.event_name().to_owned());
        let bytes = job.payload().map_or(0, |payload| match payload {
            Payload::Text(text) => text.len(),
            Payload::Binary(bytes) | Payload::Framed(bytes) => bytes.len(),
        });
        let payload = job.payload().map(|payload| match payload {
            Payload::Text(text) => Out::Text(text),
            Payload::Binary(bytes) => Out::Binary(bytes),
            Payload::Framed(bytes) => Out::Framed(bytes),
        });
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        v1::HistoryMessage { offset, payload, command_id, age_ms, event, bytes: bytes as u64 }
    };
    v1::HistoryReply {
        coverage: None,
        messages: page.messages.into_iter().map(message).collect(),
        position: page.position.map(position_text),
        recovered: page.recovered,
    }
}

fn failed(sentence: String) -> Answered {
    Answered {
        answer: Answer::Error(refusal(Code::Unavailable, sentence)),
        missing: Vec::new(),
        epoch: v1::Epoch::default(),
        names: Vec::new(),
    }
}

/// Commands that only a home can answer, and sends to topics with a history, which must not miss any: what the home is
/// needed for.
fn only_by_home(dispatcher: &Dispatcher, placing: &Placing) -> Option<&'static str> {
    let parsed = placing.parsed.as_ref().ok()?;
    match parsed.inner() {
        ParsedCommand::Roster { .. }
        | ParsedCommand::History { .. }
        | ParsedCommand::LastValue { .. }
        | ParsedCommand::Inspect(_) => Some("alone knows this"),
        ParsedCommand::Send { .. } if dispatcher.retention.of(&parsed.topic()?).has_history() => {
            Some("keeps its history")
        }
        _ => None,
    }
}

/// The question that every gateway answers about its own clients.
fn count(what: ClientScope, topics: &[Topic]) -> Command {
    let app = topics.first().map(|topic| topic.app().to_owned()).unwrap_or_default();
    let names = topics.iter().map(|topic| topic.name().to_owned()).collect();
    match what {
        ClientScope::Groups => Command::Count(v1::CountRequest { app, groups: names, ..Default::default() }),
        ClientScope::Uids => Command::Online(v1::OnlineRequest { app, uids: names, ..Default::default() }),
    }
}

/// An answer that was gathered from every gateway already lists who is missing.
fn everywhere(mut answer: Answer) -> Answered {
    let coverage = match &mut answer {
        Answer::Receipt(receipt) => {
            receipt.trace.iter_mut().for_each(take_taken);
            receipt.coverage.take()
        }
        Answer::Count(reply) => {
            // The home was asked about the topics only.
            reply.app = None;
            reply.coverage.take()
        }
        Answer::Online(reply) => reply.coverage.take(),
        Answer::Roster(reply) => reply.coverage.take(),
        _ => None,
    };
    let coverage = coverage.unwrap_or_default();
    Answered {
        answer,
        missing: Vec::new(),
        epoch: coverage.epoch.unwrap_or_default(),
        names: coverage.missing,
    }
}
