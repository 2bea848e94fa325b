//! Names, ids, audiences and pages in a command.

use broadgate_proto::{id::ClientId, limits, name, v1};
use tonic::Code;

use crate::command::parsed::{ClientFilter, CommandRefusal, Recipients, RefusedField, invalid, refusal};

/// The optional fields that a caller may list in `requires`.
const UNDERSTOOD: [&str; 3] = ["event", "state", "address"];

/// Those of sends alone: elsewhere there is no dry run, so who requires one must be refused.
const UNDERSTOOD_BY_SENDS: [&str; 2] = [DRY, TRACE];
/// SendRequest.dry
pub(crate) const DRY: &str = "dry";
/// SendRequest.trace
pub(crate) const TRACE: &str = "trace";

pub(crate) fn understood(requires: &[String]) -> Result<(), CommandRefusal> {
    all_in(&UNDERSTOOD, &[], requires)
}

pub(super) fn understood_by_sends(requires: &[String]) -> Result<(), CommandRefusal> {
    all_in(&UNDERSTOOD, &UNDERSTOOD_BY_SENDS, requires)
}

fn all_in(known: &[&str], more: &[&str], requires: &[String]) -> Result<(), CommandRefusal> {
    match requires.iter().find(|word| !known.contains(&word.as_str()) && !more.contains(&word.as_str())) {
        None => Ok(()),
        Some(word) => Err(refusal(
            Code::Unimplemented,
            format!("this gateway does not know {word:?}, which the command requires: update it first"),
        )),
    }
}

/// Who gave a command, as the gateway that took it says.
pub(crate) fn known_caller(by: &str) -> Box<str> {
    let fits = by.len() <= limits::CALLER_BYTES_MAX && !by.chars().any(char::is_control);
    if fits { by.into() } else { Box::default() }
}

pub(super) fn app(field: &str) -> Result<Box<str>, CommandRefusal> {
    Ok(name::app(field).map_err(RefusedField::from)?.into())
}

pub(super) fn checked(what: &'static str, text: &str) -> Result<Box<str>, CommandRefusal> {
    name::check(what, text).map_err(RefusedField::from)?;
    Ok(text.into())
}

pub(super) fn client(text: &str) -> Result<ClientId, CommandRefusal> {
    Ok(text.parse().map_err(RefusedField::from)?)
}

pub(super) fn clients(texts: &[String]) -> Result<Vec<ClientId>, CommandRefusal> {
    few("clients", texts.len())?;
    texts.iter().map(|text| client(text)).collect()
}

pub(super) fn names(what: &'static str, texts: &[String]) -> Result<Vec<Box<str>>, CommandRefusal> {
    few(what, texts.len())?;
    texts.iter().map(|text| checked(what, text)).collect()
}

pub(super) fn some_groups(texts: &[String]) -> Result<Vec<Box<str>>, CommandRefusal> {
    if texts.is_empty() {
        return Err(invalid("groups is empty: name at least one group"));
    }
    names("groups", texts)
}

pub(super) fn who(client_texts: &[String], uids: &[String]) -> Result<Recipients, CommandRefusal> {
    if client_texts.is_empty() && uids.is_empty() {
        return Err(invalid("clients and uids are both empty: name at least one"));
    }
    Ok(Recipients { clients: clients(client_texts)?, uids: names("uids", uids)? })
}

pub(super) fn few(what: &str, count: usize) -> Result<(), CommandRefusal> {
    if count <= limits::NAMES_PER_COMMAND_MAX {
        return Ok(());
    }
    let max = limits::NAMES_PER_COMMAND_MAX;
    Err(refusal(
        Code::ResourceExhausted,
        format!("{what} has {count} entries: at most {max} fit one command"),
    ))
}

pub(super) fn too_large(what: &str, len: usize, max: usize) -> CommandRefusal {
    refusal(Code::ResourceExhausted, format!("{what} has {len} bytes: at most {max} are allowed"))
}

pub(super) fn page(limit: u32) -> Result<usize, CommandRefusal> {
    match limit {
        0 => Ok(limits::PAGE_DEFAULT as usize),
        limit if limit <= limits::PAGE_MAX => Ok(limit as usize),
        _ => Err(invalid(format!("limit is {limit}: at most {} fit a page", limits::PAGE_MAX))),
    }
}

pub(super) fn audience(audience: Option<&v1::Audience>, field: &str) -> Result<ClientFilter, CommandRefusal> {
    let Some(given) = audience else {
        return Err(invalid(format!("{field} is missing: name clients, uids or groups, or say all")));
    };
    let none = v1::Except::default();
    let except = given.except.as_ref().unwrap_or(&none);
    Ok(ClientFilter {
        app: app(&given.app)?,
        clients: clients(&given.clients)?,
        uids: names("uids", &given.uids)?,
        groups: names("groups", &given.groups)?,
        all: given.all,
        except_clients: clients(&except.clients)?,
        except_uids: names("except.uids", &except.uids)?,
        except_groups: names("except.groups", &except.groups)?,
    })
}
