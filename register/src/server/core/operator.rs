//! The commands of operators.

use broadgate_proto::{
    id::Incarnation,
    v1::{DrainOrder, Role, join_reply::Reply},
};

use super::Core;
use crate::server::step::{Answer, Effect, Reason, Refusal};

impl Core {
    pub(super) fn leave(&mut self, text: &str, out: &mut Vec<Effect>) -> Result<Answer, Refusal> {
        let incarnation: Incarnation = text.parse().map_err(|error| Refusal::Invalid(format!("{error}")))?;
        if !self.members.contains_key(&incarnation) {
            return Err(Refusal::NotFound(format!("no member has the incarnation {incarnation}")));
        }
        self.remove(incarnation, Reason::Operator, out);
        self.publish(out);
        Ok(Answer { epoch: self.epoch, incarnation })
    }

    pub(super) fn drain(&self, gateway: &str, out: &mut Vec<Effect>) -> Result<Answer, Refusal> {
        if gateway.is_empty() {
            return Err(Refusal::Invalid(
                "the gateway to drain is empty: give its name or incarnation".into(),
            ));
        }
        let mut found = self.members.iter().filter(|(incarnation, entry)| {
            let named = entry.member.name == gateway || incarnation.to_string() == gateway;
            named && entry.member.role() == Role::Gateway
        });
        let Some((incarnation, entry)) = found.next() else {
            return Err(Refusal::NotFound(format!("no gateway has the name or incarnation {gateway:?}")));
        };
        if found.next().is_some() {
            let sentence = format!("several gateways have the name {gateway:?}: give an incarnation");
            return Err(Refusal::Invalid(sentence));
        }
        let Some(connection) = entry.connection else {
            let sentence = format!("gateway {gateway:?} is not connected to the register now: repeat");
            return Err(Refusal::Unavailable(sentence));
        };
        out.push(Effect::Reply(connection, Reply::Drain(DrainOrder {})));
        Ok(Answer { epoch: self.epoch, incarnation: *incarnation })
    }
}
