//! A command against the table of rights: which call it is, which app it concerns, and what needs more than its
//! call does.

use broadgate_proto::v1::{self, command::Command};

use crate::callers::{
    rights::{CallRights, of_call},
    tokens::TokenRole,
};

/// What a command needs.
#[derive(Debug)]
pub(super) struct CommandRights<'a> {
    /// None if the table does not name it.
    pub(super) row: Option<&'static CallRights>,
    /// As the request names it; none if it is about all apps.
    pub(super) app: Option<&'a str>,
    /// A higher role than the call's, and why.
    pub(super) more: Option<(TokenRole, &'static str)>,
}

/// The call that a command is, and the app that it names; none if it is about all.
pub(crate) fn call_and_app(command: &Command) -> (&'static str, Option<&str>) {
    let needs = of_command(command);
    (needs.row.map_or("?", |row| row.call), needs.app)
}

/// What a command needs. Exhaustive: a command that is added must be placed here.
pub(super) fn of_command(command: &Command) -> CommandRights<'_> {
    let mut more = None;
    let (call, app) = match command {
        Command::Send(request) => ("Send", of_audience(request.to.as_ref())),
        Command::Close(request) => {
            more = close_needs(request);
            ("Close", of_audience(request.to.as_ref()))
        }
        Command::Bind(request) => ("Bind", Some(&*request.app)),
        Command::Unbind(request) => ("Unbind", Some(&*request.app)),
        Command::Join(request) => ("Join", Some(&*request.app)),
        Command::Leave(request) => ("Leave", Some(&*request.app)),
        Command::Dissolve(request) => ("Dissolve", Some(&*request.app)),
        Command::SetSession(request) => ("SetSession", Some(&*request.app)),
        Command::MergeSession(request) => ("MergeSession", Some(&*request.app)),
        Command::GetSession(request) => ("GetSession", Some(&*request.app)),
        Command::Roster(request) => ("Roster", Some(&*request.app)),
        Command::History(request) => ("History", Some(&*request.app)),
        Command::LastValue(request) => ("LastValue", Some(&*request.app)),
        Command::Online(request) => ("Online", Some(&*request.app)),
        Command::Count(request) => ("Count", Some(&*request.app)),
        Command::GetClient(request) => ("GetClient", Some(&*request.app)),
        Command::ListClients(request) => ("ListClients", of_audience(request.of.as_ref())),
        Command::ListUids(request) => ("ListUids", Some(&*request.app)),
        Command::ListGroups(request) => ("ListGroups", Some(&*request.app)),
        Command::Inspect(request) => ("Inspect", Some(&*request.app)),
        Command::Status(_) => ("Status", None),
        // Here "" is every app, and not the one named `default`.
        Command::Ended(request) => ("Ended", Some(&*request.app).filter(|app| !app.is_empty())),
        Command::Sends(request) => ("Sends", Some(&*request.app).filter(|app| !app.is_empty())),
        Command::Events(_) => ("Events", None),
        // The same, and workers belong to no app.
        Command::Top(request) => {
            let is_named = !request.app.is_empty() && request.by() != v1::TopBy::Workers;
            ("Top", Some(&*request.app).filter(|_| is_named))
        }
    };
    CommandRights { row: of_call(call), app, more }
}

/// An audience that is missing is refused later.
fn of_audience(audience: Option<&v1::Audience>) -> Option<&str> {
    Some(audience.map_or("", |audience| &audience.app))
}

fn close_needs(request: &v1::CloseRequest) -> Option<(TokenRole, &'static str)> {
    let all = request.to.as_ref().is_some_and(|to| to.all);
    match (all, request.at_once) {
        (true, _) => Some((TokenRole::Admin, "closing all clients of an app")),
        (false, true) => Some((TokenRole::Admin, "closing clients at once")),
        (false, false) => None,
    }
}
