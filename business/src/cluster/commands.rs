//! Sends, closes, binds and groups. Each answers with a receipt that counts what was done.

use broadgate_proto::v1::{
    self, BindRequest, CloseRequest, DissolveRequest, JoinGroupsRequest, LeaveGroupsRequest, Receipt,
    SendRequest, UnbindRequest, answer, command::Command,
};

use super::{Audience, Close, Cluster, CommandError, Payload, Who, audience};

pub(super) fn unexpected() -> CommandError {
    CommandError::Refused {
        kind: super::Refusal::Unknown,
        message: "the gateway's answer is of another kind than its command: is it of another version?"
            .to_owned(),
    }
}

fn receipt(answer: answer::Answer) -> Result<Receipt, CommandError> {
    match answer {
        answer::Answer::Receipt(receipt) => Ok(receipt),
        _ => Err(unexpected()),
    }
}

fn texts(names: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    names.into_iter().map(Into::into).collect()
}

impl Cluster {
    pub(super) fn own(&self, audience: Audience) -> v1::Audience {
        v1::Audience { app: self.app.to_string(), ..audience.0 }
    }

    fn send_command(&self, to: Audience, payload: Payload) -> Command {
        Command::Send(SendRequest {
            to: Some(self.own(to)),
            payload: Some(payload.0),
            ..SendRequest::default()
        })
    }

    /// Sends one message; answered when it is in the outboxes of all who are reached.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn send(
        &self,
        to: impl Into<Audience>,
        payload: impl Into<Payload>,
    ) -> Result<Receipt, CommandError> {
        let to = to.into();
        let holder = to.holder();
        receipt(self.call(holder, self.send_command(to, payload.into())).await?)
    }

    /// Sends one message without asking for a receipt: returns as soon as it has its place in the
    /// queue to a gateway. It keeps its place among this caller's other sends; what goes wrong
    /// later is only counted.
    ///
    /// # Errors
    /// If no gateway's queue takes it in time.
    pub async fn post(
        &self,
        to: impl Into<Audience>,
        payload: impl Into<Payload>,
    ) -> Result<(), CommandError> {
        let to = to.into();
        let holder = to.holder();
        self.give(holder, self.send_command(to, payload.into())).await
    }

    /// Closes every client of an audience.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn close(&self, of: impl Into<Audience>, close: Close) -> Result<Receipt, CommandError> {
        let of = of.into();
        let last = match close.last.map(audience::last) {
            Some(None) => {
                return Err(CommandError::invalid("a last message cannot be framed: give text or bytes"));
            }
            last => last.flatten(),
        };
        let holder = of.holder();
        let command = Command::Close(CloseRequest {
            to: Some(self.own(of)),
            code: close.code.into(),
            reason: close.reason,
            last,
            at_once: close.at_once,
            ..CloseRequest::default()
        });
        receipt(self.call(holder, command).await?)
    }

    /// Gives a client its uid; it has at most one.
    ///
    /// # Errors
    /// If the client is not connected; if it was refused, not answered, or not sent.
    pub async fn bind(
        &self,
        client: impl Into<String>,
        uid: impl Into<String>,
    ) -> Result<Receipt, CommandError> {
        self.bind_as(client.into(), uid.into(), false).await
    }

    /// Gives a client its uid and closes every other client of that uid.
    ///
    /// # Errors
    /// As [`Cluster::bind`].
    pub async fn bind_exclusive(
        &self,
        client: impl Into<String>,
        uid: impl Into<String>,
    ) -> Result<Receipt, CommandError> {
        self.bind_as(client.into(), uid.into(), true).await
    }

    async fn bind_as(
        &self,
        client_id: String,
        uid: String,
        exclusive: bool,
    ) -> Result<Receipt, CommandError> {
        let holder = audience::holder(std::slice::from_ref(&client_id));
        let command =
            BindRequest { app: self.app.to_string(), client_id, uid, exclusive, ..BindRequest::default() };
        receipt(self.call(holder, Command::Bind(command)).await?)
    }

    /// Takes a client's uid away, whichever it has.
    ///
    /// # Errors
    /// As [`Cluster::bind`].
    pub async fn unbind(&self, client: impl Into<String>) -> Result<Receipt, CommandError> {
        self.unbind_if(client, "").await
    }

    /// Takes a client's uid away if it is this one.
    ///
    /// # Errors
    /// As [`Cluster::bind`].
    pub async fn unbind_if(
        &self,
        client: impl Into<String>,
        uid: impl Into<String>,
    ) -> Result<Receipt, CommandError> {
        let client_id = client.into();
        let holder = audience::holder(std::slice::from_ref(&client_id));
        let command = UnbindRequest {
            app: self.app.to_string(),
            client_id,
            uid: uid.into(),
            ..UnbindRequest::default()
        };
        receipt(self.call(holder, Command::Unbind(command)).await?)
    }

    /// Puts clients into groups.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn join(
        &self,
        who: Who,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Receipt, CommandError> {
        let holder = who.holder();
        let command = Command::Join(JoinGroupsRequest {
            app: self.app.to_string(),
            clients: who.clients,
            uids: who.uids,
            groups: texts(groups),
            ..JoinGroupsRequest::default()
        });
        receipt(self.call(holder, command).await?)
    }

    /// Takes clients out of groups.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn leave(
        &self,
        who: Who,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Receipt, CommandError> {
        let holder = who.holder();
        let command = Command::Leave(LeaveGroupsRequest {
            app: self.app.to_string(),
            clients: who.clients,
            uids: who.uids,
            groups: texts(groups),
            ..LeaveGroupsRequest::default()
        });
        receipt(self.call(holder, command).await?)
    }

    /// Takes every member out of groups; the clients stay connected.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn dissolve(
        &self,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Receipt, CommandError> {
        let command = DissolveRequest {
            app: self.app.to_string(),
            groups: texts(groups),
            ..DissolveRequest::default()
        };
        receipt(self.call(None, Command::Dissolve(command)).await?)
    }
}
