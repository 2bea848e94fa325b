//! The commands of operators.

use broadgate_proto::{
    id::Incarnation,
    v1::{DrainOrder, OrderGiver, Role, join_reply::Reply},
};

use super::Core;
use crate::server::step::{Effect, OperatorAnswer, RegisterRefusal, RemovalReason};

impl Core {
    pub(super) fn leave(
        &mut self,
        text: &str,
        out: &mut Vec<Effect>,
    ) -> Result<OperatorAnswer, RegisterRefusal> {
        let incarnation: Incarnation =
            text.parse().map_err(|error| RegisterRefusal::Invalid(format!("{error}")))?;
        if !self.members.contains_key(&incarnation) {
            return Err(RegisterRefusal::NotFound(format!("no member has the incarnation {incarnation}")));
        }
        self.remove(incarnation, RemovalReason::Operator, out);
        self.pending.change();
        Ok(OperatorAnswer { epoch: self.epoch, incarnation })
    }

    pub(super) fn drain(
        &self,
        gateway: &str,
        by: Option<OrderGiver>,
        out: &mut Vec<Effect>,
    ) -> Result<OperatorAnswer, RegisterRefusal> {
        if gateway.is_empty() {
            return Err(RegisterRefusal::Invalid(
                "the gateway to drain is empty: give its name or incarnation".into(),
            ));
        }
        let mut found = self.members.iter().filter(|(incarnation, entry)| {
            let named = entry.member.name == gateway || incarnation.to_string() == gateway;
            named && entry.member.role() == Role::Gateway
        });
        let Some((incarnation, entry)) = found.next() else {
            return Err(RegisterRefusal::NotFound(format!(
                "no gateway has the name or incarnation {gateway:?}: `broadgate status` lists them"
            )));
        };
        if found.next().is_some() {
            let sentence = format!("several gateways have the name {gateway:?}: give an incarnation");
            return Err(RegisterRefusal::Invalid(sentence));
        }
        let Some(connection) = entry.connection else {
            let sentence = format!("gateway {gateway:?} is not connected to the register now: repeat");
            return Err(RegisterRefusal::Unavailable(sentence));
        };
        out.push(Effect::Reply(connection, Reply::Drain(DrainOrder { by })));
        Ok(OperatorAnswer { epoch: self.epoch, incarnation: *incarnation })
    }
}
