//! The commands of a caller: checked, executed, and answered with what the caller may see.

use std::{
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use broadgate_proto::{
    name,
    v1::{self, Epoch, answer::Answer, command::Command, hop::Step},
    view,
};
use futures_util::{Stream, StreamExt as _};
use serde_json::{Value, json};
use tonic::Status;

use crate::{
    api::denials,
    audit::{AuditLine, tapped},
    callers::{Caller, TraceParent, hide},
    command::{hops_in_line, refusal, understood},
    dispatch::{Dispatcher, PlacedBatch},
};

/// One command, and its answer.
pub(super) async fn run(
    dispatcher: &Arc<Dispatcher>,
    caller: &Caller,
    mut command: Command,
    after: Option<Epoch>,
    patience: Option<Duration>,
) -> Answer {
    if let Err(refused) = denials::may_command(dispatcher, caller, &command) {
        return Answer::Error(refused);
    }
    dispatcher.callers.count(caller, std::iter::once(&command));
    dispatcher.sign(&mut command, caller);
    let line = AuditLine::of_command(|| gateway(dispatcher), caller, &command);
    let traced = is_traced(&command);
    let logged = is_logged(caller) && ask_for_trace(&mut command);
    let mut answer = dispatcher.run_within(command, after, patience).await;
    if traced || logged {
        note_caller(&mut answer, caller);
    }
    if logged {
        log_trace(&mut answer, traced);
    }
    if let Some(line) = line {
        dispatcher.audit.note(caller, line.answered(&answer)).await;
    }
    if !caller.sees_payloads() {
        hide(&mut answer);
    }
    answer
}

const fn is_traced(command: &Command) -> bool {
    matches!(command, Command::Send(request) if request.trace)
}

/// Whether its sends are traced for the log: its own trace is recorded, and somebody reads the log's.
pub(crate) fn is_logged(caller: &Caller) -> bool {
    caller.traceparent.is_some_and(TraceParent::is_sampled)
        && tracing::enabled!(target: "trace", tracing::Level::DEBUG)
}

/// Has a send traced; false if it cannot be.
const fn ask_for_trace(command: &mut Command) -> bool {
    let Command::Send(request) = command else { return false };
    request.trace |= !request.no_receipt;
    request.trace && !request.no_receipt
}

/// One line, with every hop. The trace stays in the receipt if the caller has asked for it.
pub(crate) fn log_trace(answer: &mut Answer, stays: bool) {
    let Answer::Receipt(receipt) = answer else { return };
    let Some(trace) = &receipt.trace else { return };
    let (traceparent, command, clients) = (&*trace.traceparent, &*receipt.command_id, receipt.clients);
    let hops = hops_in_line(trace);
    tracing::debug!(target: "trace", traceparent, command, clients, took_us = trace.took_us, hops);
    if !stays {
        receipt.trace = None;
    }
}

/// A trace says from whom the command was taken, and of which trace of its own it is.
pub(crate) fn note_caller(answer: &mut Answer, caller: &Caller) {
    let Answer::Receipt(v1::Receipt { trace: Some(trace), .. }) = answer else { return };
    trace.traceparent = caller.traceparent.map(|parent| parent.to_string()).unwrap_or_default();
    for hop in &mut trace.hops {
        if let Some(Step::Taken(taken)) = &mut hop.step {
            taken.caller = caller.who().into_owned();
        }
    }
}

fn gateway(dispatcher: &Dispatcher) -> String {
    dispatcher.me.load().name.clone()
}

/// Who is calling. The holder of a token has so logged in.
pub(super) async fn who_am_i(dispatcher: &Dispatcher, caller: &Caller) -> Result<v1::WhoAmIReply, v1::Error> {
    let name = gateway(dispatcher);
    let reply = caller.describe(&name)?;
    if caller.has_token() {
        dispatcher.audit.note(caller, AuditLine::new(&name, caller, "login", Value::Null)).await;
    }
    Ok(reply)
}

/// The gateways of the view, for callers who watch something at each.
pub(super) fn gateways(
    dispatcher: &Dispatcher,
    caller: &Caller,
    request: &v1::GatewaysRequest,
) -> Result<v1::GatewaysReply, v1::Error> {
    denials::may_call(dispatcher, caller, "Gateways", &request.app)
        .map_err(|status| refusal(status.code(), status.message()))?;
    understood(&request.requires)?;
    let view = &dispatcher.installed.borrow().view;
    let members = view::gateways(view).map(|gateway| v1::Member {
        incarnation: gateway.incarnation.clone(),
        role: gateway.role,
        name: gateway.name.clone(),
        address: gateway.address.clone(),
        state: gateway.state,
        ring_version: gateway.ring_version,
        ..v1::Member::default()
    });
    let view = v1::View { epoch: view.epoch, before: view.before, members: members.collect() };
    Ok(v1::GatewaysReply { view: Some(view) })
}

/// Notes that the holder of a token watches what shows payloads.
pub(super) async fn note_watch(dispatcher: &Dispatcher, caller: &Caller, what: &'static str, app: &str) {
    if caller.has_token() && caller.sees_payloads() {
        let line = AuditLine::new(
            &gateway(dispatcher),
            caller,
            what,
            json!({ "app": name::app(app).unwrap_or("?") }),
        );
        dispatcher.audit.note(caller, line).await;
    }
}

/// Notes a tap, unless a gateway opens it for another one's caller.
pub(super) async fn note_tap(dispatcher: &Dispatcher, caller: &Caller, request: &v1::TapRequest) {
    if !request.gateway.is_empty() && !caller.has_token() {
        return;
    }
    let line = AuditLine::new(&gateway(dispatcher), caller, "tap", tapped(request));
    dispatcher.audit.note(caller, line).await;
}

/// A tap that ends when its caller's token does not allow it any more.
pub(super) fn watched_tap(
    dispatcher: Weak<Dispatcher>,
    caller: Caller,
    request: v1::TapRequest,
    events: CallerEvents<v1::TapEvents>,
) -> CallerEvents<v1::TapEvents> {
    if !caller.has_token() {
        return events;
    }
    let may =
        move || denials::still(&dispatcher, |dispatcher| denials::may_tap(dispatcher, &caller, &request));
    events.map(move |event| may().and(event)).boxed()
}

/// A batch of a stream whose commands are placed, as far as its caller may give them.
pub(super) struct CallerBatch<'a> {
    dispatcher: &'a Arc<Dispatcher>,
    caller: &'a Caller,
    placed: PlacedBatch,
    /// By the commands' numbers.
    audited: Vec<(u64, AuditLine)>,
    refused: Vec<v1::Answer>,
    /// Whether one of them is.
    traced: bool,
}

/// Places the commands of a batch that their caller may give.
pub(super) async fn place<'a>(
    dispatcher: &'a Arc<Dispatcher>,
    caller: &'a Caller,
    mut commands: Vec<v1::Command>,
) -> CallerBatch<'a> {
    let refused =
        if caller.has_token() { take_refused(dispatcher, caller, &mut commands) } else { Vec::new() };
    dispatcher.callers.count(caller, commands.iter().filter_map(|whole| whole.command.as_ref()));
    let (mut audited, mut traced) = (Vec::new(), false);
    for whole in &mut commands {
        let Some(command) = &mut whole.command else { continue };
        traced |= is_traced(command);
        dispatcher.sign(command, caller);
        let line = AuditLine::of_command(|| gateway(dispatcher), caller, command);
        audited.extend(line.map(|line| (whole.id, line)));
    }
    CallerBatch { dispatcher, caller, placed: dispatcher.place(commands).await, audited, refused, traced }
}

/// The answers to those that the caller may not give, which are taken out.
fn take_refused(
    dispatcher: &Dispatcher,
    caller: &Caller,
    commands: &mut Vec<v1::Command>,
) -> Vec<v1::Answer> {
    let mut refused = Vec::new();
    commands.retain(|whole| {
        // What this gateway does not know is refused by the dispatcher.
        let allowed = |command| denials::may_command(dispatcher, caller, command);
        let Err(error) = whole.command.as_ref().map_or(Ok(()), allowed) else { return true };
        refused.push(v1::Answer { id: whole.id, answer: Some(Answer::Error(error)) });
        false
    });
    refused
}

impl CallerBatch<'_> {
    /// True if no answer is wanted and none is outstanding.
    pub(super) fn is_done(&self) -> bool {
        self.refused.is_empty() && self.placed.is_done()
    }

    /// All answers, when there are all.
    pub(super) async fn answers(self) -> Vec<v1::Answer> {
        let Self { dispatcher, caller, placed, audited, refused, traced } = self;
        let mut answers = placed.answers().await;
        if traced {
            answers.iter_mut().filter_map(|whole| whole.answer.as_mut()).for_each(|answer| {
                note_caller(answer, caller);
            });
        }
        for (id, line) in audited {
            let answer =
                answers.iter().find(|answer| answer.id == id).and_then(|whole| whole.answer.as_ref());
            let line = answer.map(|answer| line.clone().answered(answer)).unwrap_or(line);
            dispatcher.audit.note(caller, line).await;
        }
        answers.extend(refused);
        if !caller.sees_payloads() {
            answers.iter_mut().filter_map(|whole| whole.answer.as_mut()).for_each(hide);
        }
        answers
    }
}

/// A stream to a caller.
pub(super) type CallerEvents<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Events of an app for a caller: of a token's holder the stream ends when the token does not allow it any more,
/// and has no payloads if it may not see them.
pub(super) fn watched<T: Send + 'static>(
    dispatcher: Weak<Dispatcher>,
    caller: Caller,
    (call, app): (&'static str, String),
    events: impl Stream<Item = T> + Send + 'static,
    hide: fn(&mut T),
) -> CallerEvents<T> {
    if !caller.has_token() {
        return events.map(Ok).boxed();
    }
    let checked = move |mut event| {
        denials::still(&dispatcher, |dispatcher| denials::may_call(dispatcher, &caller, call, &app))?;
        if !caller.sees_payloads() {
            hide(&mut event);
        }
        Ok(event)
    };
    events.map(checked).boxed()
}
