//! The check of a request's head, before its body is read.

use std::{fmt, net::SocketAddr};

use broadgate_port::{Admit, RefusedRequest, ShownCredential};
use broadgate_proto::{
    limits::NAME_BYTES_MAX,
    said::{self, HOW_HEADER, NOTE_HEADER},
    secret::WORKER_HEADER,
};
use http::{Extensions, HeaderMap};

use crate::{
    callers::{
        caller::{Caller, CallerKind, TokenHolder, has_role},
        rights::of_path,
        tokens::{AccessToken, TokenRefusal, Tokens},
        traceparent::TraceParent,
    },
    refusals::now_ms,
};

/// Who may make which call of the internal port.
pub(crate) struct TokenCheck {
    pub(crate) tokens: Tokens,
    /// Called for each refused token.
    pub(crate) refused: Box<dyn Fn(RefusedToken<'_>) + Send + Sync>,
}

/// A token that does not count, or does not allow a call.
pub(crate) struct RefusedToken<'a> {
    /// Whose it is, as far as that is known.
    pub(crate) caller: Caller,
    pub(crate) path: &'a str,
    /// From a closed set.
    pub(crate) reason: &'static str,
    pub(crate) why: &'a str,
}

/// The name of a token that nobody knows.
const UNKNOWN: &str = "?";

impl fmt::Debug for TokenCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenCheck")
    }
}

impl Admit for TokenCheck {
    /// What is left for later is what the head does not say: the app, and each command of a stream.
    fn admit(
        &self,
        shown: ShownCredential<'_>,
        path: &str,
        headers: &HeaderMap,
        from: Option<SocketAddr>,
        extensions: &mut Extensions,
    ) -> Result<(), RefusedRequest> {
        let program = headers.get(HOW_HEADER).and_then(|how| how.to_str().ok()).and_then(said::program);
        let how = program.unwrap_or(if path.starts_with("/v1/") { "json" } else { "grpc" });
        let note = headers.get(NOTE_HEADER).map_or(Ok(None), |note| said::note_of_header(note.as_bytes()));
        let note = note.map_err(|error| RefusedRequest::invalid("command_invalid", error.to_string()))?;
        let note: Option<Box<str>> = note.map(Into::into);
        let traceparent = TraceParent::of(headers);
        let kind = match shown {
            ShownCredential::Secret => CallerKind::Secret,
            ShownCredential::Certificate => CallerKind::Certificate,
            ShownCredential::Nothing => CallerKind::Local,
            ShownCredential::Token(text) => {
                let holder = self.holder(text, path).map_err(|(holder, reason, why)| {
                    let kind = CallerKind::Token(Box::new(holder));
                    let caller = Caller { kind, worker: None, how, note: note.clone(), traceparent, from };
                    (self.refused)(RefusedToken { caller, path, reason, why: &why });
                    match reason {
                        "token" => RefusedRequest::unauthenticated(reason, why),
                        _ => RefusedRequest::denied(reason, why),
                    }
                });
                CallerKind::Token(Box::new(holder?))
            }
        };
        let worker = headers.get(WORKER_HEADER).and_then(|name| name.to_str().ok());
        // What it says is not proved, and does not count where a token tells who it is.
        let worker = worker.filter(|name| name.len() <= NAME_BYTES_MAX && !shown.is_token());
        extensions.insert(Caller { kind, worker: worker.map(Into::into), how, note, traceparent, from });
        Ok(())
    }
}

impl TokenCheck {
    /// The holder of a token that allows this call; else as far as the holder is known, and why not.
    fn holder(&self, text: &str, path: &str) -> Result<TokenHolder, (TokenHolder, &'static str, String)> {
        let hash = AccessToken::hash(text);
        let holder = |name: &str| TokenHolder { name: name.to_owned(), hash, tokens: self.tokens.clone() };
        let token = self.tokens.find_hash(&hash, now_ms()).map_err(|error| {
            let name = if let TokenRefusal::Expired(name) = &error { name } else { UNKNOWN };
            (holder(name), "token", error.to_string())
        })?;
        let not_allowed = |sentence| (holder(&token.name), "not_allowed", sentence);
        let row = of_path(path).ok_or_else(|| {
            not_allowed(format!("the table of rights names no call {path:?}: a token does not allow it"))
        })?;
        has_role(&token, row).map_err(|error| not_allowed(error.message))?;
        Ok(holder(&token.name))
    }
}
