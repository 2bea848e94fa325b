//! One visitor's questions to the cluster: with the visitor's own credentials, to any gateway that answers.

use std::{
    collections::HashMap,
    error::Error as _,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use broadgate_business::Credentials;
use broadgate_port::connect_lazy;
use broadgate_proto::{
    limits::{
        DASHBOARD_ANSWER_TIME_MAX, DASHBOARD_GATEWAYS_KNOWN_MAX, DASHBOARD_GATEWAYS_TRIED_MAX,
        GRPC_MESSAGE_BYTES_HIGHEST,
    },
    secret::SendSecret,
    v1::{Role, StatusReply, gateway_client::GatewayClient, observe_client::ObserveClient},
};
use tonic::{
    Code, Response, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use crate::failure::Failure;

/// To connect to a gateway; one that is gone must not take the time of those that are there.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

type ClientWithSecret = InterceptedService<Channel, SendSecret>;

/// The calls of one gateway.
#[derive(Clone)]
pub(super) struct GatewayCalls {
    pub(super) gateway: GatewayClient<ClientWithSecret>,
    pub(super) observe: ObserveClient<ClientWithSecret>,
}

/// The way to the cluster.
pub(super) struct Asker {
    credentials: Credentials,
    /// As they were configured.
    addresses: Vec<String>,
    state: Mutex<AskerState>,
    /// A gateway does not accept the credentials any more.
    is_refused: AtomicBool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum UnansweredQuestion {
    /// No gateway could answer now, and one at least has said so itself: the same question may be asked again.
    Busy(String),
    Failed(Failure),
}

impl From<UnansweredQuestion> for Failure {
    fn from(none: UnansweredQuestion) -> Self {
        match none {
            UnansweredQuestion::Busy(sentence) => Self::Failed(sentence),
            UnansweredQuestion::Failed(failure) => failure,
        }
    }
}

#[derive(Default)]
struct AskerState {
    /// In the order in which they are tried: the one that answered last, those that were configured, those that
    /// the view names.
    known: Vec<String>,
    channels: HashMap<String, Channel>,
}

/// An answer, and which gateway gave it.
pub(super) struct GatewayAnswer<T> {
    pub(super) address: String,
    pub(super) reply: T,
}

impl Asker {
    pub(super) fn new(addresses: Vec<String>, credentials: Credentials) -> Self {
        let state = AskerState { known: addresses.clone(), channels: HashMap::new() };
        Self { credentials, addresses, state: Mutex::new(state), is_refused: AtomicBool::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, AskerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a gateway has said that it does not accept the credentials any more.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Relaxed)
    }

    /// Asks one gateway after the other until one answers. What changes something has to carry a command id, since
    /// a gateway that does not answer may have carried it out.
    pub(super) async fn ask<T, F>(
        &self,
        call: impl Fn(GatewayCalls) -> F,
    ) -> Result<GatewayAnswer<T>, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        Ok(self.try_ask(&self.credentials, call).await?)
    }

    /// The same for an order, with a note for the audit, which was checked.
    pub(super) async fn order<T, F>(
        &self,
        note: &str,
        call: impl Fn(GatewayCalls) -> F,
    ) -> Result<GatewayAnswer<T>, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let Credentials { secret, tls } = self.credentials.clone();
        Ok(self.try_ask(&Credentials { secret: secret.with_note(note), tls }, call).await?)
    }

    /// The same; it keeps a busy cluster apart from one that does not answer.
    pub(super) async fn ask_unless_busy<T, F>(
        &self,
        call: impl Fn(GatewayCalls) -> F,
    ) -> Result<GatewayAnswer<T>, UnansweredQuestion>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.try_ask(&self.credentials, call).await
    }

    async fn try_ask<T, F>(
        &self,
        credentials: &Credentials,
        call: impl Fn(GatewayCalls) -> F,
    ) -> Result<GatewayAnswer<T>, UnansweredQuestion>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let tried: Vec<String> =
            self.state().known.iter().take(DASHBOARD_GATEWAYS_TRIED_MAX).cloned().collect();
        let (mut silent, mut busy) = (Vec::new(), None);
        for address in tried {
            let calls = self.calls(&address, credentials).map_err(UnansweredQuestion::Failed)?;
            match tokio::time::timeout(DASHBOARD_ANSWER_TIME_MAX, call(calls)).await {
                Ok(Ok(reply)) => {
                    self.prefer(&address);
                    return Ok(GatewayAnswer { address, reply: reply.into_inner() });
                }
                // It is there, and its connection is well: it is no worse than the others for the next question.
                Ok(Err(status)) if is_said_busy(&status) => {
                    busy = Some(status.message().to_owned());
                    continue;
                }
                Ok(Err(status)) if is_silence(status.code()) => {
                    silent.push(format!("{address}: {}", status.message()));
                }
                Ok(Err(status)) => {
                    if status.code() == Code::Unauthenticated {
                        self.is_refused.store(true, Ordering::Relaxed);
                    }
                    return Err(UnansweredQuestion::Failed(refused(&address, &status)));
                }
                Err(_) => silent.push(format!(
                    "{address} has not answered within {} s",
                    DASHBOARD_ANSWER_TIME_MAX.as_secs()
                )),
            }
            // Whatever is asked next goes to another one first.
            self.put_last(&address);
        }
        Err(busy.map_or_else(
            || {
                UnansweredQuestion::Failed(Failure::Unreachable(format!(
                    "no gateway answers: {}",
                    silent.join("; ")
                )))
            },
            UnansweredQuestion::Busy,
        ))
    }

    fn calls(&self, address: &str, credentials: &Credentials) -> Result<GatewayCalls, Failure> {
        let mut state = self.state();
        let channel = match state.channels.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let endpoint = Endpoint::from_shared(format!("http://{address}"))
                    .map_err(|error| Failure::usage(format!("{address}: {error}")))?;
                let endpoint = endpoint.connect_timeout(CONNECT_TIME_MAX);
                let channel = connect_lazy(&endpoint, self.credentials.tls.as_ref());
                state.channels.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        let gateway = GatewayClient::with_interceptor(channel.clone(), credentials.sender());
        let observe = ObserveClient::with_interceptor(channel, credentials.sender());
        Ok(GatewayCalls {
            gateway: gateway.max_decoding_message_size(GRPC_MESSAGE_BYTES_HIGHEST),
            observe: observe.max_decoding_message_size(GRPC_MESSAGE_BYTES_HIGHEST),
        })
    }

    fn prefer(&self, address: &str) {
        let mut state = self.state();
        if state.known.first().is_some_and(|first| first != address) {
            state.known.retain(|known| known != address);
            state.known.insert(0, address.to_owned());
        }
    }

    fn put_last(&self, address: &str) {
        let mut state = self.state();
        state.known.retain(|known| known != address);
        state.known.push(address.to_owned());
        // A connection that hangs is not used again.
        state.channels.remove(address);
    }

    /// Remembers the gateways of the view, so that there are others to ask when those that were configured are gone.
    pub(super) fn learn(&self, status: &StatusReply) {
        let members = status.view.iter().flat_map(|view| &view.members);
        let gateways = members.filter(|member| member.role() == Role::Gateway);
        let named = gateways.map(|member| member.address.clone()).filter(|address| !address.is_empty());
        let mut state = self.state();
        let now: Vec<String> = self.addresses.iter().cloned().chain(named).collect();
        state.known.retain(|known| now.contains(known));
        for address in now {
            if !state.known.contains(&address) && state.known.len() < DASHBOARD_GATEWAYS_KNOWN_MAX {
                state.known.push(address);
            }
        }
        let AskerState { known, channels } = &mut *state;
        channels.retain(|address, _| known.contains(address));
    }
}

/// Whether another gateway may do better.
fn is_silence(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}

/// Whether the gateway itself has said that it cannot answer now: a status that the connection made has a source.
fn is_said_busy(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.source().is_none()
}

fn refused(address: &str, status: &Status) -> Failure {
    let message = status.message();
    match status.code() {
        Code::NotFound => Failure::NotFound(message.to_owned()),
        Code::PermissionDenied => Failure::NotAllowed(message.to_owned()),
        Code::Unimplemented => Failure::Failed(format!("{address} is of another version: {message}")),
        Code::Unauthenticated => {
            Failure::Usage("the token is not accepted any more: log in again".to_owned())
        }
        _ => Failure::Failed(message.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::{Member, View};

    use super::*;

    fn status(addresses: &[&str]) -> StatusReply {
        let members = addresses.iter().map(|address| {
            let mut member = Member { address: (*address).to_owned(), ..Member::default() };
            member.set_role(Role::Gateway);
            member
        });
        let view = View { members: members.collect(), ..View::default() };
        StatusReply { view: Some(view), ..StatusReply::default() }
    }

    #[tokio::test]
    async fn busy_gateway_is_not_a_silent_one() {
        let asker = Asker::new(vec!["a:1".into(), "b:1".into()], Credentials::default());
        let busy = || async { Err::<Response<()>, _>(Status::unavailable("8 are measured already")) };
        let none = asker.ask_unless_busy(|_| busy()).await.err();
        assert!(
            matches!(&none, Some(UnansweredQuestion::Busy(said)) if said == "8 are measured already"),
            "{none:?}"
        );
        assert_eq!(asker.state().known, ["a:1", "b:1"], "each keeps its place and its connection");
        assert_eq!(asker.state().channels.len(), 2);
        let asked = std::cell::Cell::new(0);
        let second = |_| {
            asked.set(asked.get() + 1);
            let is_first = asked.get() == 1;
            async move { if is_first { busy().await } else { Ok(Response::new(())) } }
        };
        assert_eq!(asker.ask_unless_busy(second).await.unwrap().address, "b:1");
        let refused = asker.ask(|_| async { Err::<Response<()>, _>(Status::unauthenticated("gone")) }).await;
        assert!(matches!(refused.err(), Some(Failure::Usage(_))) && asker.is_refused());
    }

    #[tokio::test]
    async fn gateway_that_cannot_be_reached_is_silent() {
        // Nothing listens at port 1.
        let asker = Asker::new(vec!["127.0.0.1:1".into()], Credentials::default());
        let ask = |mut calls: GatewayCalls| async move {
            calls.gateway.status(broadgate_proto::v1::StatusRequest::default()).await
        };
        let none = asker.ask_unless_busy(ask).await.err();
        assert!(matches!(&none, Some(UnansweredQuestion::Failed(Failure::Unreachable(_)))), "{none:?}");
    }

    #[test]
    fn gateways_of_the_view_are_asked_after_those_that_were_configured() {
        let asker = Asker::new(vec!["a:1".into()], Credentials::default());
        let known = || asker.state().known.clone();
        asker.learn(&status(&["b:1", "a:1", "c:1"]));
        assert_eq!(known(), ["a:1", "b:1", "c:1"]);
        asker.put_last("a:1");
        assert_eq!(known(), ["b:1", "c:1", "a:1"], "the silent one comes last");
        asker.prefer("c:1");
        asker.learn(&status(&["c:1"]));
        assert_eq!(known(), ["c:1", "a:1"], "the configured one stays, one that has left goes");
        let many: Vec<String> = (0..500).map(|number| format!("g{number}:1")).collect();
        asker.learn(&status(&many.iter().map(String::as_str).collect::<Vec<_>>()));
        assert_eq!(known().len(), DASHBOARD_GATEWAYS_KNOWN_MAX);
    }
}
