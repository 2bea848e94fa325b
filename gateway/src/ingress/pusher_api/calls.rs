//! What an app's backend asks for, carried out by commands.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use broadgate_proto::{
    limits::BATCH_COMMANDS_MAX,
    v1::{self, answer::Answer, command::Command, last_value_reply},
};
use broadgate_pusher::{
    Compat,
    api::{
        ApiRefusal,
        answer::{self, Attributes, Cached},
        params::Params,
        publish::{self, Publish},
        query::{self, Info},
        route::Call,
    },
    channel::ChannelKind,
    close,
    member::ChannelMember,
};
use broadgate_topics::{HomeOp, HomeReply, Topic};
use http::StatusCode;
use tonic::Code;

use crate::{
    api,
    apps::App,
    audit::AuditLine,
    callers::{Caller, TraceParent},
    cluster::Routed,
    command::ChannelEvent,
    dispatch::Dispatcher,
    shard::signed_in_group,
};

/// One app's backend, asking.
pub(super) struct Backend {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) app: Arc<App>,
    /// For the log: whose command it is.
    pub(super) caller: SocketAddr,
    /// The key by which it was signed; none if that is a secret.
    pub(super) key: Option<String>,
    /// What the backend says every time it repeats a publish.
    pub(super) once: Option<String>,
    /// The trace of the backend's own that its request belongs to.
    pub(super) traceparent: Option<TraceParent>,
}

/// What waits for the caller when a gateway did not answer in time.
const INCOMPLETE: &str = "a gateway did not answer in time, so not every subscriber may have the event: \
     repeat with the same X-Idempotency-Key (Ably: the same message id), and only those who were missed get it";
/// The same for a publish without a key.
const INCOMPLETE_WITHOUT_KEY: &str = "a gateway did not answer in time, so not every subscriber may have the \
     event: a repeat reaches the others twice, unless publishes carry an X-Idempotency-Key";
/// The same for a question.
const UNCERTAIN: &str = "a gateway did not answer in time, so the answer would lack something: ask again";

/// What was asked about one channel.
#[derive(Debug, Default)]
struct ChannelAnswer {
    users: Option<u64>,
    subscriptions: Option<u64>,
    /// The inner is none if nothing is kept.
    cache: Option<Option<(String, u64)>>,
    /// Not everybody who knows of it answered.
    uncertain: bool,
}

impl ChannelAnswer {
    /// What is not certain is not told.
    fn attributes(&self) -> Attributes<'_> {
        if self.uncertain {
            return Attributes::default();
        }
        Attributes {
            user_count: self.users,
            subscription_count: self.subscriptions,
            cache: self.cache.as_ref().map(|kept| {
                kept.as_ref().map(|(data, ttl_seconds)| Cached { data, ttl_seconds: *ttl_seconds })
            }),
        }
    }
}

impl Backend {
    pub(super) async fn carry_out(
        &self,
        call: Call,
        params: &Params,
        body: &[u8],
    ) -> Result<String, ApiRefusal> {
        let (limits, compat) = (&self.app.limits, self.app.compat);
        match call {
            Call::Events => {
                let event = publish::event(body, params, limits, compat)?;
                self.publish(std::slice::from_ref(&event)).await?;
                self.told(&event).await
            }
            Call::BatchEvents => {
                let events = publish::batch(body, limits, compat)?;
                self.publish(&events).await?;
                self.told_batch(&events).await
            }
            Call::ChannelEvents { channel } => {
                let event = publish::channel_event(channel, body, params, limits)?;
                self.publish(&[event]).await?;
                Ok(answer::ACCEPTED.to_owned())
            }
            Call::Channels => self.channels(&query::channels(params, compat)?).await,
            Call::Channel { channel } => {
                let info = query::channel(&channel, params, limits, compat)?;
                self.channel(channel, info).await
            }
            Call::Users { channel } => {
                query::users(&channel, limits)?;
                self.users(&channel).await
            }
            Call::TerminateConnections { user } => self.terminate(&user).await,
            Call::Connections => Ok(answer::connections(self.connections().await?)),
            Call::Status => Err(ApiRefusal::new(
                StatusCode::NOT_FOUND,
                "status is a call of laravel-echo-server's: send the app's secret as Authorization: Bearer",
            )),
        }
    }

    fn as_caller(&self) -> Caller {
        let caller = Caller::of_app(&self.app.id, self.key.as_deref(), self.caller);
        Caller { traceparent: self.traceparent, ..caller }
    }

    /// Gives commands in this order; all answers, or the first refusal. An answer that may lack something
    /// is none.
    pub(super) async fn ask_all(&self, commands: Vec<Command>) -> Result<Vec<Answer>, ApiRefusal> {
        let answers = self.ask(commands).await?;
        if answers.iter().all(is_complete) { Ok(answers) } else { Err(unavailable(UNCERTAIN)) }
    }

    /// Gives commands in this order; all answers, or the first refusal.
    async fn ask(&self, commands: Vec<Command>) -> Result<Vec<Answer>, ApiRefusal> {
        self.dispatcher.callers.count(&self.as_caller(), commands.iter());
        let number = |(id, command)| v1::Command { id, command: Some(command), after: None };
        let commands = (0..).zip(commands).map(number).collect();
        accepted(self.dispatcher.place(commands).await.answers().await)
    }

    /// Each channel's event is a command of its own: it has a place in the channel's order.
    pub(super) async fn publish(&self, events: &[Publish]) -> Result<(), ApiRefusal> {
        self.claim(events).await?;
        let who = self.as_caller();
        let by = who.who();
        let mut commands = ChannelEvent::of_publishes(&self.app.id, &by, self.once.as_deref(), events);
        let is_logged = api::is_logged(&who);
        if let Some(parent) = self.traceparent {
            let parent: Arc<str> = parent.to_string().into();
            for (event, _) in &mut commands {
                (event.traceparent, event.flags.traced) = (Some(Arc::clone(&parent)), is_logged);
            }
        }
        let bytes = events.iter().map(|event| event.data.len() as u64 * event.channels.len() as u64).sum();
        self.dispatcher.callers.count_sends(&by, &self.app.id, commands.len() as u64, bytes);
        let placed = self.dispatcher.place_events(commands.into_iter()).await;
        let mut answers = accepted(placed.answers().await)?;
        for answer in answers.iter_mut().filter(|_| is_logged) {
            api::note_caller(answer, &who);
            api::log_trace(answer, false);
        }
        match (answers.iter().all(is_complete), &self.once) {
            (true, _) => Ok(()),
            (false, Some(_)) => Err(unavailable(INCOMPLETE)),
            (false, None) => Err(unavailable(INCOMPLETE_WITHOUT_KEY)),
        }
    }

    /// A key stands for one publish: another under the same key would be taken for a repeat, and nobody
    /// would get it. Where the key's home cannot be asked, nothing is refused.
    async fn claim(&self, events: &[Publish]) -> Result<(), ApiRefusal> {
        let Some(once) = &self.once else { return Ok(()) };
        let key = Topic::group(&self.app.id, &format!("#key-{once}"));
        let routed = self.dispatcher.homes.route(key, HomeOp::Claim(publish::print(events))).await;
        match routed.await {
            Ok(Routed::Reply(HomeReply::Claimed(false))) => Err(ApiRefusal::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "The X-Idempotency-Key (Ably: the message id) was used for another publish within the last two \
                 minutes: give each publish a key of its own.",
            )),
            _ => Ok(()),
        }
    }

    async fn told(&self, event: &Publish) -> Result<String, ApiRefusal> {
        if event.info.is_nothing() {
            return Ok(answer::EMPTY.to_owned());
        }
        let asked: Vec<_> = event.channels.iter().map(|channel| (channel.clone(), event.info)).collect();
        let found = self.find(&asked).await?;
        Ok(answer::channels(
            event.channels.iter().zip(&found).map(|(name, found)| (&**name, found.attributes())),
        ))
    }

    async fn told_batch(&self, events: &[Publish]) -> Result<String, ApiRefusal> {
        if events.iter().all(|event| event.info.is_nothing()) {
            return Ok(answer::EMPTY.to_owned());
        }
        let asked: Vec<_> = events
            .iter()
            .map(|event| (event.channels.first().cloned().unwrap_or_default(), event.info))
            .collect();
        let found = self.find(&asked).await?;
        Ok(answer::batch(found.iter().map(ChannelAnswer::attributes)))
    }

    /// What is asked about channels, as far as it is applicable to each: their homes know.
    async fn find(&self, asked: &[(String, Info)]) -> Result<Vec<ChannelAnswer>, ApiRefusal> {
        let mut commands = Vec::new();
        let mut whose = Vec::new();
        for (index, (channel, info)) in asked.iter().enumerate() {
            let info = info.applicable(ChannelKind::of(channel), self.app.compat);
            let (app, group) = (self.app.id.clone(), channel.clone());
            if info.user_count {
                commands.push(Command::Roster(v1::RosterRequest {
                    app: app.clone(),
                    group: group.clone(),
                    limit: 1,
                    ..Default::default()
                }));
                whose.push(index);
            }
            if info.subscription_count {
                let count =
                    v1::CountRequest { app: app.clone(), groups: vec![group.clone()], ..Default::default() };
                commands.push(Command::Count(count));
                whose.push(index);
            }
            if info.cache {
                commands.push(Command::LastValue(v1::LastValueRequest { app, group, ..Default::default() }));
                whose.push(index);
            }
        }
        let mut found: Vec<ChannelAnswer> = asked.iter().map(|_| ChannelAnswer::default()).collect();
        let (mut commands, mut whose) = (commands.into_iter(), whose.into_iter());
        while commands.len() > 0 {
            let some = commands.by_ref().take(BATCH_COMMANDS_MAX).collect();
            for (answer, index) in self.ask(some).await?.into_iter().zip(whose.by_ref()) {
                found[index].uncertain |= !is_complete(&answer);
                self.note(&mut found[index], &asked[index].0, answer);
            }
        }
        Ok(found)
    }

    /// The same where that is the question: then it is answered completely or not at all.
    async fn find_all(&self, asked: &[(String, Info)]) -> Result<Vec<ChannelAnswer>, ApiRefusal> {
        let found = self.find(asked).await?;
        if found.iter().any(|found| found.uncertain) { Err(unavailable(UNCERTAIN)) } else { Ok(found) }
    }

    fn note(&self, found: &mut ChannelAnswer, channel: &str, answer: Answer) {
        match answer {
            Answer::Roster(reply) => found.users = Some(reply.total),
            Answer::Count(reply) => {
                found.subscriptions = Some(reply.groups.get(channel).map_or(0, |counts| counts.clients));
            }
            Answer::LastValue(reply) => {
                let age = Duration::from_millis(reply.age_ms);
                let ttl = self.app.cache_time.saturating_sub(age).as_secs();
                found.cache = Some(match reply.payload {
                    Some(last_value_reply::Payload::Text(data)) => Some((data, ttl)),
                    _ => None,
                });
            }
            _ => {}
        }
    }

    async fn channels(&self, asked: &query::Channels) -> Result<String, ApiRefusal> {
        let names = self.occupied(&asked.prefix).await?;
        let users_only = Info { subscription_count: false, ..asked.info };
        let about: Vec<_> = names.keys().map(|name| (name.clone(), users_only)).collect();
        let mut found = self.find_all(&about).await?;
        for ((name, clients), found) in names.iter().zip(&mut found) {
            let info = asked.info.applicable(ChannelKind::of(name), self.app.compat);
            found.subscriptions = info.subscription_count.then_some(*clients);
        }
        Ok(answer::channels(names.keys().zip(&found).map(|(name, found)| (&**name, found.attributes()))))
    }

    async fn channel(&self, channel: String, info: Info) -> Result<String, ApiRefusal> {
        let everything = Info { subscription_count: true, ..info };
        let clients = self.subscriptions(&channel).await?;
        let mut found = self.find_all(&[(channel, Info { subscription_count: false, ..everything })]).await?;
        let mut found = found.pop().unwrap_or_default();
        found.subscriptions = info.subscription_count.then_some(clients);
        Ok(answer::channel(clients > 0, found.attributes()))
    }

    async fn users(&self, channel: &str) -> Result<String, ApiRefusal> {
        let all = self.members(channel).await?;
        if all.is_empty() && self.app.compat == Compat::Reverb {
            return Err(ApiRefusal::new(StatusCode::NOT_FOUND, "The channel is not occupied."));
        }
        let members: Vec<_> =
            all.iter().map(|member| ChannelMember::of_seat(&member.user_id, &member.info)).collect();
        Ok(answer::users(&members, self.app.compat))
    }

    async fn terminate(&self, user: &str) -> Result<String, ApiRefusal> {
        let to = v1::Audience {
            app: self.app.id.clone(),
            groups: vec![signed_in_group(user)],
            ..v1::Audience::default()
        };
        let close = close::UNAUTHORIZED;
        let request = v1::CloseRequest {
            to: Some(to),
            code: close.code.into(),
            reason: close.reason.to_owned(),
            ..v1::CloseRequest::default()
        };
        let mut command = Command::Close(request);
        let caller = self.as_caller();
        self.dispatcher.sign(&mut command, &caller);
        let line = AuditLine::of_command(|| self.dispatcher.me.load().name.clone(), &caller, &command);
        let answers = self.ask(vec![command]).await?;
        for (line, answer) in line.into_iter().zip(&answers) {
            self.dispatcher.audit.note(&caller, line.answered(answer)).await;
        }
        if !answers.iter().all(is_complete) {
            return Err(unavailable(UNCERTAIN));
        }
        Ok(answer::EMPTY.to_owned())
    }
}

/// All answers, or the first refusal.
fn accepted(answers: Vec<v1::Answer>) -> Result<Vec<Answer>, ApiRefusal> {
    answers
        .into_iter()
        .map(|answer| match answer.answer {
            Some(Answer::Error(error)) => Err(refused(&error)),
            Some(answer) => Ok(answer),
            None => Err(unanswered()),
        })
        .collect()
}

/// Has everybody answered whom it concerns?
fn is_complete(answer: &Answer) -> bool {
    let coverage = match answer {
        Answer::Receipt(receipt) => &receipt.coverage,
        Answer::Count(reply) => &reply.coverage,
        Answer::Names(reply) => &reply.coverage,
        Answer::Roster(reply) => &reply.coverage,
        Answer::LastValue(reply) => &reply.coverage,
        _ => return false,
    };
    coverage.as_ref().is_some_and(|coverage| coverage.complete)
}

fn unavailable(sentence: &str) -> ApiRefusal {
    ApiRefusal::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
}

pub(super) fn unanswered() -> ApiRefusal {
    ApiRefusal::new(StatusCode::INTERNAL_SERVER_ERROR, "The command was not answered.")
}

fn refused(error: &v1::Error) -> ApiRefusal {
    let status = match Code::from_i32(error.code) {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::ResourceExhausted => StatusCode::PAYLOAD_TOO_LARGE,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    ApiRefusal::new(status, &error.message)
}
