//! A caller of the internal port.

use std::{borrow::Cow, net::SocketAddr, sync::Arc};

use broadgate_proto::{
    name,
    v1::{self, command::Command},
};
use tonic::{Code, Status};

use crate::{
    callers::{
        command_rights::of_command,
        rights::{CallRights, Concerned, Least, Payloads, of_call},
        tokens::{AccessToken, TokenRefusal, TokenRole, Tokens},
        traceparent::TraceParent,
    },
    refusals::now_ms,
};

/// Who calls, and from where.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) kind: CallerKind,
    /// The name of the worker that it says it is.
    pub(crate) worker: Option<Box<str>>,
    /// By which road: `grpc`, `json` or `http_api`; or `cli` or `dashboard`, as it says.
    pub(crate) how: &'static str,
    /// What it wants to be written down with its orders.
    pub(crate) note: Option<Box<str>>,
    /// The trace that a single call is part of.
    pub(crate) traceparent: Option<TraceParent>,
    pub(crate) from: Option<SocketAddr>,
}

/// How a caller is known.
#[derive(Debug, Clone)]
pub(crate) enum CallerKind {
    /// It has the shared secret.
    Secret,
    /// It has a certificate of the cluster, where there is no secret.
    Certificate,
    /// It is on this machine, where there is neither.
    Local,
    /// It is an app's backend, known by the app and its key: `ID/KEY`.
    App(Box<str>),
    /// It has a token. What that allows is looked up at every call and command: it may be changed or removed
    /// meanwhile.
    Token(Box<TokenHolder>),
}

/// The holder of a token.
#[derive(Debug, Clone)]
pub(crate) struct TokenHolder {
    pub(super) name: String,
    pub(super) hash: [u8; 32],
    pub(super) tokens: Tokens,
}

impl TokenHolder {
    fn token(&self) -> Result<Arc<AccessToken>, TokenRefusal> {
        self.tokens.find_hash(&self.hash, now_ms())
    }
}

impl Caller {
    /// Who made a request. The port's check has left it there; without it nobody is known, and the caller counts as
    /// the holder of a token that does not exist.
    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_else(|| Self {
            kind: CallerKind::Token(Box::new(TokenHolder {
                name: String::new(),
                hash: [0; 32],
                tokens: Tokens::default(),
            })),
            worker: None,
            how: "grpc",
            note: None,
            traceparent: None,
            from: None,
        })
    }

    /// The backend of an app; without its key where that is a secret.
    pub(crate) fn of_app(app: &str, key: Option<&str>, from: SocketAddr) -> Self {
        let app = key.map_or_else(|| app.to_owned(), |key| format!("{app}/{key}"));
        Self {
            kind: CallerKind::App(app.into()),
            worker: None,
            how: "http_api",
            note: None,
            traceparent: None,
            from: Some(from),
        }
    }

    /// `token:NAME` and so on, as CloseRequest.by has it.
    pub(crate) fn who(&self) -> Cow<'static, str> {
        match &self.kind {
            CallerKind::Token(holder) => Cow::Owned(format!("token:{}", holder.name)),
            CallerKind::App(app) => Cow::Owned(format!("app:{app}")),
            _ if self.worker.is_some() => {
                Cow::Owned(format!("worker:{}", self.worker.as_deref().unwrap_or_default()))
            }
            CallerKind::Secret => Cow::Borrowed("secret"),
            CallerKind::Certificate => Cow::Borrowed("certificate"),
            CallerKind::Local => Cow::Borrowed("local"),
        }
    }

    /// The same for the process that carries out its order.
    pub(crate) fn giver(&self) -> v1::OrderGiver {
        v1::OrderGiver {
            who: self.who().into_owned(),
            how: self.how.to_owned(),
            from: self.from.map(|from| from.ip().to_string()).unwrap_or_default(),
            note: self.note.as_deref().unwrap_or_default().to_owned(),
        }
    }

    /// The role that it has now.
    pub(crate) fn role(&self) -> Option<TokenRole> {
        match &self.kind {
            CallerKind::Token(holder) => holder.token().ok().map(|token| token.role),
            CallerKind::App(_) => None,
            _ => Some(TokenRole::Admin),
        }
    }

    /// Whether it may see what messages, sessions and presence members hold.
    pub(crate) fn sees_payloads(&self) -> bool {
        match &self.kind {
            CallerKind::Token(holder) => holder.token().is_ok_and(|token| token.sees_payloads),
            _ => true,
        }
    }

    /// Whether it is a program that may do much in a short time, and waits for nobody.
    pub(crate) fn is_program(&self) -> bool {
        self.worker.is_some() || matches!(self.kind, CallerKind::App(_))
    }

    /// Whether it is the holder of a token, whose every command is looked at. Processes of the cluster pay no more
    /// for theirs than this.
    pub(crate) const fn has_token(&self) -> bool {
        matches!(self.kind, CallerKind::Token(_))
    }

    /// May it give this command?
    ///
    /// # Errors
    /// If not, why.
    pub(crate) fn may_command(&self, command: &Command) -> Result<(), v1::Error> {
        let CallerKind::Token(holder) = &self.kind else { return Ok(()) };
        let token = holder.token().map_err(|error| unauthenticated(&error))?;
        let needs = of_command(command);
        let Some(row) = needs.row else { return Err(denied("the table of rights does not name the call")) };
        allows(&token, row, needs.app)?;
        match needs.more {
            Some((role, what)) if token.role < role => Err(denied(format!(
                "{what} needs the role {}, and {} has {}",
                role.name(),
                named(&token),
                token.role.name()
            ))),
            _ => Ok(()),
        }
    }

    /// May it make this call, which is no command, about this app? None is all apps.
    ///
    /// # Errors
    /// If not, why.
    pub(crate) fn may_call(&self, call: &str, app: Option<&str>) -> Result<(), Status> {
        let CallerKind::Token(holder) = &self.kind else { return Ok(()) };
        let refused = |error: v1::Error| Status::new(Code::from_i32(error.code), error.message);
        let token = holder.token().map_err(|error| refused(unauthenticated(&error)))?;
        let row =
            of_call(call).ok_or_else(|| refused(denied("the table of rights does not name the call")))?;
        allows(&token, row, app).map_err(refused)
    }

    /// May it tap this? What is not of one app's clients alone is no tap; payloads need their right.
    ///
    /// # Errors
    /// If not, why.
    pub(crate) fn may_tap(&self, request: &v1::TapRequest) -> Result<(), Status> {
        self.may_call("Tap", Some(&request.app))?;
        if request.payload && !self.sees_payloads() {
            let sentence = format!("{} may not see payloads: its token needs the right payload", self.who());
            return Err(Status::permission_denied(sentence));
        }
        Ok(())
    }

    /// Who this is, for the caller itself.
    ///
    /// # Errors
    /// If its token does not count any more.
    pub(crate) fn describe(&self, gateway: &str) -> Result<v1::WhoAmIReply, v1::Error> {
        let who = self.who().into_owned();
        let gateway = gateway.to_owned();
        let CallerKind::Token(holder) = &self.kind else {
            let (apps, rights) = (vec![AccessToken::ALL_APPS.to_owned()], vec!["payload".to_owned()]);
            let role = TokenRole::Admin.name().to_owned();
            return Ok(v1::WhoAmIReply { who, role, apps, rights, expires_at_ms: 0, gateway });
        };
        let token = holder.token().map_err(|error| unauthenticated(&error))?;
        Ok(v1::WhoAmIReply {
            who,
            role: token.role.name().to_owned(),
            apps: token.apps.clone(),
            rights: if token.sees_payloads { vec!["payload".to_owned()] } else { Vec::new() },
            expires_at_ms: token.expires_at_ms.unwrap_or(0),
            gateway,
        })
    }
}

/// Does a token allow a call about this app? None is all apps.
fn allows(token: &AccessToken, row: &CallRights, app: Option<&str>) -> Result<(), v1::Error> {
    has_role(token, row)?;
    let app = match row.concerned {
        Concerned::None | Concerned::ByCommand => return Ok(()),
        Concerned::Named => app,
        Concerned::All => None,
    };
    // What is no app's name is refused later.
    let app = app.map(|app| name::app(app).unwrap_or(app));
    match app {
        Some(app) if !token.is_for(app) => {
            Err(denied(format!("{} is not for the app {app:?}", named(token))))
        }
        None if !token.is_for_all() => Err(denied(format!(
            "{} concerns all apps, and {} is for some: it needs apps = [\"*\"]",
            row.call,
            named(token)
        ))),
        _ => Ok(()),
    }
}

/// Does a token allow a call in any app?
pub(super) fn has_role(token: &AccessToken, row: &CallRights) -> Result<(), v1::Error> {
    match row.least {
        Least::Process => Err(denied(format!(
            "{}.{} is for workers and gateways, which use the shared secret: a token does not allow it",
            row.service, row.call
        ))),
        Least::Role(role) if token.role < role => Err(denied(format!(
            "{} needs the role {}, and {} has {}",
            row.call,
            role.name(),
            named(token),
            token.role.name()
        ))),
        Least::Role(_) if row.payloads == Payloads::Needed && !token.sees_payloads => {
            Err(denied(format!("{} needs the right payload, which {} has not", row.call, named(token))))
        }
        Least::Role(_) => Ok(()),
    }
}

fn named(token: &AccessToken) -> String {
    format!("token {:?}", token.name)
}

pub(super) fn denied(sentence: impl Into<String>) -> v1::Error {
    v1::Error { code: Code::PermissionDenied.into(), message: sentence.into() }
}

fn unauthenticated(error: &TokenRefusal) -> v1::Error {
    v1::Error { code: Code::Unauthenticated.into(), message: error.to_string() }
}
