//! Malformed client ids in lists. A list comes from the caller's database: one wrong entry must not fail
//! the others, so it is removed and listed in the answer, like a client that is not connected.

use broadgate_proto::{
    id::ClientId,
    limits::NAME_BYTES_MAX,
    v1::{self, command::Command},
};

/// Removes malformed client ids from the lists of a command and returns them. None if no valid recipient
/// is left: then an error that names the malformed id helps more.
pub(crate) fn take_malformed(command: &mut Command) -> Option<Vec<String>> {
    let mut taken = Vec::new();
    let somebody = match command {
        Command::Send(v1::SendRequest { to: Some(of), .. })
        | Command::Close(v1::CloseRequest { to: Some(of), .. })
        | Command::ListClients(v1::ListClientsRequest { of: Some(of), .. }) => {
            if let Some(except) = &mut of.except {
                // No client has such an id, so excluding it excludes nobody.
                take(&mut except.clients, &mut Vec::new());
            }
            take(&mut of.clients, &mut taken);
            of.all || !(of.clients.is_empty() && of.uids.is_empty() && of.groups.is_empty())
        }
        Command::Join(v1::JoinGroupsRequest { clients, uids, .. })
        | Command::Leave(v1::LeaveGroupsRequest { clients, uids, .. })
        | Command::Online(v1::OnlineRequest { clients, uids, .. }) => {
            take(clients, &mut taken);
            !(clients.is_empty() && uids.is_empty())
        }
        _ => false,
    };
    somebody.then_some(taken)
}

fn take(ids: &mut Vec<String>, taken: &mut Vec<String>) {
    let malformed = ids.extract_if(.., |id| id.parse::<ClientId>().is_err());
    taken.extend(malformed.map(|mut id| {
        // A caller must not be able to make the answer grow without bound.
        id.truncate(id.floor_char_boundary(NAME_BYTES_MAX));
        id
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "012345678800000000000000000000";

    fn texts(ids: &[&str]) -> Vec<String> {
        ids.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn malformed_ids_are_taken_out_of_every_list() {
        let except = v1::Except { clients: texts(&["", GOOD]), ..v1::Except::default() };
        let to = v1::Audience {
            clients: texts(&[GOOD, "7", &"é".repeat(300)]),
            except: Some(except),
            ..v1::Audience::default()
        };
        let mut send = Command::Send(v1::SendRequest { to: Some(to), ..v1::SendRequest::default() });
        assert_eq!(take_malformed(&mut send), Some(texts(&["7", &"é".repeat(100)])));
        let Command::Send(v1::SendRequest { to: Some(to), .. }) = send else { unreachable!() };
        assert_eq!((to.clients, to.except.unwrap().clients), (texts(&[GOOD]), texts(&[GOOD])));
        let mut join = Command::Join(v1::JoinGroupsRequest {
            clients: texts(&["x"]),
            uids: texts(&["ann"]),
            ..v1::JoinGroupsRequest::default()
        });
        assert_eq!(take_malformed(&mut join), Some(texts(&["x"])));
    }

    #[test]
    fn command_with_only_invalid_ids_keeps_its_error() {
        let clients = texts(&["x", "y"]);
        let mut online = Command::Online(v1::OnlineRequest { clients, ..v1::OnlineRequest::default() });
        assert_eq!(take_malformed(&mut online), None);
        let mut bind = Command::Bind(v1::BindRequest { client_id: "x".into(), ..v1::BindRequest::default() });
        assert_eq!(take_malformed(&mut bind), None);
    }
}
