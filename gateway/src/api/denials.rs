//! What callers may not do: each refusal is counted, is remembered as refusals of clients are, and has a line in the audit,
//! by gRPC, as JSON and on streams that are open. Those of a request's head, whose body is not read, are counted and
//! remembered by the port.

use std::sync::Weak;

use broadgate_proto::v1::{self, command::Command};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::{
    audit::{AuditLine, app_name, asked, fit, tapped},
    callers::Caller,
    dispatch::Dispatcher,
    refusals::RefusalContext,
};

/// May the caller give this command?
///
/// # Errors
/// If not, why.
pub(super) fn may_command(
    dispatcher: &Dispatcher,
    caller: &Caller,
    command: &Command,
) -> Result<(), v1::Error> {
    caller.may_command(command).inspect_err(|error| {
        dispatcher.callers.count_refused(caller, command);
        note(dispatcher, caller, Code::from_i32(error.code), &error.message, asked(command));
    })
}

/// May the caller make this call, which is no command, about this app?
///
/// # Errors
/// If not, why.
pub(super) fn may_call(
    dispatcher: &Dispatcher,
    caller: &Caller,
    call: &'static str,
    app: &str,
) -> Result<(), Status> {
    let on = || json!({ "call": call, "app": app_name(app) });
    caller
        .may_call(call, Some(app))
        .inspect_err(|status| note(dispatcher, caller, status.code(), status.message(), on()))
}

/// May the caller drain this gateway?
///
/// # Errors
/// If not, why.
pub(super) fn may_drain(dispatcher: &Dispatcher, caller: &Caller, gateway: &str) -> Result<(), Status> {
    let on = || json!({ "call": "Drain", "gateway": fit(gateway) });
    caller
        .may_call("Drain", None)
        .inspect_err(|status| note(dispatcher, caller, status.code(), status.message(), on()))
}

/// May the caller tap this?
///
/// # Errors
/// If not, why.
pub(super) fn may_tap(
    dispatcher: &Dispatcher,
    caller: &Caller,
    request: &v1::TapRequest,
) -> Result<(), Status> {
    let on = || {
        let mut on = tapped(request);
        on["call"] = json!("Tap");
        on
    };
    caller
        .may_tap(request)
        .inspect_err(|status| note(dispatcher, caller, status.code(), status.message(), on()))
}

/// The same on a stream that is open, which does not keep the dispatcher alive.
pub(super) fn still(
    dispatcher: &Weak<Dispatcher>,
    allowed: impl FnOnce(&Dispatcher) -> Result<(), Status>,
) -> Result<(), Status> {
    let dispatcher = dispatcher.upgrade().ok_or_else(|| Status::unavailable("this gateway is stopping"))?;
    allowed(&dispatcher)
}

fn note(dispatcher: &Dispatcher, caller: &Caller, code: Code, why: &str, on: Value) {
    let reason = if code == Code::Unauthenticated { "token" } else { "not_allowed" };
    let text = |name: &str| on.get(name).and_then(Value::as_str).unwrap_or_default();
    let (app, path) = (text("app"), format!("/v1/{}", text("call")));
    // Whose token it is, is in the audit: here it is somebody at an address.
    let why = &*format!("{}: {why}", caller.who());
    RefusalContext { reason, why, address: caller.from, app, path: &path, ..RefusalContext::default() }
        .count_and_log(&dispatcher.refusals);
    write(dispatcher, caller, reason, why, on);
}

/// Writes the line of a refusal, which is counted elsewhere.
pub(super) fn write(dispatcher: &Dispatcher, caller: &Caller, reason: &'static str, why: &str, on: Value) {
    let what = if reason == "token" { "token_refused" } else { "denied" };
    let line = AuditLine::new(&dispatcher.me.load().name, caller, what, on);
    dispatcher.audit.note_refused(&line.refused(why));
}
