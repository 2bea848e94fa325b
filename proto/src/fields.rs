//! The fields of a `ClientInfo` that each `ClientField` selects, so that JSON leaves out what was not asked
//! for.

use crate::v1::ClientField;

const CONNECTION: [&str; 5] = ["gateway", "listener", "protocol", "address", "opened_at_ms"];
const TRAFFIC: [&str; 8] = [
    "messages_in",
    "messages_out",
    "bytes_in",
    "bytes_out",
    "outbox_bytes",
    "outbox_messages",
    "worker",
    "events_unanswered",
];
const ALL: [ClientField; 5] = [
    ClientField::Uid,
    ClientField::Groups,
    ClientField::Session,
    ClientField::Connection,
    ClientField::Traffic,
];

/// The fields of `ClientInfo` that this one selects.
#[must_use]
pub const fn of(field: ClientField) -> &'static [&'static str] {
    match field {
        ClientField::Unspecified => &[],
        ClientField::Uid => &["uid"],
        ClientField::Groups => &["groups"],
        ClientField::Session => &["session"],
        ClientField::Connection => &CONNECTION,
        ClientField::Traffic => &TRAFFIC,
    }
}

/// The fields of `ClientInfo` that were not asked for, and are absent.
pub fn absent(asked: &[ClientField]) -> impl Iterator<Item = &'static str> {
    ALL.into_iter().filter(|field| !asked.contains(field)).flat_map(|field| of(field).iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_client_is_asked_for_in_one_way() {
        let contract = include_str!("../broadgate/v1/types.proto");
        let info = contract.split_once("message ClientInfo {").unwrap().1.split_once("\n}").unwrap().0;
        let named = info.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        let mut fields: Vec<&str> =
            named.filter_map(|line| line.split_once(" = ")?.0.rsplit(' ').next()).collect();
        fields.sort_unstable();
        let mut known: Vec<&str> = ["client_id", "app"].into_iter().chain(absent(&[])).collect();
        known.sort_unstable();
        assert_eq!(fields, known);
        assert_eq!(absent(&ALL).count(), 0);
        assert!(absent(&[ClientField::Traffic]).all(|field| !TRAFFIC.contains(&field)));
    }
}
