//! A backend that takes webhooks as its test wants, on a real socket.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// How the receiver answers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mood {
    Takes,
    Answers(u16),
    /// Answers 200 after a while.
    Slow(Duration),
    Hangs,
    /// Closes the connection without an answer.
    Breaks,
}

/// A post, as it came, and what it was answered.
#[derive(Debug, Clone)]
pub(super) struct Post {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) was_taken: bool,
}

impl Post {
    /// Each event's name, channel and id.
    pub(super) fn events(&self) -> Vec<[String; 3]> {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        let events = body["events"].as_array().unwrap().iter();
        events
            .map(|event| ["name", "channel", "id"].map(|key| event[key].as_str().unwrap().to_owned()))
            .collect()
    }
}

#[derive(Clone)]
pub(super) struct TestReceiver(Arc<ReceiverState>);

struct ReceiverState {
    address: SocketAddr,
    /// For the next posts, then the last one for all.
    moods: Mutex<VecDeque<Mood>>,
    posts: Mutex<Vec<Post>>,
    connections: AtomicUsize,
}

impl TestReceiver {
    pub(super) async fn start(moods: &[Mood]) -> Self {
        Self::listen(moods, None).await
    }

    pub(super) async fn listen(moods: &[Mood], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self(Arc::new(ReceiverState {
            address: listener.local_addr().unwrap(),
            moods: Mutex::new(moods.iter().copied().collect()),
            posts: Mutex::default(),
            connections: AtomicUsize::new(0),
        }));
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.0.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serving.clone().connection(stream, tls.clone()));
            }
        });
        receiver
    }

    async fn connection(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        match tls {
            None => self.serve(stream).await,
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    self.serve(stream).await;
                }
            }
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request| self.clone().answer(request));
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mood = {
            let mut moods = self.0.moods.lock().unwrap();
            if moods.len() > 1 { moods.pop_front().unwrap() } else { moods[0] }
        };
        let was_taken = matches!(mood, Mood::Takes | Mood::Slow(_) | Mood::Answers(200..300));
        if let Mood::Slow(time) = mood {
            sleep(time).await;
        }
        self.0.posts.lock().unwrap().push(Post { headers: head.headers, body, was_taken });
        let status = match mood {
            Mood::Answers(status) => status,
            Mood::Takes | Mood::Slow(_) => 200,
            Mood::Hangs => std::future::pending::<Result<u16, Infallible>>().await.unwrap(),
            Mood::Breaks => return Err(std::io::ErrorKind::ConnectionAborted.into()),
        };
        let to = format!("{}/elsewhere", self.url());
        Ok(Response::builder().status(status).header(header::LOCATION, to).body("x".into()).unwrap())
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook", self.0.address)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.0.address
    }

    pub(super) fn turns(&self, mood: Mood) {
        *self.0.moods.lock().unwrap() = [mood].into();
    }

    pub(super) fn posts(&self) -> Vec<Post> {
        self.0.posts.lock().unwrap().clone()
    }

    /// What it has taken, in order.
    pub(super) fn taken(&self) -> Vec<[String; 3]> {
        self.posts().iter().filter(|post| post.was_taken).flat_map(Post::events).collect()
    }

    pub(super) fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// Waits until it has taken so many events.
    pub(super) async fn takes(&self, events: usize) -> Vec<[String; 3]> {
        self.until(|| self.taken().len() >= events).await;
        self.taken()
    }

    /// Waits until it was sent so many posts.
    pub(super) async fn is_sent(&self, posts: usize) {
        self.until(|| self.posts().len() >= posts).await;
    }

    async fn until(&self, done: impl Fn() -> bool) {
        let waiting = async {
            while !done() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(Duration::from_secs(20), waiting).await;
        waited.unwrap_or_else(|_| panic!("it was sent {:?}", self.posts()));
    }
}
