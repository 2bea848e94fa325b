//! Calls, each on the first endpoint that answers in time.

use std::{io, pin::Pin, time::Duration};

use broadgate_port::tune;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tonic::{
    Request, Response, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint as Target, Uri},
};

use crate::{
    etcd::{
        AuthenticateRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, RangeRequest,
        RangeResponse, TxnRequest, TxnResponse, auth_client::AuthClient, kv_client::KvClient,
        lease_client::LeaseClient,
    },
    settings::EtcdSettings,
    trouble::{CallError, Meaning},
};

/// What one endpoint may take to answer, dialling included.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(1);
/// A dead connection is noticed by the calls on it; this is for those that are silent.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// An answer: some views, or a lease.
const ANSWER_BYTES_MAX: usize = 32 << 20;

type EtcdChannel = InterceptedService<Channel, Token>;
type CallResult<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>> + Send + 'static) -> CallResult<T> {
    Box::pin(call)
}

/// One connection to etcd at a time. Every call may be repeated at the next endpoint, so callers make only
/// calls that may be applied twice.
#[derive(Debug)]
pub struct EtcdClient {
    settings: EtcdSettings,
    at: usize,
    channel: Option<(Channel, std::net::IpAddr)>,
    token: Token,
}

impl EtcdClient {
    /// Dials nothing yet.
    #[must_use]
    pub const fn new(settings: EtcdSettings) -> Self {
        Self { settings, at: 0, channel: None, token: Token(None) }
    }

    /// The address from which etcd is reached, while it is.
    #[must_use]
    pub fn local_address(&self) -> Option<std::net::IpAddr> {
        self.channel.as_ref().map(|(_, local)| *local)
    }

    /// Reads keys, as the majority has them.
    ///
    /// # Errors
    /// If etcd refuses, or no endpoint answers.
    pub async fn range(&mut self, request: RangeRequest) -> Result<RangeResponse, CallError> {
        let call = |wire| {
            let request = request.clone();
            answer(async move { kv(wire).range(request).await })
        };
        self.call(call).await
    }

    /// Compares, then writes or reads, in one step.
    ///
    /// # Errors
    /// If etcd refuses, or no endpoint answers: it may then be applied all the same.
    pub async fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, CallError> {
        let call = |wire| {
            let request = request.clone();
            answer(async move { kv(wire).txn(request).await })
        };
        self.call(call).await
    }

    /// Grants a lease of so many seconds and returns its id.
    ///
    /// # Errors
    /// If etcd refuses, or no endpoint answers.
    pub async fn grant(&mut self, seconds: i64) -> Result<i64, CallError> {
        let request = LeaseGrantRequest { ttl: seconds, id: 0 };
        let granted = self
            .call(|wire| answer(async move { LeaseClient::new(wire).lease_grant(request).await }))
            .await?;
        if granted.error.is_empty() { Ok(granted.id) } else { Err(CallError::Refused(granted.error)) }
    }

    /// Renews a lease. False: there is none any more.
    ///
    /// # Errors
    /// If etcd refuses, or no endpoint answers.
    pub async fn keep_alive(&mut self, lease: i64) -> Result<bool, CallError> {
        let call = |wire| {
            answer(async move {
                let mut request = Request::new(tokio_stream::once(LeaseKeepAliveRequest { id: lease }));
                // An endpoint without a leader would not answer.
                request.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
                let mut answers = LeaseClient::new(wire).lease_keep_alive(request).await?.into_inner();
                let answer = answers.message().await?;
                answer.map(Response::new).ok_or_else(|| Status::unavailable("it ended the stream of a lease"))
            })
        };
        let renewed = self.call(call).await?;
        Ok(renewed.ttl > 0)
    }

    /// Gives a lease up, and the keys that go with it.
    ///
    /// # Errors
    /// If etcd refuses, or no endpoint answers.
    pub async fn revoke(&mut self, lease: i64) -> Result<(), CallError> {
        let request = LeaseRevokeRequest { id: lease };
        self.call(|wire| answer(async move { LeaseClient::new(wire).lease_revoke(request).await }))
            .await
            .map(drop)
    }

    /// One call, at each endpoint in turn, beginning with the one that answered last.
    async fn call<T>(&mut self, call: impl Fn(EtcdChannel) -> CallResult<T>) -> Result<T, CallError> {
        let mut troubles = Vec::new();
        let mut token_was_fresh = false;
        // A connection that is open may have died since its last call: that is no trial of its endpoint.
        let mut tries = self.settings.endpoints.len() + usize::from(self.channel.is_some());
        while tries > 0 {
            tries -= 1;
            let why = match timeout(CALL_TIME_MAX, self.attempt(&call)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => match Meaning::of(&status) {
                    Meaning::TokenStale if !token_was_fresh => {
                        // Not the endpoint's fault: once again with another token.
                        (self.token, token_was_fresh) = (Token(None), true);
                        tries += 1;
                        continue;
                    }
                    Meaning::Refused(sentence) => {
                        return Err(CallError::Refused(format!("etcd at {}: {sentence}", self.endpoint())));
                    }
                    Meaning::TokenStale => status.message().to_owned(),
                    Meaning::Elsewhere(why) => why,
                },
                Err(_) => format!("no answer within {CALL_TIME_MAX:?}"),
            };
            troubles.push(format!("{}: {why}", self.endpoint()));
            self.channel = None;
            self.at = (self.at + 1) % self.settings.endpoints.len();
        }
        Err(CallError::Unknown(troubles.join("; ")))
    }

    async fn attempt<T>(
        &mut self,
        call: &impl Fn(EtcdChannel) -> CallResult<T>,
    ) -> Result<Response<T>, Status> {
        let channel = self.channel().await?;
        if self.token.0.is_none()
            && let Some(user) = &self.settings.user
        {
            let (name, password) = (user.name.clone(), user.password.clone());
            let request = AuthenticateRequest { name, password };
            let token = AuthClient::new(channel.clone()).authenticate(request).await?.into_inner().token;
            let token: AsciiMetadataValue =
                token.parse().map_err(|_| Status::internal("its token is not ASCII"))?;
            self.token = Token(Some(token));
        }
        call(InterceptedService::new(channel, self.token.clone())).await
    }

    async fn channel(&mut self) -> Result<Channel, Status> {
        if let Some((channel, _)) = &self.channel {
            return Ok(channel.clone());
        }
        let endpoint = self.endpoint();
        let stream = TcpStream::connect(&endpoint.authority)
            .await
            .map_err(|error| Status::unavailable(format!("no connection: {error}")))?;
        tune(&stream, KEEP_ALIVE);
        let local = stream.local_addr().map_err(|error| Status::unavailable(error.to_string()))?.ip();
        let target = Target::from_shared(format!("http://{}", endpoint.authority))
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let channel = match &self.settings.tls {
            Some(tls) if endpoint.tls => {
                let stream = tls.connect(stream, endpoint.host()).await.map_err(Status::unavailable)?;
                over(&target, stream).await?
            }
            _ => over(&target, stream).await?,
        };
        self.channel = Some((channel.clone(), local.to_canonical()));
        Ok(channel)
    }

    fn endpoint(&self) -> &crate::settings::EtcdEndpoint {
        &self.settings.endpoints[self.at]
    }
}

/// gRPC over this stream alone.
async fn over<S>(target: &Target, stream: S) -> Result<Channel, Status>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut once = Some(stream);
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.take().ok_or_else(|| io::Error::other("the connection has ended"));
        std::future::ready(stream.map(TokioIo::new))
    });
    target.connect_with_connector(connector).await.map_err(|error| {
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        Status::unavailable(format!("it does not speak gRPC, or requires TLS (https://): {why}"))
    })
}

fn kv(wire: EtcdChannel) -> KvClient<EtcdChannel> {
    KvClient::new(wire).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// Adds a user's token to a call.
#[derive(Clone)]
struct Token(Option<AsciiMetadataValue>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", if self.0.is_some() { "given" } else { "none" })
    }
}

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::{get, settings::EtcdEndpoint};

    /// A web server, something that expects TLS, and something that greets with a line.
    #[tokio::test]
    async fn endpoint_of_another_protocol_is_named_with_what_to_do() {
        let answers = [
            &b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..],
            b"\x15\x03\x01\0\x02\x02\x16",
            b"220 mail.example.com ESMTP\r\n",
        ];
        for answer in answers {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let endpoints = vec![EtcdEndpoint::parse(&address).unwrap()];
            let server = tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(answer).await;
                    // Until the client has gone.
                    while stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
                }
            });
            let mut client = EtcdClient::new(EtcdSettings { endpoints, user: None, tls: None });
            let Err(CallError::Unknown(said)) = client.range(get("key")).await else {
                panic!("{answer:?} is no answer of etcd");
            };
            assert!(said.starts_with(&format!("http://{address}: it answers, but not in gRPC")), "{said}");
            assert!(said.contains("https://") && said.contains("register.etcd.endpoints"), "{said}");
            server.abort();
        }
    }
}
