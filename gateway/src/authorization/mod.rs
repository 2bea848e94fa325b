//! Asks an app's backend whether a client may subscribe, in the client's name: for protocols whose clients bring
//! no signature. What is asked, and what an answer means, is decided in pure files.
//!
//! | file | what |
//! |---|---|
//! | `question.rs` | the request: what of a client's headers is passed on |
//! | `answer.rs` | what an answer means |

mod answer;
mod question;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use broadgate_proto::limits::{
    AUTHORIZATION_RETRY_WAIT, AUTHORIZATIONS_UNDER_WAY_MAX, AUTHORIZATIONS_WAITING_MAX,
};
use metrics::{counter, histogram};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot},
    time::{Instant, sleep, timeout_at},
};

use crate::backend::{self, BackendClient};

pub(crate) use self::{
    answer::{AuthRefusal, Authorized},
    question::{AuthQuestion, kept_headers},
};

/// Asks. Cheap to clone; used on every shard's thread. The requests are served by the runtime that made it.
#[derive(Clone)]
pub(crate) struct Authorizer(Arc<AuthorizerShared>);

struct AuthorizerShared {
    runtime: Handle,
    /// Made for the first question: most gateways ask none.
    client: OnceLock<Option<BackendClient>>,
    /// By the apps' ids: as many as operators have written.
    apps: Mutex<HashMap<String, Arc<AppQuestions>>>,
}

/// The questions to one app's backend.
struct AppQuestions {
    under_way: Semaphore,
    waiting: AtomicUsize,
}

/// A question that waits for its turn.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AppQuestions {
    fn wait(&self) -> Option<Waiting<'_>> {
        let waiting = Waiting(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < AUTHORIZATIONS_WAITING_MAX).then_some(waiting)
    }
}

impl Authorizer {
    /// To be called on the runtime that is to serve the requests.
    pub(crate) fn new() -> Self {
        let runtime = Handle::current();
        Self(Arc::new(AuthorizerShared { runtime, client: OnceLock::new(), apps: Mutex::default() }))
    }

    /// Asks, within the time that the app gives its backend. Nothing that is asked is remembered. Who asks holds
    /// the other end of `asker` as long as the answer concerns it.
    pub(crate) async fn ask(
        &self,
        question: AuthQuestion,
        asker: oneshot::Sender<Infallible>,
    ) -> Result<Authorized, AuthRefusal> {
        let begun = Instant::now();
        let shared = Arc::clone(&self.0);
        let asking =
            async move { broadgate_tasks::contain("authorization", shared.ask(&question, asker)).await };
        // It ends within the app's time limit, and fails only with the runtime.
        let answer = self.0.runtime.spawn(asking).await.ok().flatten().unwrap_or(Err(AuthRefusal::Internal));
        let outcome = answer.as_ref().map_or_else(AuthRefusal::label, |_| "allowed");
        counter!("broadgate_gateway_authorizations_total", "outcome" => outcome).increment(1);
        histogram!("broadgate_gateway_authorization_seconds").record(begun.elapsed());
        answer
    }
}

impl AuthorizerShared {
    async fn ask(
        &self,
        question: &AuthQuestion,
        mut asker: oneshot::Sender<Infallible>,
    ) -> Result<Authorized, AuthRefusal> {
        let auth = question.app.auth.as_ref().ok_or(AuthRefusal::NoBackend)?;
        let url = auth.url_for(&question.origin).ok_or(AuthRefusal::NoBackend)?;
        let client = self.client().ok_or(AuthRefusal::Internal)?;
        let end = Instant::now() + auth.timeout;
        let app = self.app(&question.app.id);
        let waiting = app.wait().ok_or(AuthRefusal::Busy)?;
        // Clients that come, ask and go must not fill the line for those who stay. A question that is under way is
        // finished: the backend works on it whether anybody waits or not, and may have no more of them.
        let turn = tokio::select! {
            biased;
            () = asker.closed() => return Err(AuthRefusal::Abandoned),
            turn = timeout_at(end, app.under_way.acquire()) => turn,
        };
        // It is never closed.
        let Ok(Ok(_turn)) = turn else { return Err(AuthRefusal::Busy) };
        drop(waiting);
        let first = attempt(client, question, url, end).await;
        if asker.is_closed() || !first.as_ref().is_err_and(AuthRefusal::may_be_asked_again) {
            return first;
        }
        let jitter = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
        sleep(AUTHORIZATION_RETRY_WAIT.mul_f64(1.0 + jitter)).await;
        if Instant::now() >= end { first } else { attempt(client, question, url, end).await }
    }

    fn client(&self) -> Option<&BackendClient> {
        let client = self.client.get_or_init(|| {
            let client = BackendClient::new(AUTHORIZATIONS_UNDER_WAY_MAX);
            client.inspect_err(|error| tracing::error!(%error, "nobody is authorized: TLS setup failed")).ok()
        });
        client.as_ref()
    }

    fn app(&self, id: &str) -> Arc<AppQuestions> {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = apps.get(id) {
            return Arc::clone(known);
        }
        let under_way = Semaphore::new(AUTHORIZATIONS_UNDER_WAY_MAX);
        let app = Arc::new(AppQuestions { under_way, waiting: AtomicUsize::new(0) });
        apps.insert(id.to_owned(), Arc::clone(&app));
        app
    }
}

async fn attempt(
    client: &BackendClient,
    question: &AuthQuestion,
    url: &str,
    end: Instant,
) -> Result<Authorized, AuthRefusal> {
    let request = question.request(url).ok_or(AuthRefusal::NoBackend)?;
    let answer = client.send(request, end).await?;
    let status = answer.status();
    let body = backend::read_body(answer.into_body(), end).await;
    answer::decide(status, body, question.is_presence, &question.app.limits)
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
