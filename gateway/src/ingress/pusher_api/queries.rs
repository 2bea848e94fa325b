//! What homes know of an app's channels: complete, or refused.

use std::collections::BTreeMap;

use broadgate_proto::{
    limits::PAGE_MAX,
    v1::{self, answer::Answer, command::Command},
};
use broadgate_pusher::api::ApiRefusal;

use crate::ingress::pusher_api::calls::{Backend, unanswered};

impl Backend {
    /// The app's clients.
    pub(super) async fn connections(&self) -> Result<u64, ApiRefusal> {
        let count = v1::CountRequest { app: self.app.id.clone(), ..v1::CountRequest::default() };
        match self.ask_all(vec![Command::Count(count)]).await?.pop() {
            Some(Answer::Count(reply)) => Ok(reply.app.map_or(0, |counts| counts.clients)),
            _ => Err(unanswered()),
        }
    }

    /// Channels with subscribers, and how many.
    pub(super) async fn occupied(&self, prefix: &str) -> Result<BTreeMap<String, u64>, ApiRefusal> {
        let mut names: BTreeMap<String, u64> = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let list = v1::ListGroupsRequest {
                app: self.app.id.clone(),
                prefix: prefix.to_owned(),
                limit: PAGE_MAX,
                cursor,
                ..v1::ListGroupsRequest::default()
            };
            let Some(Answer::Names(reply)) = self.ask_all(vec![Command::ListGroups(list)]).await?.pop()
            else {
                return Err(unanswered());
            };
            names.extend(reply.names.into_iter().map(|named| (named.name, named.clients)));
            cursor = reply.next_cursor;
            if cursor.is_empty() {
                break;
            }
        }
        // Those with # are the server's own, and users'.
        names.retain(|name, clients| !name.starts_with('#') && *clients > 0);
        Ok(names)
    }

    /// How many clients are subscribed to a channel.
    pub(super) async fn subscriptions(&self, channel: &str) -> Result<u64, ApiRefusal> {
        let count = v1::CountRequest {
            app: self.app.id.clone(),
            groups: vec![channel.to_owned()],
            ..v1::CountRequest::default()
        };
        match self.ask_all(vec![Command::Count(count)]).await?.pop() {
            Some(Answer::Count(reply)) => Ok(reply.groups.get(channel).map_or(0, |counts| counts.clients)),
            _ => Err(unanswered()),
        }
    }

    /// Who is in a presence channel.
    pub(super) async fn members(&self, channel: &str) -> Result<Vec<v1::PresenceMember>, ApiRefusal> {
        let mut all: Vec<v1::PresenceMember> = Vec::new();
        let mut cursor = String::new();
        loop {
            let roster = v1::RosterRequest {
                app: self.app.id.clone(),
                group: channel.to_owned(),
                limit: PAGE_MAX,
                cursor,
                ..v1::RosterRequest::default()
            };
            let Some(Answer::Roster(reply)) = self.ask_all(vec![Command::Roster(roster)]).await?.pop() else {
                return Err(unanswered());
            };
            all.extend(reply.members);
            cursor = reply.next_cursor;
            if cursor.is_empty() {
                break;
            }
        }
        Ok(all)
    }

    /// How many distinct users are in a presence channel.
    pub(super) async fn users_in(&self, channel: &str) -> Result<u64, ApiRefusal> {
        let roster = v1::RosterRequest {
            app: self.app.id.clone(),
            group: channel.to_owned(),
            limit: 1,
            ..v1::RosterRequest::default()
        };
        match self.ask_all(vec![Command::Roster(roster)]).await?.pop() {
            Some(Answer::Roster(reply)) => Ok(reply.total),
            _ => Err(unanswered()),
        }
    }
}
