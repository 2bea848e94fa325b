//! Questions about the cluster. Every answer says whether it is complete, and who is missing.

use broadgate_proto::{
    limits,
    v1::{
        ClientField, ClientReply, ClientState, CountReply, CountRequest, EndedReply, EndedRequest,
        EventsReply, EventsRequest, GetClientRequest, HistoryPosition, HistoryReply, HistoryRequest,
        InspectReply, InspectRequest, LastValueReply, LastValueRequest, ListClientsReply, ListClientsRequest,
        ListGroupsRequest, ListNamesReply, ListUidsRequest, OnlineReply, OnlineRequest, RosterReply,
        RosterRequest, SendsReply, SendsRequest, StatusReply, StatusRequest, TopReply, TopRequest, answer,
        command::Command, gateway_client::GatewayClient, inspect_request,
    },
};
use futures_util::{Stream, stream};

use crate::cluster::{
    audience::{self, Audience},
    error::CommandError,
    handle::Cluster,
    table::GatewayChoice,
    topic::RingTopic,
};

/// A page of a list.
///
/// ```no_run
/// # async fn example(cluster: broadgate_business::Cluster) -> Result<(), broadgate_business::CommandError> {
/// use broadgate_business::cluster::Page;
///
/// let mut page = Page::default();
/// loop {
///     let roster = cluster.roster("lobby", page).await?;
///     for member in roster.members {
///         println!("{}", member.user_id);
///     }
///     if roster.next_cursor.is_empty() {
///         break;
///     }
///     page = Page { cursor: roster.next_cursor, ..Page::default() };
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// At most this many rows; 0 means 100, and 1,000 is the most.
    pub limit: u32,
    /// `next_cursor` of the page before; "" for the first.
    pub cursor: String,
}

fn texts(names: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    names.into_iter().map(Into::into).collect()
}

impl Cluster {
    /// Tells which of these clients are connected.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn is_online(
        &self,
        clients: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<OnlineReply, CommandError> {
        self.ask_online(texts(clients), Vec::new()).await
    }

    /// Counts the clients of each of these uids; 0 is offline.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn online(
        &self,
        uids: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<OnlineReply, CommandError> {
        self.ask_online(Vec::new(), texts(uids)).await
    }

    async fn ask_online(&self, clients: Vec<String>, uids: Vec<String>) -> Result<OnlineReply, CommandError> {
        let way = match (clients.as_slice(), uids.as_slice()) {
            (clients, []) => audience::holder(clients).into(),
            ([], uids) => self.home(uids.iter().map(|uid| RingTopic::uid(&self.app, uid))),
            _ => GatewayChoice::Any,
        };
        let command = OnlineRequest { app: self.app.to_string(), clients, uids, ..OnlineRequest::default() };
        match self.call(way, Command::Online(command)).await? {
            answer::Answer::Online(reply) => Ok(reply),
            _ => Err(CommandError::unexpected()),
        }
    }

    /// Counts the clients of the app and of each of these groups. With `uids`, it also counts distinct uids,
    /// which costs more.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn count(
        &self,
        groups: impl IntoIterator<Item = impl Into<String>>,
        uids: bool,
    ) -> Result<CountReply, CommandError> {
        let groups = texts(groups);
        let way = self.home(groups.iter().map(|group| RingTopic::group(&self.app, group)));
        let command = CountRequest { app: self.app.to_string(), groups, uids, ..CountRequest::default() };
        match self.call(way, Command::Count(command)).await? {
            answer::Answer::Count(reply) => Ok(reply),
            _ => Err(CommandError::unexpected()),
        }
    }

    /// A page of a group's roster: the users that clients have joined it as ([`Cluster::join_as`]), and their
    /// total.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn roster(&self, group: impl Into<String>, page: Page) -> Result<RosterReply, CommandError> {
        let group = group.into();
        let way = self.home([RingTopic::group(&self.app, &group)]);
        let command = RosterRequest {
            app: self.app.to_string(),
            group,
            limit: page.limit,
            cursor: page.cursor,
            ..RosterRequest::default()
        };
        match self.call(way, Command::Roster(command)).await? {
            answer::Answer::Roster(reply) => Ok(reply),
            _ => Err(CommandError::unexpected()),
        }
    }

    /// The history of a group: what was sent to it alone, by rising offset. `[[gateway.groups]]` in the
    /// configuration says which groups keep one. Answered by the group's home.
    ///
    /// `since` is the reader's position: that of a receipt, of an earlier history, or the epoch of one of
    /// these with the offset of the reader's last message. With it, `recovered` says whether the messages
    /// are all that followed, or the first of them; if it is false, some are lost for good, and the reader
    /// must get its state in another way. Without it, the messages are the last ones.
    ///
    /// At most `limit` messages come; 0 means 100, and 1,000 is the most. If the last one's offset is
    /// below that of `position`, where the history stands, there are more: ask again from it. A history
    /// that was lost with its home starts over, under a new epoch.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn history(
        &self,
        group: impl Into<String>,
        since: Option<HistoryPosition>,
        limit: u32,
    ) -> Result<HistoryReply, CommandError> {
        let group = group.into();
        let way = self.home([RingTopic::group(&self.app, &group)]);
        let app = self.app.to_string();
        let command = HistoryRequest { app, group, since, limit, ..HistoryRequest::default() };
        match self.call(way, Command::History(command)).await? {
            answer::Answer::History(reply) => Ok(reply),
            _ => Err(CommandError::unexpected()),
        }
    }

    /// The same without what the messages say.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn history_without_payload(
        &self,
        group: impl Into<String>,
        since: Option<HistoryPosition>,
        limit: u32,
    ) -> Result<HistoryReply, CommandError> {
        let group = group.into();
        let way = self.home([RingTopic::group(&self.app, &group)]);
        let app = self.app.to_string();
        let request =
            HistoryRequest { app, group, since, limit, without_payload: true, ..HistoryRequest::default() };
        match self.call(way, Command::History(request)).await? {
            answer::Answer::History(reply) => Ok(reply),
            _ => Err(CommandError::unexpected()),
        }
    }

    /// Where a group is at home, and what its home knows of it.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn inspect_group(&self, group: impl Into<String>) -> Result<InspectReply, CommandError> {
        let group = group.into();
        let way = self.home([RingTopic::group(&self.app, &group)]);
        let of = Some(inspect_request::Of::Group(group));
        let request = InspectRequest { app: self.app.to_string(), of, ..InspectRequest::default() };
        match self.call(way, Command::Inspect(request)).await? {
            answer::Answer::Inspected(reply) => Ok(reply),
            _ => Err(CommandError::unexpected()),
        }
    }

    /// The last message that was sent to a group alone, where that is kept; its payload is absent if there
    /// is none, or it is too old. It outlives the group's home for as long as the group has a client
    /// elsewhere. Answered by the group's home.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn last_value(&self, group: impl Into<String>) -> Result<LastValueReply, CommandError> {
        let group = group.into();
        let way = self.home([RingTopic::group(&self.app, &group)]);
        let command = LastValueRequest { app: self.app.to_string(), group, ..LastValueRequest::default() };
        match self.call(way, Command::LastValue(command)).await? {
            answer::Answer::LastValue(reply) => Ok(reply),
            _ => Err(CommandError::unexpected()),
        }
    }

    /// Everything about one client.
    ///
    /// # Errors
    /// If the client is not connected; if it was refused, not answered, or not sent.
    pub async fn client(&self, id: impl Into<String>) -> Result<ClientReply, CommandError> {
        let client_id = id.into();
        let holder = audience::holder(std::slice::from_ref(&client_id));
        let command = GetClientRequest { app: self.app.to_string(), client_id };
        match self.call(holder, Command::GetClient(command)).await? {
            answer::Answer::Client(reply) => Ok(reply),
            _ => Err(CommandError::unexpected()),
        }
    }

    /// A page of the clients of an audience, with these fields.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn list_clients(
        &self,
        of: impl Into<Audience>,
        fields: &[ClientField],
        page: Page,
    ) -> Result<ListClientsReply, CommandError> {
        self.list(of.into(), fields, page, ListClientsRequest::default()).await
    }

    /// A page of those clients of an audience that something holds up, with these fields. It costs what it lists,
    /// however many clients there are.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn list_clients_in(
        &self,
        state: ClientState,
        of: impl Into<Audience>,
        fields: &[ClientField],
        page: Page,
    ) -> Result<ListClientsReply, CommandError> {
        let (state, requires) = (i32::from(state), vec!["state".to_owned()]);
        let request = ListClientsRequest { state, requires, ..ListClientsRequest::default() };
        self.list(of.into(), fields, page, request).await
    }

    /// A page of those clients of an audience that connected from an address, or from a network such as `10.1.7.0/24`,
    /// with these fields. Gateways look at every client of the audience.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn list_clients_from(
        &self,
        address: impl Into<String>,
        of: impl Into<Audience>,
        fields: &[ClientField],
        page: Page,
    ) -> Result<ListClientsReply, CommandError> {
        let (address, requires) = (address.into(), vec!["address".to_owned()]);
        let request = ListClientsRequest { address, requires, ..ListClientsRequest::default() };
        self.list(of.into(), fields, page, request).await
    }

    async fn list(
        &self,
        of: Audience,
        fields: &[ClientField],
        page: Page,
        request: ListClientsRequest,
    ) -> Result<ListClientsReply, CommandError> {
        let of = self.own(of);
        let holder = audience::holder_of(&of);
        let command = Command::ListClients(ListClientsRequest {
            of: Some(of),
            fields: fields.iter().map(|field| i32::from(*field)).collect(),
            limit: page.limit,
            cursor: page.cursor,
            ..request
        });
        match self.call(holder, command).await? {
            answer::Answer::Clients(reply) => Ok(reply),
            _ => Err(CommandError::unexpected()),
        }
    }

    /// All clients of an audience, page by page, each fetched when it is asked for.
    pub fn client_pages(
        &self,
        of: Audience,
        fields: &[ClientField],
    ) -> impl Stream<Item = Result<ListClientsReply, CommandError>> + Send + use<> {
        let (cluster, fields) = (self.clone(), fields.to_vec());
        stream::try_unfold(Some(String::new()), move |cursor| {
            let (cluster, of, fields) = (cluster.clone(), of.clone(), fields.clone());
            async move {
                let Some(cursor) = cursor else { return Ok(None) };
                let page = Page { limit: limits::PAGE_MAX, cursor };
                let reply = cluster.list_clients(of, &fields, page).await?;
                let next = Some(reply.next_cursor.clone()).filter(|cursor| !cursor.is_empty());
                Ok(Some((reply, next)))
            }
        })
    }

    /// A page of the distinct uids of the app, or of the members of these groups.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn list_uids(
        &self,
        groups: impl IntoIterator<Item = impl Into<String>>,
        page: Page,
    ) -> Result<ListNamesReply, CommandError> {
        let command = Command::ListUids(ListUidsRequest {
            app: self.app.to_string(),
            groups: texts(groups),
            limit: page.limit,
            cursor: page.cursor,
            ..ListUidsRequest::default()
        });
        self.names(command).await
    }

    /// A page of the groups of the app whose names start with `prefix`.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn list_groups(
        &self,
        prefix: impl Into<String>,
        page: Page,
    ) -> Result<ListNamesReply, CommandError> {
        let command = Command::ListGroups(ListGroupsRequest {
            app: self.app.to_string(),
            prefix: prefix.into(),
            limit: page.limit,
            cursor: page.cursor,
            ..ListGroupsRequest::default()
        });
        self.names(command).await
    }

    async fn names(&self, command: Command) -> Result<ListNamesReply, CommandError> {
        match self.call(GatewayChoice::Any, command).await? {
            answer::Answer::Names(reply) => Ok(reply),
            _ => Err(CommandError::unexpected()),
        }
    }

    /// Why connections have ended, and why handshakes and requests were refused, as far as the gateways
    /// remember: of the app that the request names, or of all if it names none.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn ended(&self, request: EndedRequest) -> Result<EndedReply, CommandError> {
        match self.call(GatewayChoice::Any, Command::Ended(request)).await? {
            answer::Answer::Ended(reply) => Ok(reply),
            _ => Err(CommandError::unexpected()),
        }
    }

    /// What became of what was sent, and what is known of clients that may have been meant, as far as the gateways
    /// remember: of the app that the request names, or of all if it names none.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn sends(&self, request: SendsRequest) -> Result<SendsReply, CommandError> {
        match self.call(GatewayChoice::Any, Command::Sends(request)).await? {
            answer::Answer::Sends(reply) => Ok(reply),
            _ => Err(CommandError::unexpected()),
        }
    }

    /// What happened lately, as far as the gateways remember.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn events(&self, request: EventsRequest) -> Result<EventsReply, CommandError> {
        match self.call(GatewayChoice::Any, Command::Events(request)).await? {
            answer::Answer::Events(reply) => Ok(reply),
            _ => Err(CommandError::unexpected()),
        }
    }

    /// The busiest groups, clients, apps or workers. Gateways measure while somebody asks: the first answers have
    /// no rates, and their `measured_ms` is 0.
    ///
    /// # Errors
    /// If it was refused, not answered, or not sent.
    pub async fn top(&self, request: TopRequest) -> Result<TopReply, CommandError> {
        match self.call(GatewayChoice::Any, Command::Top(request)).await? {
            answer::Answer::Top(reply) => Ok(reply),
            _ => Err(CommandError::unexpected()),
        }
    }

    /// The members of the cluster and the state of each gateway.
    ///
    /// # Errors
    /// If no gateway answers in time.
    pub async fn status(&self) -> Result<StatusReply, CommandError> {
        self.status_of(StatusRequest::default()).await
    }

    /// The same with what each gateway knows of its own state, from which `broadgate doctor` decides.
    ///
    /// # Errors
    /// If no gateway answers in time.
    pub async fn status_with_evidence(&self) -> Result<StatusReply, CommandError> {
        self.status_of(StatusRequest { evidence: true, ..StatusRequest::default() }).await
    }

    async fn status_of(&self, asked: StatusRequest) -> Result<StatusReply, CommandError> {
        let ask = async {
            self.choose(&GatewayChoice::Any).await;
            let links = self.inner.table.borrow().in_order();
            let mut answered = Err(tonic::Status::unavailable("no gateway is known"));
            for link in links {
                // The gateway then names those that do not answer, before this gives up.
                let mut request = tonic::Request::new(asked.clone());
                request.set_timeout(self.inner.timeout);
                answered = GatewayClient::with_interceptor(link.channel(), self.inner.credentials.sender())
                    .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_HIGHEST)
                    .status(request)
                    .await;
                if !answered.as_ref().is_err_and(|status| status.code() == tonic::Code::Unavailable) {
                    break;
                }
            }
            answered
        };
        match tokio::time::timeout(self.inner.timeout, ask).await {
            Ok(Ok(reply)) => {
                let reply = reply.into_inner();
                self.inner.seen.note(reply.coverage.as_ref());
                Ok(reply)
            }
            Ok(Err(status)) if status.code() == tonic::Code::Unavailable => {
                Err(crate::cluster::handle::not_reachable(status.message()))
            }
            Ok(Err(status)) => Err(CommandError::from_status(&status)),
            Err(_) => Err(crate::cluster::handle::not_reachable("no gateway answered in time")),
        }
    }
}
