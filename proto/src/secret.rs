//! The shared secret of the internal ports: sent as `authorization: Bearer …`, compared in constant time.
//! While it is being changed there may be two: both are sent, as `authorization: Bearer NEW, Bearer OLD`, and
//! both are accepted. So processes that share any of their secrets accept each other, in whatever order they
//! restart.

use std::{fmt, net::IpAddr, sync::Arc};

use subtle::ConstantTimeEq as _;
use tonic::{Request, Status, metadata::AsciiMetadataValue, service::Interceptor};

use crate::{
    limits::SECRET_BYTES_MIN,
    said::{HOW_HEADER, NOTE_HEADER, note_header},
    v1::Role,
};

/// What every token of an operator begins with, and no secret.
pub const TOKEN_MARK: &str = "bgt_";

/// The new one and the old one. Fixed: it is part of the contract.
const SECRETS_MAX: usize = 2;

/// The metadata by which a worker says its name, besides what it shows: operators see it where its commands close
/// clients.
pub const WORKER_HEADER: &str = "broadgate-worker";

/// The metadata by which a member says its role and name to a register, besides what it shows: operators see who is not let
/// in. `gateway NAME` or `worker NAME`.
pub const MEMBER_HEADER: &str = "broadgate-member";

/// The secrets of a cluster; none means loopback only. Cheap to clone; never printed.
#[derive(Clone, Default)]
pub struct Secret {
    all: Arc<[String]>,
    said: SaidByCaller,
}

/// What the caller that sends them says of itself.
#[derive(Debug, Clone, Default)]
struct SaidByCaller {
    worker: Option<AsciiMetadataValue>,
    member: Option<AsciiMetadataValue>,
    how: Option<AsciiMetadataValue>,
    note: Option<AsciiMetadataValue>,
}

/// An unusable secret or listen address.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Nothing is in the file.
    #[error("it is empty: `broadgate secret` prints a secret")]
    Empty,
    /// Too short.
    #[error(
        "the shared secret has {0} bytes: at least {SECRET_BYTES_MIN} are needed (`broadgate secret` prints one)"
    )]
    Short(usize),
    /// Not printable ASCII.
    #[error("the shared secret holds a character other than printable ASCII without spaces")]
    Characters,
    /// An operator's token.
    #[error(
        "the shared secret begins with {TOKEN_MARK}, as tokens do: a token goes to BROADGATE_TOKEN, --token-file or \
         a cluster's token_file, a secret is what `broadgate secret` prints"
    )]
    Token,
    /// Not one token.
    #[error("it is not a token, which begins with {TOKEN_MARK} (`broadgate token new` prints one)")]
    NoToken,
    /// More than two.
    #[error("{0} shared secrets are given: at most two, the new one first, then the old one")]
    TooMany(usize),
    /// A reachable port without a secret.
    #[error(
        "internal port {0} would be reachable from other hosts without a shared secret or TLS: \
         set BROADGATE_SECRET or secret_file, or [cluster.tls], or listen on 127.0.0.1"
    )]
    Open(std::net::SocketAddr),
}

impl Secret {
    /// The secrets in a text: separated by white space or commas, the one to send first.
    ///
    /// # Errors
    /// If one is too short or not printable, or if there are more than two.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let all: Vec<String> = text
            .split(|c: char| c.is_whitespace() || c == ',')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        if all.len() > SECRETS_MAX {
            return Err(SecretError::TooMany(all.len()));
        }
        for one in &all {
            if one.starts_with(TOKEN_MARK) {
                return Err(SecretError::Token);
            }
            if one.len() < SECRET_BYTES_MIN {
                return Err(SecretError::Short(one.len()));
            }
            if !one.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(SecretError::Characters);
            }
        }
        Ok(Self { all: all.into(), said: SaidByCaller::default() })
    }

    /// The same, sent by the worker of this name. Characters that no header can have become `?`.
    #[must_use]
    pub fn of_worker(self, name: &str) -> Self {
        Self { said: SaidByCaller { worker: fitting(name), ..self.said }, ..self }
    }

    /// The same, sent to a register by the member of this role and name.
    #[must_use]
    pub fn of_member(self, role: Role, name: &str) -> Self {
        let role = if role == Role::Worker { "worker" } else { "gateway" };
        Self { said: SaidByCaller { member: fitting(&format!("{role} {name}")), ..self.said }, ..self }
    }

    /// The same, sent by a program of people: one of [`PROGRAMS`](crate::said::PROGRAMS).
    #[must_use]
    pub fn of_program(self, program: &'static str) -> Self {
        let how = Some(AsciiMetadataValue::from_static(program));
        Self { said: SaidByCaller { how, ..self.said }, ..self }
    }

    /// The same, sent with a note for the audit, which was checked.
    #[must_use]
    pub fn with_note(self, note: &str) -> Self {
        let note = note_header(note.trim()).parse().ok().filter(|_| !note.trim().is_empty());
        Self { said: SaidByCaller { note, ..self.said }, ..self }
    }

    /// A token, which a caller sends in the secret's place.
    ///
    /// # Errors
    /// If the text is not one.
    pub fn of_token(text: &str) -> Result<Self, SecretError> {
        let token = text.trim();
        let is_one = token.starts_with(TOKEN_MARK)
            && token.len() >= SECRET_BYTES_MIN
            && token.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
        if is_one {
            Ok(Self { all: vec![token.to_owned()].into(), said: SaidByCaller::default() })
        } else {
            Err(SecretError::NoToken)
        }
    }

    /// Those in a file: somebody meant that there is one.
    ///
    /// # Errors
    /// The same, and if there is none.
    pub fn of_file(text: &str) -> Result<Self, SecretError> {
        Self::parse(text)
            .and_then(|secret| if secret.is_none() { Err(SecretError::Empty) } else { Ok(secret) })
    }

    /// What a function makes of each, the one that is sent first.
    pub fn map(&self, each: impl Fn(&str) -> u64) -> Vec<u64> {
        self.all.iter().map(|secret| each(secret)).collect()
    }

    /// Whether it is a token, which registers do not take.
    #[must_use]
    pub fn is_token(&self) -> bool {
        self.all.iter().any(|one| one.starts_with(TOKEN_MARK))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether an internal port may listen here.
    ///
    /// # Errors
    /// If others could reach it and there is no secret.
    pub fn check_bind(&self, bind: std::net::SocketAddr) -> Result<(), SecretError> {
        let loopback = match bind.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        };
        if loopback || !self.is_none() { Ok(()) } else { Err(SecretError::Open(bind)) }
    }

    /// Whether this value of an `Authorization` header is right.
    #[must_use]
    pub fn accepts(&self, authorization: Option<&str>) -> bool {
        if self.is_none() {
            return true;
        }
        let given = authorization.unwrap_or_default().split(',').take(SECRETS_MAX);
        // No early exit: the time must not reveal which one nearly matched.
        given.fold(false, |right, given| {
            let given = given.trim().strip_prefix("Bearer ").unwrap_or_default();
            self.all
                .iter()
                .fold(right, |right, one| right | bool::from(one.as_bytes().ct_eq(given.as_bytes())))
        })
    }

    /// The header that a caller adds to each call: every secret that it has, since the other side may know
    /// only one of them.
    #[must_use]
    pub fn sender(&self) -> SendSecret {
        let all: Vec<_> = self.all.iter().map(|one| format!("Bearer {one}")).collect();
        let secrets = if all.is_empty() { None } else { all.join(", ").parse().ok() };
        SendSecret { secrets, said: self.said.clone() }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} given)", self.all.len())
    }
}

/// A text as a header can have it.
fn fitting(text: &str) -> Option<AsciiMetadataValue> {
    let fit = |letter: char| if letter.is_ascii_graphic() || letter == ' ' { letter } else { '?' };
    let text: String = text.chars().map(fit).collect();
    text.trim().parse().ok().filter(|_| !text.trim().is_empty())
}

/// The token in the value of an `Authorization` header, if it has one.
#[must_use]
pub fn token_of(authorization: &str) -> Option<&str> {
    authorization.strip_prefix("Bearer ").map(str::trim).filter(|token| token.starts_with(TOKEN_MARK))
}

/// Adds the secret to a call.
#[derive(Clone, Debug)]
pub struct SendSecret {
    secrets: Option<AsciiMetadataValue>,
    said: SaidByCaller,
}

impl Interceptor for SendSecret {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let SaidByCaller { worker, member, how, note } = &self.said;
        let all = [(WORKER_HEADER, worker), (MEMBER_HEADER, member), (HOW_HEADER, how), (NOTE_HEADER, note)];
        for (header, said) in all {
            if let Some(said) = said {
                request.metadata_mut().insert(header, said.clone());
            }
        }
        if let Some(value) = &self.secrets {
            let mut value = value.clone();
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn rotation_accepts_and_sends_both() {
        let secret = Secret::parse(&format!("{A}, {B}\n")).unwrap();
        assert!(secret.accepts(Some(&format!("Bearer {A}"))));
        assert!(secret.accepts(Some(&format!("Bearer {B}"))));
        for wrong in [None, Some(""), Some(A), Some("Bearer "), Some("Bearer x")] {
            assert!(!secret.accepts(wrong));
        }
        // A process that has two secrets and one that knows only one of them accept each other.
        let sent = secret.sender().call(Request::new(())).unwrap();
        let sent = sent.metadata().get("authorization").unwrap().to_str().unwrap();
        assert_eq!(sent, format!("Bearer {A}, Bearer {B}"));
        assert!(Secret::parse(A).unwrap().accepts(Some(sent)));
        assert!(Secret::parse(B).unwrap().accepts(Some(sent)));
        assert!(!Secret::parse(&"c".repeat(32)).unwrap().accepts(Some(sent)));
        let guesses = format!("Bearer x, Bearer y, Bearer {A}");
        assert!(!secret.accepts(Some(&guesses)), "more guesses than there are secrets");
    }

    #[test]
    fn a_token_is_no_secret_and_is_sent_like_one() {
        let token = format!("{TOKEN_MARK}{A}");
        assert!(matches!(Secret::parse(&token), Err(SecretError::Token)));
        for wrong in ["", A, TOKEN_MARK, &format!("{token} {token}"), &format!("{token},{A}")] {
            assert!(matches!(Secret::of_token(wrong), Err(SecretError::NoToken)), "{wrong}");
        }
        let sent = Secret::of_token(&format!("{token}\n")).unwrap().sender().call(Request::new(())).unwrap();
        let sent = sent.metadata().get("authorization").unwrap().to_str().unwrap();
        assert_eq!(token_of(sent), Some(&*token));
        assert!(!Secret::parse(A).unwrap().accepts(Some(sent)));
        assert_eq!(token_of(&format!("Bearer {A}")), None);
    }

    #[test]
    fn a_worker_says_its_name() {
        let said = |name: &str| {
            let sent = Secret::default().of_worker(name).sender().call(Request::new(())).unwrap();
            sent.metadata().get(WORKER_HEADER).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(said("chat-1").as_deref(), Some("chat-1"));
        assert_eq!(said("caf\u{e9}\n").as_deref(), Some("caf??"));
        assert_eq!(said(""), None);
    }

    #[test]
    fn an_operator_says_how_and_why() {
        let secret = Secret::default().of_program(crate::said::CLI).with_note(" f\u{fc}r #4711\n");
        let sent = secret.sender().call(Request::new(())).unwrap();
        let said = |header| sent.metadata().get(header).map(|value| value.to_str().unwrap());
        assert_eq!((said(HOW_HEADER), said(NOTE_HEADER)), (Some("cli"), Some("f%C3%BCr #4711")));
        assert_eq!(said(WORKER_HEADER), None);
    }

    #[test]
    fn a_weak_secret_is_refused_and_none_means_loopback() {
        assert!(matches!(Secret::parse("short"), Err(SecretError::Short(5))));
        assert!(matches!(Secret::parse(&format!("{A} {A} {A}")), Err(SecretError::TooMany(3))));
        assert!(matches!(Secret::parse(&"é".repeat(32)), Err(SecretError::Characters)));
        let none = Secret::default();
        assert!(none.accepts(None));
        assert!(none.check_bind("127.0.0.1:1".parse().unwrap()).is_ok());
        assert!(none.check_bind("[::1]:1".parse().unwrap()).is_ok());
        assert!(none.check_bind("0.0.0.0:1".parse().unwrap()).is_err());
        assert!(Secret::parse(A).unwrap().check_bind("0.0.0.0:1".parse().unwrap()).is_ok());
        assert!(!format!("{:?}", Secret::parse(A).unwrap()).contains("aaa"));
    }
}
