//! The targets of commands, and what is sent.

use broadgate_proto::{
    id::{CLIENT_ID_LEN, INCARNATION_LEN, Incarnation},
    v1::{self, Except, close_request, send_request},
};
use bytes::Bytes;

/// The clients that a command reaches: the union of what is listed, minus exceptions. A client that is
/// named in several ways is reached once.
///
/// ```
/// use broadgate_business::Audience;
///
/// let everybody_else = Audience::group("lobby").and_uid("ann").except_client("a client's id");
/// # let _ = everybody_else;
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Audience(pub(crate) v1::Audience);

type Texts = Vec<String>;

fn texts(names: impl IntoIterator<Item = impl Into<String>>) -> Texts {
    names.into_iter().map(Into::into).collect()
}

impl Audience {
    /// One client.
    pub fn client(id: impl Into<String>) -> Self {
        Self::default().and_client(id)
    }

    /// These clients.
    pub fn clients(ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(v1::Audience { clients: texts(ids), ..v1::Audience::default() })
    }

    /// Every client of a uid.
    pub fn uid(uid: impl Into<String>) -> Self {
        Self::default().and_uid(uid)
    }

    /// Every client of these uids.
    pub fn uids(uids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(v1::Audience { uids: texts(uids), ..v1::Audience::default() })
    }

    /// The members of a group.
    pub fn group(group: impl Into<String>) -> Self {
        Self::default().and_group(group)
    }

    /// The members of these groups.
    pub fn groups(groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(v1::Audience { groups: texts(groups), ..v1::Audience::default() })
    }

    /// Every client of the app.
    pub fn all() -> Self {
        Self(v1::Audience { all: true, ..v1::Audience::default() })
    }

    /// And this client.
    pub fn and_client(mut self, id: impl Into<String>) -> Self {
        self.0.clients.push(id.into());
        self
    }

    /// And the clients of this uid.
    pub fn and_uid(mut self, uid: impl Into<String>) -> Self {
        self.0.uids.push(uid.into());
        self
    }

    /// And the members of this group.
    pub fn and_group(mut self, group: impl Into<String>) -> Self {
        self.0.groups.push(group.into());
        self
    }

    /// But not this client.
    pub fn except_client(mut self, id: impl Into<String>) -> Self {
        self.except().clients.push(id.into());
        self
    }

    /// But not the clients of this uid.
    pub fn except_uid(mut self, uid: impl Into<String>) -> Self {
        self.except().uids.push(uid.into());
        self
    }

    /// But not the members of this group.
    pub fn except_group(mut self, group: impl Into<String>) -> Self {
        self.except().groups.push(group.into());
        self
    }

    fn except(&mut self) -> &mut Except {
        self.0.except.get_or_insert_default()
    }
}

/// What a send does besides, or instead.
///
/// ```no_run
/// # async fn example(cluster: broadgate_business::Cluster) -> Result<(), broadgate_business::CommandError> {
/// use broadgate_business::{Audience, SendOptions};
///
/// let dry = SendOptions { dry: true, ..SendOptions::default() };
/// let receipt = cluster.send_with(Audience::group("lobby"), "hello", dry).await?;
/// println!("it would reach {} clients", receipt.clients);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// The receipt's `trace` says which way the message took; default false.
    pub trace: bool,
    /// Finds the clients that the message would reach, and sends nothing; default false. A gateway that does
    /// not know dry runs refuses it.
    pub dry: bool,
}

/// The gateway that holds all of an audience, if only clients of one gateway are named.
pub(crate) fn holder_of(audience: &v1::Audience) -> Option<Incarnation> {
    let v1::Audience { clients, uids, groups, all, .. } = audience;
    if *all || !uids.is_empty() || !groups.is_empty() { None } else { holder(clients) }
}

impl From<&Self> for Audience {
    fn from(audience: &Self) -> Self {
        audience.clone()
    }
}

/// The gateway that all of these client ids name, if it is one.
pub(crate) fn holder(ids: &[String]) -> Option<Incarnation> {
    let (first, rest) = ids.split_first()?;
    let head = first.get(..INCARNATION_LEN).filter(|_| first.len() == CLIENT_ID_LEN)?;
    rest.iter().all(|id| id.starts_with(head)).then(|| head.parse().ok())?
}

/// The clients that join or leave groups: single ones, and every client of a uid.
///
/// ```no_run
/// # async fn example(cluster: broadgate_business::Cluster) -> Result<(), broadgate_business::CommandError> {
/// use broadgate_business::Who;
///
/// cluster.join(Who::uids(["ann", "bob"]), ["lobby"]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Who {
    pub(crate) clients: Texts,
    pub(crate) uids: Texts,
}

impl Who {
    /// One client.
    pub fn client(id: impl Into<String>) -> Self {
        Self { clients: vec![id.into()], uids: Vec::new() }
    }

    /// These clients.
    pub fn clients(ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { clients: texts(ids), uids: Vec::new() }
    }

    /// Every client of a uid.
    pub fn uid(uid: impl Into<String>) -> Self {
        Self { clients: Vec::new(), uids: vec![uid.into()] }
    }

    /// Every client of these uids.
    pub fn uids(uids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { clients: Vec::new(), uids: texts(uids) }
    }

    /// And these, too.
    pub fn and(mut self, other: Self) -> Self {
        self.clients.extend(other.clients);
        self.uids.extend(other.uids);
        self
    }

    pub(crate) fn holder(&self) -> Option<Incarnation> {
        if self.uids.is_empty() { holder(&self.clients) } else { None }
    }
}

/// What is sent: text, binary data, a named event, or ready-made WebSocket frames.
///
/// Text and bytes convert into it, so `cluster.send(audience, "text")` needs no `Payload`.
///
/// ```
/// use broadgate_business::Payload;
///
/// let order = Payload::json(&serde_json::json!({"order": 7}))?;
/// let event = Payload::event("OrderShipped", r#"{"id": 7}"#);
/// # let _ = (order, event);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    pub(crate) payload: send_request::Payload,
    /// The name of an event; "" if it is none.
    pub(crate) event: String,
}

impl Payload {
    /// An event with a name, which Pusher clients bind to; `data` is usually JSON. Other clients get the
    /// object `{"event", "channel", "data"}` as text. The name has at most 200 bytes.
    pub fn event(name: impl Into<String>, data: impl Into<String>) -> Self {
        Self { payload: send_request::Payload::Text(data.into()), event: name.into() }
    }

    fn plain(payload: send_request::Payload) -> Self {
        Self { payload, event: String::new() }
    }

    /// Whole, unmasked WebSocket frames. WebSocket clients get them as they are, other clients nothing.
    pub fn framed(frames: impl Into<Bytes>) -> Self {
        Self::plain(send_request::Payload::Framed(frames.into()))
    }

    /// A JSON text.
    ///
    /// # Errors
    /// If the value cannot be written as JSON.
    pub fn json(value: &impl serde::Serialize) -> Result<Self, serde_json::Error> {
        serde_json::to_string(value).map(Self::from)
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self::plain(send_request::Payload::Text(text))
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<&String> for Payload {
    fn from(text: &String) -> Self {
        text.clone().into()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::plain(send_request::Payload::Binary(bytes))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

/// How clients are closed.
///
/// ```
/// use broadgate_business::Close;
///
/// let banned = Close::with(4001, "banned").after("goodbye");
/// # let _ = banned;
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Close {
    /// 1000, 1001, 1008, 1011 to 1013, or 3000 to 4999; 0 means 1000.
    pub code: u16,
    /// At most 123 bytes.
    pub reason: String,
    /// A last message, placed before the close.
    pub last: Option<Payload>,
    /// Drop the outbox and cut the connection now.
    pub at_once: bool,
}

impl Close {
    /// With this code and reason.
    pub fn with(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), ..Self::default() }
    }

    /// Sends this last message before the close.
    pub fn after(mut self, last: impl Into<Payload>) -> Self {
        self.last = Some(last.into());
        self
    }

    /// Drops the outbox and cuts the connection.
    pub fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }
}

/// A last message; frames that are made already and events cannot be one.
pub(crate) fn last(payload: Payload) -> Option<close_request::Last> {
    if !payload.event.is_empty() {
        return None;
    }
    match payload.payload {
        send_request::Payload::Text(text) => Some(close_request::Last::Text(text)),
        send_request::Payload::Binary(bytes) => Some(close_request::Last::Binary(bytes)),
        send_request::Payload::Framed(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::id::ClientId;

    use super::*;

    fn id(gateway: u64, slot: u32) -> String {
        ClientId { incarnation: Incarnation::from_bits(gateway), shard: 0, slot, key: 5 }.to_string()
    }

    #[test]
    fn an_audience_is_a_union_less_exceptions() {
        let built = Audience::group("a").and_group("b").and_uid("u").except_client("c").except_group("d");
        assert_eq!(built.0.groups, ["a", "b"]);
        assert_eq!(built.0.uids, ["u"]);
        assert!(!built.0.all);
        let except = built.0.except.unwrap();
        assert_eq!((except.clients, except.groups), (vec!["c".to_owned()], vec!["d".to_owned()]));
        assert!(Audience::all().0.all && Audience::all().0.except.is_none());
    }

    #[test]
    fn only_clients_of_one_gateway_have_a_holder() {
        let seven = Some(Incarnation::from_bits(7));
        let holder = |audience: Audience| holder_of(&audience.0);
        assert_eq!(holder(Audience::client(id(7, 1))), seven);
        assert_eq!(holder(Audience::clients([id(7, 1), id(7, 2)])), seven);
        assert_eq!(holder(Audience::clients([id(7, 1), id(8, 2)])), None);
        assert_eq!(holder(Audience::client(id(7, 1)).and_uid("u")), None);
        assert_eq!(holder(Audience::all()), None);
        assert_eq!(holder(Audience::client("nobody")), None);
        assert_eq!(Who::client(id(7, 1)).holder(), seven);
        assert_eq!(Who::client(id(7, 1)).and(Who::uid("u")).holder(), None);
        assert_eq!(Who::default().holder(), None);
    }

    #[test]
    fn payloads_keep_their_kind() {
        assert!(matches!(Payload::from("a").payload, send_request::Payload::Text(_)));
        assert!(matches!(Payload::from(vec![1]).payload, send_request::Payload::Binary(_)));
        assert!(last(Payload::framed(vec![1])).is_none());
        assert_eq!(Payload::json(&serde_json::json!({"a":1})).unwrap(), Payload::from("{\"a\":1}"));
    }
}
