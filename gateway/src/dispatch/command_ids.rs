//! Command ids: which commands need one, and in which field it is.

use broadgate_proto::v1::{self, command::Command};

/// True for every command with a receipt, except a dry run, which does nothing: the caller may repeat it by the id there, and one that a home orders
/// may be asked of two homes while the home moves.
pub(super) fn needs_id(command: &Command) -> bool {
    match command {
        Command::Send(request) => !(request.dry || request.no_receipt && is_to_clients(request.to.as_ref())),
        Command::Close(_)
        | Command::Bind(_)
        | Command::Unbind(_)
        | Command::Join(_)
        | Command::Leave(_)
        | Command::Dissolve(_) => true,
        _ => false,
    }
}

pub(super) fn is_to_clients(to: Option<&v1::Audience>) -> bool {
    to.is_some_and(|to| to.uids.is_empty() && to.groups.is_empty() && !to.all)
}

pub(super) fn set_command_id(command: &mut Command, id: String) {
    if let Some(command_id) = command_id(command) {
        *command_id = id;
    }
}

pub(super) fn command_id(command: &mut Command) -> Option<&mut String> {
    Some(match command {
        Command::Send(request) => &mut request.command_id,
        Command::Close(request) => &mut request.command_id,
        Command::Bind(request) => &mut request.command_id,
        Command::Unbind(request) => &mut request.command_id,
        Command::Join(request) => &mut request.command_id,
        Command::Leave(request) => &mut request.command_id,
        Command::Dissolve(request) => &mut request.command_id,
        Command::SetSession(request) => &mut request.command_id,
        Command::MergeSession(request) => &mut request.command_id,
        _ => return None,
    })
}
