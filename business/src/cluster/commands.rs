//! Sends, closes, binds and groups. Each answers with a receipt that counts what was done.

use broadgate_proto::v1::{
    self, BindRequest, CloseRequest, DissolveRequest, JoinGroupsRequest, LeaveGroupsRequest, PresenceMember,
    Receipt, SendRequest, UnbindRequest, answer, command::Command,
};

use crate::cluster::{
    audience::{self, Audience, Close, Payload, SendOptions, Who},
    error::CommandError,
    handle::Cluster,
    table::GatewayChoice,
    topic::RingTopic,
};

fn receipt(answer: answer::Answer) -> Result<Receipt, CommandError> {
    match answer {
        answer::Answer::Receipt(receipt) => Ok(receipt),
        _ => Err(CommandError::unexpected()),
    }
}

fn texts(names: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    names.into_iter().map(Into::into).collect()
}

impl Cluster {
    pub(super) fn own(&self, audience: Audience) -> v1::Audience {
        v1::Audience { app: self.app.to_string(), ..audience.0 }
    }

    fn send_command(
        &self,
        command_id: String,
        to: v1::Audience,
        payload: Payload,
        no_receipt: bool,
        SendOptions { trace, dry }: SendOptions,
    ) -> Command {
        // A gateway that does not know events would send the data alone; one that does not know dry runs would send.
        let requires = [("event", !payload.event.is_empty()), ("trace", trace), ("dry", dry)];
        Command::Send(SendRequest {
            command_id,
            to: Some(to),
            payload: Some(payload.payload),
            no_receipt,
            requires: texts(requires.into_iter().filter_map(|(word, needed)| needed.then_some(word))),
            event: payload.event,
            trace,
            dry,
            ..SendRequest::default()
        })
    }

    /// One topic's messages and closes have an order; what is about clients of one gateway goes there.
    fn way(audience: &v1::Audience) -> GatewayChoice {
        RingTopic::of(audience).map_or_else(|| audience::holder_of(audience).into(), GatewayChoice::Ordered)
    }

    /// Sends one message. Returns when it is in the outboxes of all clients that it reaches.
    ///
    /// A receipt is *complete* (`coverage.complete`) if no gateway is missing, `ordered` if the message
    /// has its place in the one order of its topic (a uid, a group, or all), and `repeated` if a gateway
    /// had already executed the command. An incomplete receipt is no error: repeat the send by
    /// [`Cluster::with_id`] with the receipt's `command_id`, and only the clients that were missed get it.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn send(
        &self,
        to: impl Into<Audience>,
        payload: impl Into<Payload>,
    ) -> Result<Receipt, CommandError> {
        self.send_with(to, payload, SendOptions::default()).await
    }

    /// Sends one message as [`Cluster::send`] does, and says in the receipt which way it took; or finds out whom it
    /// would reach, and sends nothing.
    ///
    /// # Errors
    /// As [`Cluster::send`]; if a gateway does not know what is asked for.
    pub async fn send_with(
        &self,
        to: impl Into<Audience>,
        payload: impl Into<Payload>,
        options: SendOptions,
    ) -> Result<Receipt, CommandError> {
        let to = self.own(to.into());
        let way = Self::way(&to);
        let command = self.send_command(self.command_id(), to, payload.into(), false, options);
        receipt(self.call(way, command).await?)
    }

    /// Sends one message without a receipt. Returns when it has its place in the queue to a gateway, and
    /// keeps that place among this caller's other sends to the topic. Later failures are only counted: a
    /// message that is under way when a stream breaks, or when the topic moves to another home, may be lost
    /// or arrive later.
    ///
    /// # Errors
    /// If no gateway's queue takes it in time.
    pub async fn post(
        &self,
        to: impl Into<Audience>,
        payload: impl Into<Payload>,
    ) -> Result<(), CommandError> {
        let to = self.own(to.into());
        let way = Self::way(&to);
        // Only commands with a home are ever repeated without their caller.
        let id = match way {
            GatewayChoice::Ordered(_) => self.command_id(),
            GatewayChoice::Any | GatewayChoice::Gateway(_) => {
                self.id.as_deref().unwrap_or_default().to_owned()
            }
        };
        let command = self.send_command(id, to, payload.into(), true, SendOptions::default());
        // Nearly always at once: what has to wait needs a timer, and room that a worker's handlers, which
        // are moved with all that they may need, had better not have in them.
        let Some(command) = self.give_now(&way, command) else { return Ok(()) };
        Box::pin(self.give(&way, command)).await
    }

    /// Closes every client of an audience.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn close(&self, of: impl Into<Audience>, close: Close) -> Result<Receipt, CommandError> {
        let of = self.own(of.into());
        let last = match close.last.map(audience::last) {
            Some(None) => {
                return Err(CommandError::invalid(
                    "a last message cannot be framed or an event: give text or bytes",
                ));
            }
            last => last.flatten(),
        };
        let way = Self::way(&of);
        let command = Command::Close(CloseRequest {
            command_id: self.command_id(),
            to: Some(of),
            code: close.code.into(),
            reason: close.reason,
            last,
            at_once: close.at_once,
            ..CloseRequest::default()
        });
        receipt(self.call(way, command).await?)
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
        // The home of a uid decides which of its clients is the newest.
        let way = if exclusive {
            self.home([RingTopic::uid(&self.app, &uid)])
        } else {
            audience::holder(std::slice::from_ref(&client_id)).into()
        };
        let command = BindRequest {
            command_id: self.command_id(),
            app: self.app.to_string(),
            client_id,
            uid,
            exclusive,
            ..BindRequest::default()
        };
        receipt(self.call(way, Command::Bind(command)).await?)
    }

    /// Removes a client's uid.
    ///
    /// # Errors
    /// As [`Cluster::bind`].
    pub async fn unbind(&self, client: impl Into<String>) -> Result<Receipt, CommandError> {
        self.unbind_if(client, "").await
    }

    /// Removes a client's uid if it is this one.
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
            command_id: self.command_id(),
            app: self.app.to_string(),
            client_id,
            uid: uid.into(),
            ..UnbindRequest::default()
        };
        receipt(self.call(holder, Command::Unbind(command)).await?)
    }

    /// Adds clients to groups.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn join(
        &self,
        who: Who,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Receipt, CommandError> {
        self.join_with(who, texts(groups), None).await
    }

    /// Adds clients to groups as a user: the groups' rosters list the user's id and `info` (any text, such as
    /// JSON, of at most 4 KiB) for as long as one of the user's clients is a member.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn join_as(
        &self,
        who: Who,
        groups: impl IntoIterator<Item = impl Into<String>>,
        user_id: impl Into<String>,
        info: impl Into<String>,
    ) -> Result<Receipt, CommandError> {
        let member = PresenceMember { user_id: user_id.into(), info: info.into() };
        self.join_with(who, texts(groups), Some(member)).await
    }

    async fn join_with(
        &self,
        who: Who,
        groups: Vec<String>,
        member: Option<PresenceMember>,
    ) -> Result<Receipt, CommandError> {
        let holder = who.holder();
        let command = Command::Join(JoinGroupsRequest {
            command_id: self.command_id(),
            app: self.app.to_string(),
            clients: who.clients,
            uids: who.uids,
            groups,
            member,
            ..JoinGroupsRequest::default()
        });
        receipt(self.call(holder, command).await?)
    }

    /// Removes clients from groups.
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
            command_id: self.command_id(),
            app: self.app.to_string(),
            clients: who.clients,
            uids: who.uids,
            groups: texts(groups),
            ..LeaveGroupsRequest::default()
        });
        receipt(self.call(holder, command).await?)
    }

    /// Removes every member from groups; the clients stay connected.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn dissolve(
        &self,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Receipt, CommandError> {
        let groups = texts(groups);
        let way = match groups.as_slice() {
            [group] => self.home([RingTopic::group(&self.app, group)]),
            _ => GatewayChoice::Any,
        };
        let command = DissolveRequest {
            command_id: self.command_id(),
            app: self.app.to_string(),
            groups,
            ..DissolveRequest::default()
        };
        receipt(self.call(way, Command::Dissolve(command)).await?)
    }
}
