//! What every command carries: an id of its own, and how far its caller has seen.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use broadgate_proto::{
    name::MADE_ID_MARK,
    v1::{Answer, Coverage, Epoch, answer, command::Command},
};

const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// Ids of commands: the mark of ids that no caller chose, 64 random bits for this caller, and a number.
#[derive(Debug)]
pub(crate) struct CommandIdMint {
    caller: String,
    next: AtomicU64,
}

impl CommandIdMint {
    pub(crate) fn new() -> Self {
        // Two callers of one id would be told of each other's commands instead of having their own
        // carried out: where the system gives no random bits, the seed of a hash map has to do.
        let random = getrandom::u64().unwrap_or_else(|_| RandomState::new().build_hasher().finish());
        Self::of(random)
    }

    fn of(random: u64) -> Self {
        let mut caller = String::from(MADE_ID_MARK);
        write(&mut caller, random);
        caller.push('-');
        Self { caller, next: AtomicU64::new(1) }
    }

    /// An id that no other command has.
    pub(crate) fn next(&self) -> String {
        let mut id = String::with_capacity(self.caller.len() + 13);
        id.push_str(&self.caller);
        write(&mut id, self.next.fetch_add(1, Ordering::Relaxed));
        id
    }
}

/// Five bits a digit, the low ones first: short, and nobody compares them.
fn write(text: &mut String, mut number: u64) {
    loop {
        text.push(char::from(DIGITS[(number & 31) as usize]));
        number >>= 5;
        if number == 0 {
            return;
        }
    }
}

/// The highest epoch that was seen in an answer.
#[derive(Debug, Default)]
pub(crate) struct EpochMark(RwLock<Epoch>);

impl EpochMark {
    /// What a command must not be carried out before; none if nothing was answered yet.
    pub(crate) fn after(&self) -> Option<Epoch> {
        let seen = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        (seen > Epoch::default()).then_some(seen)
    }

    /// An answer names its epoch.
    pub(crate) fn note(&self, coverage: Option<&Coverage>) {
        let Some(epoch) = coverage.and_then(|coverage| coverage.epoch) else { return };
        if self.after().is_none_or(|seen| epoch > seen) {
            let mut seen = self.0.write().unwrap_or_else(PoisonError::into_inner);
            *seen = epoch.max(*seen);
        }
    }

    /// The cluster was restarted as a whole: the epochs of the former one will never be reached.
    pub(crate) fn forget(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Epoch::default();
    }
}

/// The id that a command carries; "" if it changes nothing.
pub(crate) fn id(command: &Command) -> &str {
    match command {
        Command::Send(command) => &command.command_id,
        Command::Close(command) => &command.command_id,
        Command::Bind(command) => &command.command_id,
        Command::Unbind(command) => &command.command_id,
        Command::Join(command) => &command.command_id,
        Command::Leave(command) => &command.command_id,
        Command::Dissolve(command) => &command.command_id,
        Command::SetSession(command) => &command.command_id,
        Command::MergeSession(command) => &command.command_id,
        Command::GetSession(_)
        | Command::Online(_)
        | Command::Count(_)
        | Command::GetClient(_)
        | Command::ListClients(_)
        | Command::ListUids(_)
        | Command::ListGroups(_)
        | Command::Status(_)
        | Command::Roster(_)
        | Command::History(_)
        | Command::LastValue(_)
        | Command::Inspect(_)
        | Command::Ended(_)
        | Command::Sends(_)
        | Command::Events(_)
        | Command::Top(_) => "",
    }
}

/// What an answer says about itself; none if it is a refusal.
pub(crate) fn coverage(answer: &Answer) -> Option<&Coverage> {
    match answer.answer.as_ref()? {
        answer::Answer::Error(_) => None,
        answer::Answer::Receipt(reply) => reply.coverage.as_ref(),
        answer::Answer::Session(reply) => reply.coverage.as_ref(),
        answer::Answer::Online(reply) => reply.coverage.as_ref(),
        answer::Answer::Count(reply) => reply.coverage.as_ref(),
        answer::Answer::Client(reply) => reply.coverage.as_ref(),
        answer::Answer::Clients(reply) => reply.coverage.as_ref(),
        answer::Answer::Names(reply) => reply.coverage.as_ref(),
        answer::Answer::Status(reply) => reply.coverage.as_ref(),
        answer::Answer::Roster(reply) => reply.coverage.as_ref(),
        answer::Answer::History(reply) => reply.coverage.as_ref(),
        answer::Answer::LastValue(reply) => reply.coverage.as_ref(),
        answer::Answer::Inspected(reply) => reply.coverage.as_ref(),
        answer::Answer::Ended(reply) => reply.coverage.as_ref(),
        answer::Answer::Sends(reply) => reply.coverage.as_ref(),
        answer::Answer::Events(reply) => reply.coverage.as_ref(),
        answer::Answer::Top(reply) => reply.coverage.as_ref(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_short_and_all_different() {
        let callers = [
            CommandIdMint::of(0),
            CommandIdMint::of(1),
            CommandIdMint::of(u64::MAX),
            CommandIdMint::new(),
            CommandIdMint::new(),
        ];
        let ids: HashSet<_> = callers.iter().flat_map(|ids| (0..1000).map(|_| ids.next())).collect();
        assert_eq!(ids.len(), 5000);
        assert!(ids.iter().all(|id| id.len() <= 17), "a gateway takes 64 bytes");
        assert_eq!(
            (CommandIdMint::of(33).next().as_str(), CommandIdMint::of(0).next().as_str()),
            ("~11-1", "~0-1")
        );
    }

    #[test]
    fn the_highest_epoch_is_kept() {
        let coverage = |term, count| Coverage { epoch: Some(Epoch::new(term, count)), ..Coverage::default() };
        let seen = EpochMark::default();
        assert_eq!(seen.after(), None);
        for (term, count) in [(1, 5), (1, 4), (2, 0), (1, 9)] {
            seen.note(Some(&coverage(term, count)));
        }
        seen.note(None);
        seen.note(Some(&Coverage::default()));
        assert_eq!(seen.after(), Some(Epoch::new(2, 0)));
        seen.forget();
        assert_eq!(seen.after(), None);
    }
}
