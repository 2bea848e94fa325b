//! Encoding of frames between gateways in the contract's messages.

use std::{sync::Arc, time::Duration};

use broadgate_proto::{
    id::Incarnation,
    limits,
    v1::{self, ask, peer_message::Message, placed, reply},
};
use broadgate_topics::{
    Claim, DecidedClaim, HomeOp, HomeOutcome, HomeReply, HomeTrace, LinkMessage, MemberChange, Topic,
};
use bytes::Bytes;
use tonic::Code;

use crate::{
    cluster::{
        coding::{DecodeError, Readable, decode_at, encode_at, encode_job},
        inspection::{decode_inspection, encode_inspection},
        parcel,
    },
    command::{CommandRefusal, GatewayContent, Parser, TopicCommand, refusal},
    webhooks::{decode_notified, encode_notified},
};

pub(super) fn encode(frame: LinkMessage<GatewayContent>) -> Message {
    match frame {
        LinkMessage::View(view) => Message::View(v1::View::clone(&view)),
        LinkMessage::InterestUpdate { serial, topic, clients, members, claims, knows_roster } => {
            let members = members.into_iter().map(member_update).collect();
            let claims = claims.into_iter().map(encode_claim).collect();
            Message::Interest(v1::InterestUpdate {
                serial,
                topic: key(&topic),
                clients,
                members,
                knows_roster,
                claims,
            })
        }
        LinkMessage::Synced { serial, epoch, sum } => {
            let (topics, sum) = sum.map_or((None, 0), |(topics, sum)| (Some(topics), sum));
            Message::Synced(v1::Synced { serial, epoch: Some(epoch), topics, sum })
        }
        LinkMessage::InterestAck(serial) => Message::InterestAck(serial),
        LinkMessage::Ask { id, topic, op } => {
            Message::Ask(v1::Ask { id, topic: key(&topic), op: Some(encode_op(op, &topic)) })
        }
        LinkMessage::Reply { id, reply } => {
            Message::Reply(v1::Reply { id, reply: Some(encode_reply(reply)) })
        }
        LinkMessage::Deliver { id, topic, at, command } => Message::Deliver(v1::Deliver {
            id,
            topic: key(&topic),
            at: Some(encode_at(at)),
            command: Some(encode_job(&command)),
        }),
        LinkMessage::Placed { id, placed } => {
            let placed = match placed {
                None => Some(placed::Placed::Stale(true)),
                Some(answer) => answer.map(|answer| placed::Placed::Answer(encode_answer(answer))),
            };
            Message::Placed(v1::Placed { id, placed })
        }
        LinkMessage::HandOver { topic, history } => {
            let (position, messages) = parcel::encode_history(history);
            Message::HandOver(v1::HandOver { topic: key(&topic), position: Some(position), messages })
        }
        LinkMessage::Value { topic, at, age, command } => Message::Value(v1::LastValue {
            topic: key(&topic),
            at: Some(encode_at(at)),
            age_ms: parcel::age_ms(age),
            command: Some(encode_job(&command)),
        }),
        LinkMessage::Present { topic, at, whole, members } => {
            let members = members.into_iter().map(member_update).collect();
            Message::Present(v1::Present { topic: key(&topic), at: Some(encode_at(at)), whole, members })
        }
        LinkMessage::ClaimDecisions { topic, at, claims } => {
            let claims = claims.into_iter().map(|DecidedClaim { user, number, granted }| v1::ClaimDecision {
                user_id: user.to_string(),
                number,
                granted,
            });
            Message::ClaimDecisions(v1::ClaimDecisions {
                topic: key(&topic),
                at: Some(encode_at(at)),
                claims: claims.collect(),
            })
        }
        LinkMessage::Reported { serial, topic, whole, more, notified } => {
            let (topic, notified) = (key(&topic), Some(encode_notified(notified)));
            Message::Reported(v1::Reported { serial, topic, whole, more, notified })
        }
    }
}

fn key(topic: &Topic) -> Bytes {
    Bytes::copy_from_slice(topic.key())
}

fn encode_answer(answer: v1::answer::Answer) -> v1::Answer {
    v1::Answer { id: 0, answer: Some(answer) }
}

fn texts(incarnations: Vec<Incarnation>) -> Vec<String> {
    incarnations.iter().map(ToString::to_string).collect()
}

fn member_update(change: MemberChange) -> v1::MemberUpdate {
    let gone = change.info.is_none();
    let info = change.info.as_deref().unwrap_or_default().to_owned();
    v1::MemberUpdate { member: Some(v1::PresenceMember { user_id: change.user.to_string(), info }), gone }
}

fn encode_claim(claim: Claim) -> v1::PresenceClaim {
    let Claim { user, info, number, max } = claim;
    let member = v1::PresenceMember { user_id: user.to_string(), info: info.to_string() };
    v1::PresenceClaim { member: Some(member), number, members_max: max }
}

fn decode_claim(claim: v1::PresenceClaim) -> Option<Claim> {
    let member = claim.member?;
    let (user, info) = (member.user_id.into(), member.info.into());
    Some(Claim { user, info, number: claim.number, max: claim.members_max })
}

fn encode_op(op: HomeOp<GatewayContent>, topic: &Topic) -> ask::Op {
    match op {
        HomeOp::Deliver(job) => ask::Op::Command(encode_job(&job)),
        HomeOp::Count(topics) => ask::Op::Count(v1::TopicList { topics: topics.iter().map(key).collect() }),
        HomeOp::Roster { limit, after } => ask::Op::Roster(v1::RosterRequest {
            app: topic.app().to_owned(),
            group: topic.name().to_owned(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            cursor: after.to_string(),
            requires: Vec::new(),
        }),
        HomeOp::History { since, limit } => ask::Op::History(v1::AskHistory {
            since: since.map(parcel::encode_place),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        }),
        HomeOp::Last => ask::Op::Last(true),
        HomeOp::Inspect => ask::Op::Inspect(true),
        HomeOp::Missed => ask::Op::Missed(true),
        HomeOp::Claim(print) => {
            ask::Op::Claim(v1::PublishClaim { high: (print >> 64) as u64, low: print as u64 })
        }
    }
}

fn encode_reply(reply: HomeReply<GatewayContent>) -> reply::Reply {
    match reply {
        HomeReply::NotHome(epoch) => reply::Reply::NotHome(epoch),
        HomeReply::Busy => reply::Reply::Busy(true),
        HomeReply::Moved => reply::Reply::Moved(true),
        HomeReply::Claimed(same) => reply::Reply::Claimed(same),
        HomeReply::Inspected(state) => {
            reply::Reply::Inspected(encode_inspection(&state, |gateway| gateway.to_string()))
        }
        HomeReply::Done(done) => reply::Reply::Done(v1::Done {
            epoch: Some(done.epoch),
            answer: done.answer.map(encode_answer),
            gateways: done.gateways,
            missing: texts(done.missing),
            position: done.position.map(parcel::encode_place),
            trace: done.trace.map(|trace| encode_trace(*trace)),
        }),
        HomeReply::History { epoch, page } => reply::Reply::History(parcel::encode_page(epoch, page)),
        HomeReply::Last { epoch, command, missing } => reply::Reply::Last(v1::RetainedValue {
            epoch: Some(epoch),
            age_ms: command.as_ref().map_or(0, |(_, age)| parcel::age_ms(*age)),
            command: command.map(|(job, _)| encode_job(&job)),
            missing: texts(missing),
        }),
        HomeReply::Counted { epoch, clients, missing } => {
            reply::Reply::Counted(v1::Counted { epoch: Some(epoch), clients, missing: texts(missing) })
        }
        HomeReply::Roster { epoch, members, total, missing } => reply::Reply::Roster(v1::RosterReply {
            // Between gateways, incarnations are named.
            coverage: Some(v1::Coverage {
                epoch: Some(epoch),
                complete: missing.is_empty(),
                missing: texts(missing),
            }),
            members: members
                .iter()
                .map(|(user, info)| v1::PresenceMember { user_id: user.to_string(), info: info.to_string() })
                .collect(),
            total,
            next_cursor: String::new(),
        }),
    }
}

fn encode_trace(trace: HomeTrace) -> v1::HomeHop {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    v1::HomeHop {
        home: trace.home.to_string(),
        parked_us: micros(trace.parked),
        at: trace.at.map(encode_at),
        took_us: micros(trace.took),
        unsynced: texts(trace.unsynced),
        unreachable: texts(trace.unreachable),
    }
}

/// Without its home a trace says nothing.
fn decode_trace(hop: v1::HomeHop) -> Option<HomeTrace> {
    Some(HomeTrace {
        home: hop.home.parse().ok()?,
        parked: Duration::from_micros(hop.parked_us),
        at: hop.at.map(|at| decode_at(Some(at))),
        took: Duration::from_micros(hop.took_us),
        unsynced: incarnations(&hop.unsynced),
        unreachable: incarnations(&hop.unreachable),
    })
}

/// Decodes a peer's message.
pub(crate) fn decode(message: v1::PeerMessage, parser: &Parser) -> Readable<LinkMessage<GatewayContent>> {
    Ok(match message.message.ok_or(DecodeError::Other("unknown"))? {
        Message::View(view) => LinkMessage::View(Arc::new(view)),
        // The link has found the view.
        Message::ViewNumber(_) => return Err(DecodeError::Other("view")),
        Message::Interest(update) => LinkMessage::InterestUpdate {
            serial: update.serial,
            topic: topic(&update.topic)?,
            clients: update.clients,
            members: update.members.into_iter().filter_map(member_change).collect(),
            claims: update.claims.into_iter().filter_map(decode_claim).collect(),
            knows_roster: update.knows_roster,
        },
        Message::Synced(synced) => LinkMessage::Synced {
            serial: synced.serial,
            epoch: synced.epoch.unwrap_or_default(),
            sum: synced.topics.map(|topics| (topics, synced.sum)),
        },
        Message::InterestAck(serial) => LinkMessage::InterestAck(serial),
        Message::Ask(ask) => decode_ask(ask, parser)?,
        Message::Reply(reply) => {
            LinkMessage::Reply { id: reply.id, reply: decode_reply(reply.reply, parser)? }
        }
        Message::Deliver(deliver) => LinkMessage::Deliver {
            id: deliver.id,
            topic: topic(&deliver.topic)?,
            at: decode_at(deliver.at),
            command: parcel::job(deliver.command, parser)?,
        },
        Message::HandOver(parcel) => LinkMessage::HandOver {
            topic: topic(&parcel.topic)?,
            history: parcel::decode_history(parcel.position, parcel.messages, parser)?,
        },
        Message::Value(value) => LinkMessage::Value {
            topic: topic(&value.topic)?,
            at: decode_at(value.at),
            age: Duration::from_millis(value.age_ms),
            command: parcel::job(value.command, parser)?,
        },
        Message::Placed(placed) => LinkMessage::Placed {
            id: placed.id,
            placed: match placed.placed {
                Some(placed::Placed::Stale(_)) => None,
                Some(placed::Placed::Answer(answer)) => Some(answer.answer),
                None => Some(None),
            },
        },
        Message::Present(present) => LinkMessage::Present {
            topic: topic(&present.topic)?,
            at: decode_at(present.at),
            whole: present.whole,
            members: present.members.into_iter().filter_map(member_change).collect(),
        },
        Message::ClaimDecisions(decided) => LinkMessage::ClaimDecisions {
            topic: topic(&decided.topic)?,
            at: decode_at(decided.at),
            claims: decided
                .claims
                .into_iter()
                .map(|claim| DecidedClaim {
                    user: claim.user_id.into(),
                    number: claim.number,
                    granted: claim.granted,
                })
                .collect(),
        },
        Message::Reported(reported) => LinkMessage::Reported {
            serial: reported.serial,
            topic: topic(&reported.topic)?,
            whole: reported.whole,
            more: reported.more,
            notified: decode_notified(reported.notified.unwrap_or_default()),
        },
    })
}

fn topic(key: &[u8]) -> Readable<Topic> {
    Topic::from_key(key).ok_or(DecodeError::Other("topic"))
}

fn member_change(update: v1::MemberUpdate) -> Option<MemberChange> {
    let member = update.member?;
    let info = (!update.gone).then(|| member.info.into());
    Some(MemberChange { user: member.user_id.into(), info })
}

fn decode_job(command: Option<v1::Command>, parser: &Parser) -> Result<Arc<TopicCommand>, CommandRefusal> {
    match command.and_then(|command| command.command) {
        Some(command) => TopicCommand::parse(parser, command),
        None => Err(refusal(Code::Unimplemented, "the topic's home does not know this command")),
    }
}

fn decode_ask(ask: v1::Ask, parser: &Parser) -> Readable<LinkMessage<GatewayContent>> {
    let op = match ask.op {
        Some(ask::Op::Command(command)) => {
            let job = decode_job(Some(command), parser);
            HomeOp::Deliver(job.map_err(|refused| DecodeError::Ask(ask.id, refused))?)
        }
        Some(ask::Op::Count(list)) => {
            if list.topics.len() > limits::NAMES_PER_COMMAND_MAX {
                return Err(DecodeError::Other("count"));
            }
            HomeOp::Count(list.topics.iter().map(|key| topic(key)).collect::<Readable<_>>()?)
        }
        Some(ask::Op::History(history)) => HomeOp::History {
            since: history.since.map(parcel::decode_place),
            limit: (history.limit as usize).min(limits::PAGE_MAX as usize),
        },
        Some(ask::Op::Last(_)) => HomeOp::Last,
        Some(ask::Op::Inspect(_)) => HomeOp::Inspect,
        Some(ask::Op::Missed(_)) => HomeOp::Missed,
        Some(ask::Op::Claim(v1::PublishClaim { high, low })) => {
            HomeOp::Claim(u128::from(high) << 64 | u128::from(low))
        }
        Some(ask::Op::Roster(request)) => HomeOp::Roster {
            limit: (request.limit as usize).min(limits::PAGE_MAX as usize + 1),
            after: request.cursor.into(),
        },
        None => {
            let unknown = refusal(Code::Unimplemented, "the topic's home does not know this question");
            return Err(DecodeError::Ask(ask.id, unknown));
        }
    };
    Ok(LinkMessage::Ask { id: ask.id, topic: topic(&ask.topic)?, op })
}

fn incarnations(texts: &[String]) -> Vec<Incarnation> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn decode_reply(reply: Option<reply::Reply>, parser: &Parser) -> Readable<HomeReply<GatewayContent>> {
    Ok(match reply.ok_or(DecodeError::Other("reply"))? {
        reply::Reply::NotHome(epoch) => HomeReply::NotHome(epoch),
        reply::Reply::Busy(_) => HomeReply::Busy,
        reply::Reply::Moved(_) => HomeReply::Moved,
        reply::Reply::Claimed(same) => HomeReply::Claimed(same),
        reply::Reply::Inspected(state) => HomeReply::Inspected(Box::new(decode_inspection(state)?)),
        reply::Reply::Done(done) => HomeReply::Done(HomeOutcome {
            epoch: done.epoch.unwrap_or_default(),
            answer: done.answer.and_then(|answer| answer.answer),
            gateways: done.gateways,
            missing: incarnations(&done.missing),
            position: done.position.map(parcel::decode_place),
            trace: done.trace.and_then(decode_trace).map(Box::new),
        }),
        reply::Reply::History(kept) => HomeReply::History {
            epoch: kept.epoch.unwrap_or_default(),
            page: parcel::decode_page(kept, parser)?,
        },
        reply::Reply::Last(kept) => HomeReply::Last {
            epoch: kept.epoch.unwrap_or_default(),
            command: kept
                .command
                .map(|command| parcel::job(Some(command), parser))
                .transpose()?
                .map(|job| (job, Duration::from_millis(kept.age_ms))),
            missing: incarnations(&kept.missing),
        },
        reply::Reply::Counted(counted) => HomeReply::Counted {
            epoch: counted.epoch.unwrap_or_default(),
            clients: counted.clients,
            missing: incarnations(&counted.missing),
        },
        reply::Reply::Roster(roster) => {
            let coverage = roster.coverage.unwrap_or_default();
            HomeReply::Roster {
                epoch: coverage.epoch.unwrap_or_default(),
                members: roster
                    .members
                    .into_iter()
                    .map(|member| (member.user_id.into(), member.info.into()))
                    .collect(),
                total: roster.total,
                missing: incarnations(&coverage.missing),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use broadgate_topics::TopicPosition;

    use super::*;

    #[test]
    fn what_a_home_notes_of_a_traced_command_travels_unchanged() {
        let gateway = Incarnation::from_bits;
        let trace = HomeTrace {
            home: gateway(1),
            parked: Duration::from_micros(11),
            at: Some(TopicPosition { tenure: v1::Epoch::new(7, 41), number: 90_214 }),
            took: Duration::from_micros(1900),
            unsynced: vec![gateway(2)],
            unreachable: vec![gateway(3), gateway(4)],
        };
        assert_eq!(decode_trace(encode_trace(trace.clone())), Some(trace.clone()));
        let dry = HomeTrace { at: None, ..trace };
        assert_eq!(decode_trace(encode_trace(dry.clone())), Some(dry));
        assert_eq!(decode_trace(v1::HomeHop::default()), None);
    }
}
