//! A raw WebSocket client, unmodified tungstenite.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _, http::Response, protocol::CloseFrame},
};

use super::soon;

pub struct Client {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub local: String,
    pub id: String,
    /// Of the handshake.
    pub answer: Response<Option<Vec<u8>>>,
}

/// How a client ended: the close code, or 1006 if there was none.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    pub code: u16,
    pub reason: String,
    /// What came before the close.
    pub before: Vec<String>,
}

impl Client {
    pub async fn connect(url: &str) -> Self {
        Self::try_connect(url, &[]).await.unwrap()
    }

    pub async fn try_connect(url: &str, headers: &[(&'static str, &str)]) -> Result<Self, Error> {
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let (socket, answer) = soon("the handshake", connect_async(request)).await?;
        let MaybeTlsStream::Plain(stream) = socket.get_ref() else { unreachable!() };
        let local = stream.local_addr().unwrap().to_string();
        Ok(Self { socket, local, id: String::new(), answer })
    }

    pub async fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Bytes as they are, past the WebSocket protocol.
    pub async fn raw(&mut self, bytes: &[u8]) {
        use tokio::io::AsyncWriteExt as _;
        // It may be closed while we still write.
        let _ = self.socket.get_mut().write_all(bytes).await;
    }

    /// Closes in good order.
    pub async fn goodbye(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        self.socket.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = soon("the close is answered", self.socket.next()).await {}
    }

    /// The next message; pings and pongs are passed over.
    pub async fn message(&mut self) -> Message {
        loop {
            match soon("a message comes", self.socket.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return message,
                other => panic!("the connection ended: {other:?}"),
            }
        }
    }

    pub async fn hear(&mut self) -> String {
        match self.message().await {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("not a text: {other:?}"),
        }
    }

    /// The next messages are these, and nothing is between them.
    pub async fn hears(&mut self, texts: &[&str]) {
        for text in texts {
            assert_eq!(self.hear().await, *text);
        }
    }

    /// Reads to the end.
    pub async fn closed(&mut self) -> Closed {
        let mut before = Vec::new();
        loop {
            match soon("the connection ends", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => before.push(text.as_str().to_owned()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    let reason = frame.reason.as_str().to_owned();
                    return Closed { code: frame.code.into(), reason, before };
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Closed { code: 1006, reason: String::new(), before },
            }
        }
    }
}
