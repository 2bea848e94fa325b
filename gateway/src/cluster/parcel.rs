//! Encoding of histories and last values in the contract's messages.

use std::{sync::Arc, time::Duration};

use broadgate_proto::v1;
use broadgate_topics::{Content as _, HandedOver, HistoryPage, Position};

use crate::{
    cluster::coding::{DecodeError, Readable, decode_at, encode_at, encode_job},
    command::{GatewayContent, Parser, TopicCommand},
};

pub(super) fn encode_place(position: Position) -> v1::HistoryPlace {
    v1::HistoryPlace { epoch: Some(encode_at(position.epoch)), offset: position.offset }
}

pub(super) fn decode_place(place: v1::HistoryPlace) -> Position {
    Position { epoch: decode_at(place.epoch), offset: place.offset }
}

pub(super) fn age_ms(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

fn message(offset: u64, age: Duration, job: &TopicCommand) -> v1::RetainedMessage {
    v1::RetainedMessage { offset, age_ms: age_ms(age), command: Some(encode_job(job)) }
}

pub(super) fn encode_page(epoch: v1::Epoch, page: HistoryPage<GatewayContent>) -> v1::RetainedHistory {
    v1::RetainedHistory {
        epoch: Some(epoch),
        messages: page.messages.iter().map(|(offset, age, job)| message(*offset, *age, job)).collect(),
        position: page.position.map(encode_place),
        recovered: page.recovered,
    }
}

pub(super) fn decode_page(
    kept: v1::RetainedHistory,
    parser: &Parser,
) -> Readable<HistoryPage<GatewayContent>> {
    let messages = kept.messages.into_iter().map(|message| {
        let age = Duration::from_millis(message.age_ms);
        Ok((message.offset, age, job(message.command, parser)?))
    });
    Ok(HistoryPage {
        messages: messages.collect::<Readable<_>>()?,
        position: kept.position.map(decode_place),
        recovered: kept.recovered,
    })
}

pub(super) fn encode_history(
    history: HandedOver<GatewayContent>,
) -> (v1::HistoryPlace, Vec<v1::RetainedMessage>) {
    let place = encode_place(Position { epoch: history.epoch, offset: history.offset });
    let entries = history.entries.iter();
    (place, entries.map(|(offset, age, _, job)| message(*offset, *age, job)).collect())
}

pub(super) fn decode_history(
    place: Option<v1::HistoryPlace>,
    messages: Vec<v1::RetainedMessage>,
    parser: &Parser,
) -> Readable<HandedOver<GatewayContent>> {
    let Position { epoch, offset } = decode_place(place.unwrap_or_default());
    let entries = messages.into_iter().map(|message| {
        let job = job(message.command, parser)?;
        let id = GatewayContent::retained_as(&job).unwrap_or_default();
        Ok((message.offset, Duration::from_millis(message.age_ms), id, job))
    });
    Ok(HandedOver { epoch, offset, entries: entries.collect::<Readable<_>>()? })
}

pub(super) fn job(command: Option<v1::Command>, parser: &Parser) -> Readable<Arc<TopicCommand>> {
    let command = command.and_then(|command| command.command).ok_or(DecodeError::Other("command"))?;
    TopicCommand::parse(parser, command).map_err(|_| DecodeError::Other("command"))
}
