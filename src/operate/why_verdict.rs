//! Whether a client got a message, decided from what the gateways remember: the sends, who joined and left, what was
//! dropped, and how connections ended. Pure.

use std::time::Duration;

use broadgate_proto::{
    limits::{DROPS_PER_SEND_MAX, SENT_ASKED_MAX},
    v1::{Audience, Cause, SendsMemory, SendsReply, SentClient, SentCommand, SentMove},
};

use crate::output::{age, bytes, counted};

/// A command in one app, and how each thread carried it out.
pub(super) struct SentFate<'a> {
    /// When the first thread did.
    pub(super) at_ms: u64,
    pub(super) parts: Vec<&'a SentCommand>,
}

/// What became of a message at one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SentVerdict {
    /// Its outbox was empty later.
    GotIt,
    /// It may be among what waits in its outbox.
    Waits,
    /// It may be among what was unsent when the connection ended.
    Unsent,
    NotAddressed,
    Dropped,
    /// The client's gateway has not carried it out.
    NotReceived,
    /// It is too long ago.
    Forgotten,
    NotSure,
}

/// The verdict, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) verdict: SentVerdict,
    pub(super) because: String,
}

/// Whether a client was in a group, or had a uid, when the command was carried out.
enum Was {
    In,
    /// How it came or went.
    Out(String),
    Unknown(String),
}

impl SentVerdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::GotIt => "GOT IT",
            Self::Waits => "WAITS",
            Self::Unsent => "UNSENT",
            Self::NotAddressed => "NOT ADDRESSED",
            Self::Dropped => "DROPPED",
            Self::NotReceived => "NOT RECEIVED",
            Self::Forgotten => "FORGOTTEN",
            Self::NotSure => "NOT SURE",
        }
    }

    fn since(self, because: impl Into<String>) -> Judged {
        Judged { verdict: self, because: because.into() }
    }
}

/// The command in each app that has it: ids belong to apps.
pub(super) fn fates(reply: &SendsReply) -> Vec<SentFate<'_>> {
    let mut fates: Vec<SentFate<'_>> = Vec::new();
    for part in &reply.sends {
        match fates.iter_mut().find(|fate| fate.parts[0].app == part.app) {
            Some(fate) => {
                fate.at_ms = fate.at_ms.min(part.at_ms);
                fate.parts.push(part);
            }
            None => fates.push(SentFate { at_ms: part.at_ms, parts: vec![part] }),
        }
    }
    fates
}

/// One client's view of a command.
struct ClientCase<'a> {
    client: &'a SentClient,
    /// What the client's gateway remembers.
    memory: &'a SendsMemory,
    /// How the client's own thread carried it out.
    here: Option<&'a SentCommand>,
    at_ms: u64,
}

pub(super) fn judge(fate: &SentFate<'_>, client: &SentClient, memory: &SendsMemory) -> Judged {
    let here = fate
        .parts
        .iter()
        .find(|part| !part.unheard && part.gateway == client.gateway && part.shard == client.shard);
    let case =
        ClientCase { client, memory, here: here.copied(), at_ms: here.map_or(fate.at_ms, |part| part.at_ms) };
    let to = fate.parts.iter().find_map(|part| part.to.as_ref());
    let left_out = fate.parts.iter().map(|part| part.names_left_out).max().unwrap_or_default();
    case.dropped()
        .or_else(|| case.not_there())
        .or_else(|| to.and_then(|to| case.not_addressed(to, left_out)))
        .or_else(|| case.not_here())
        .unwrap_or_else(|| case.placed())
}

impl ClientCase<'_> {
    fn dropped(&self) -> Option<Judged> {
        let because = match &*self.client.dropped {
            "" => return None,
            "slow" => "its outbox was full, and it was closed with 4100",
            "protocol" => {
                "the payload has no form for its protocol: Pusher and Socket.IO clients take text only"
            }
            "closing" => "it was being closed",
            other => other,
        };
        Some(SentVerdict::Dropped.since(because))
    }

    /// Its connection was not open.
    fn not_there(&self) -> Option<Judged> {
        let opened = self.client.opened_at_ms;
        if opened > self.at_ms {
            return Some(
                SentVerdict::NotAddressed.since(format!("it connected {} after", apart(self.at_ms, opened))),
            );
        }
        let end = self.client.ended.as_ref().filter(|end| end.ended_at_ms < self.at_ms)?;
        let how = ended_how(end.cause(), end.code, &end.limit);
        let before = apart(end.ended_at_ms, self.at_ms);
        Some(SentVerdict::NotAddressed.since(format!("its connection had ended {before} before ({how})")))
    }

    fn not_addressed(&self, to: &Audience, left_out: u32) -> Option<Judged> {
        let except = to.except.clone().unwrap_or_default();
        let id = &self.client.client_id;
        if except.clients.contains(id) {
            return Some(SentVerdict::NotAddressed.since("the command excepts this client"));
        }
        let mut unknown = None;
        let excepted = self.topics(&except.groups, &except.uids);
        for (name, was) in excepted {
            match was {
                Was::In => {
                    return Some(
                        SentVerdict::NotAddressed
                            .since(format!("the command excepts {name}, in which it was")),
                    );
                }
                Was::Unknown(why) => unknown = Some(why),
                Was::Out(_) => {}
            }
        }
        let mut outs = Vec::new();
        let mut is_addressed = to.all || to.clients.contains(id);
        for (_, was) in self.topics(&to.groups, &to.uids) {
            match was {
                Was::In => is_addressed = true,
                Was::Unknown(why) => unknown = unknown.or(Some(why)),
                Was::Out(how) => outs.push(how),
            }
        }
        // Its own thread has placed it for nobody, and has dropped it for nobody: that is certain.
        let for_nobody = self.here.is_some_and(|part| part.clients == 0 && part.drops.is_empty());
        if is_addressed && !for_nobody {
            return unknown.map(|why| SentVerdict::NotSure.since(why));
        }
        if outs.is_empty() && for_nobody {
            outs.push("its gateway's thread has placed it for nobody".to_owned());
        }
        if outs.is_empty() {
            outs.push("it was sent to other clients".to_owned());
        }
        if left_out > 0 && !for_nobody {
            unknown = Some(format!(
                "the command had {} that are not remembered",
                counted(left_out.into(), "more name")
            ));
        }
        match unknown.filter(|_| !for_nobody) {
            Some(why) => Some(SentVerdict::NotSure.since(why)),
            None => Some(SentVerdict::NotAddressed.since(outs.join("; "))),
        }
    }

    /// Groups and uids, by their names, and whether it was in them.
    fn topics<'b>(
        &'b self,
        groups: &'b [String],
        uids: &'b [String],
    ) -> impl Iterator<Item = (String, Was)> + 'b {
        let groups = groups.iter().map(|group| (group.clone(), self.was_in(group, MemberOf::Group)));
        let uids = uids.iter().map(|uid| (format!("uid {uid}"), self.was_in(uid, MemberOf::Uid)));
        groups.chain(uids)
    }

    fn was_in(&self, name: &str, kind: MemberOf) -> Was {
        let since = self.memory.joins_since_ms;
        if since == 0 || since > self.at_ms {
            return Was::Unknown(format!(
                "{} does not remember who joined and left then",
                self.client.gateway
            ));
        }
        let is_own = |found: &&SentMove| match kind {
            MemberOf::Group => found.group == name,
            MemberOf::Uid => found.uid == name,
        };
        let moves: Vec<&SentMove> = self.client.moves.iter().filter(is_own).collect();
        let is_after = |found: &SentMove| match self.here {
            Some(here) => found.number > here.number,
            None => found.at_ms > self.at_ms,
        };
        let is_cut = self.client.moves.len() >= SENT_ASKED_MAX;
        if is_cut && self.client.moves.first().is_some_and(is_after) {
            return Was::Unknown("it has joined and left too often since".to_owned());
        }
        let next = moves.iter().find(|found| is_after(found));
        let before = moves.iter().rev().find(|found| !is_after(found));
        let left = before.filter(|found| !found.joined).map(|found| {
            let ago = apart(found.at_ms, self.at_ms);
            match kind {
                MemberOf::Group => format!("left {name} {ago} before"),
                MemberOf::Uid => format!("lost the uid {name} {ago} before"),
            }
        });
        if let Some(next) = next {
            if !next.joined {
                return Was::In;
            }
            let later = apart(self.at_ms, next.at_ms);
            let joined = match kind {
                MemberOf::Group => format!("joined {name} {later} after"),
                MemberOf::Uid => format!("got the uid {name} {later} after"),
            };
            return Was::Out(left.map_or(joined.clone(), |left| format!("{left}, {joined}")));
        }
        let is_in = match kind {
            MemberOf::Group => self.client.groups.iter().any(|group| group == name),
            MemberOf::Uid => self.client.uid == name,
        };
        if is_in {
            return Was::In;
        }
        let unnamed =
            self.client.ended.as_ref().is_some_and(|end| end.groups_total as usize > end.groups.len());
        if unnamed && kind == MemberOf::Group && left.is_none() {
            return Was::Unknown("it was in more groups at its end than are remembered".to_owned());
        }
        Was::Out(left.unwrap_or_else(|| match kind {
            MemberOf::Group => format!("was not in {name}"),
            MemberOf::Uid => format!("did not have the uid {name}"),
        }))
    }

    /// It was meant, and its own thread does not know the command.
    fn not_here(&self) -> Option<Judged> {
        if self.here.is_some() {
            return None;
        }
        let (gateway, since) = (&self.client.gateway, self.memory.sends_since_ms);
        Some(match since {
            0 => SentVerdict::NotSure.since(format!("{gateway} remembers no sends, by its [gateway.recorder]")),
            since if since > self.at_ms => SentVerdict::Forgotten.since(format!("{gateway} has forgotten what it sent then")),
            _ => SentVerdict::NotReceived.since(format!(
                "{gateway} did not get the command, though the client was meant: did the receipt name it as missing?"
            )),
        })
    }

    fn placed(&self) -> Judged {
        if let Some(unsure) = self.may_be_dropped() {
            return unsure;
        }
        let waits = |messages: u64, size: u64| format!("{}, {}", counted(messages, "message"), bytes(size));
        let Some(end) = &self.client.ended else {
            return match self.client.outbox_messages {
                0 => SentVerdict::GotIt.since("placed; its outbox was empty later"),
                messages => SentVerdict::Waits.since(format!(
                    "placed; {} wait in its outbox now, and it may be among them",
                    waits(messages, self.client.outbox_bytes)
                )),
            };
        };
        let how = ended_how(end.cause(), end.code, &end.limit);
        let later = apart(self.at_ms, end.ended_at_ms);
        match end.unsent_messages {
            0 => SentVerdict::GotIt.since(format!("placed, and given to the kernel; the connection ended {later} after ({how})")),
            messages => SentVerdict::Unsent.since(format!(
                "placed; the connection ended {later} after ({how}), and {} were unsent: it may be among them",
                waits(messages, end.unsent_bytes)
            )),
        }
    }

    /// Something was dropped in its thread, and for whom is not known of all.
    fn may_be_dropped(&self) -> Option<Judged> {
        let here = self.here?;
        let dropped: u64 =
            here.drops.iter().filter(|(reason, _)| *reason != "unknown_client").map(|(_, count)| count).sum();
        let since = self.memory.drops_since_ms;
        let all_known = dropped <= DROPS_PER_SEND_MAX as u64 && since != 0 && since <= here.at_ms;
        (dropped > 0 && !all_known).then(|| {
            SentVerdict::NotSure.since(format!(
                "it was dropped for {} of its thread, and {} does not remember for which",
                counted(dropped, "client"),
                self.client.gateway
            ))
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MemberOf {
    Group,
    Uid,
}

fn ended_how(cause: Cause, code: u32, limit: &str) -> String {
    if cause == Cause::Drain && matches!(limit, "lease" | "removed") {
        return format!("{code}, gateway removed");
    }
    let cause = cause.as_str_name().trim_start_matches("CAUSE_").to_lowercase().replace('_', " ");
    format!("{code}, {cause}")
}

/// "0.7 s", "2m 10s".
fn apart(from_ms: u64, to_ms: u64) -> String {
    let ms = to_ms.saturating_sub(from_ms);
    if ms < 10_000 { format!("{}.{} s", ms / 1000, ms % 1000 / 100) } else { age(Duration::from_millis(ms)) }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::{EndedClient, Except};

    use super::*;

    const AT: u64 = 100_000;

    fn to_group() -> Audience {
        Audience { groups: vec!["orders.eu".to_owned()], ..Audience::default() }
    }

    fn part(gateway: &str, to: Audience) -> SentCommand {
        let (app, command_id) = ("shop".to_owned(), "order-991".to_owned());
        SentCommand {
            gateway: gateway.to_owned(),
            shard: 1,
            number: 50,
            at_ms: AT,
            app,
            command_id,
            to: Some(to),
            clients: 3,
            ..SentCommand::default()
        }
    }

    /// Connected for a while, in the group now, with nothing to write.
    fn client() -> SentClient {
        SentClient {
            client_id: "4uaa".to_owned(),
            app: "shop".to_owned(),
            uid: "42".to_owned(),
            gateway: "gw-1".to_owned(),
            shard: 1,
            opened_at_ms: AT - 60_000,
            groups: vec!["orders.eu".to_owned()],
            ..SentClient::default()
        }
    }

    fn moved(number: u64, at_ms: u64, joined: bool) -> SentMove {
        SentMove { number, at_ms, joined, group: "orders.eu".to_owned(), uid: String::new() }
    }

    fn ended(at_ms: u64, unsent_messages: u64) -> Option<EndedClient> {
        Some(EndedClient {
            ended_at_ms: at_ms,
            cause: Cause::Slow.into(),
            code: 4100,
            unsent_messages,
            groups: vec!["orders.eu".to_owned()],
            groups_total: 1,
            ..EndedClient::default()
        })
    }

    fn memory() -> SendsMemory {
        SendsMemory { gateway: "gw-1".to_owned(), sends_since_ms: 5, joins_since_ms: 5, drops_since_ms: 5 }
    }

    fn judged(parts: &[SentCommand], client: &SentClient, memory: &SendsMemory) -> (SentVerdict, String) {
        let reply = SendsReply { sends: parts.to_vec(), ..SendsReply::default() };
        let Judged { verdict, because } = judge(&fates(&reply)[0], client, memory);
        (verdict, because)
    }

    /// Sent to the group, and carried out by the client's own thread.
    fn of(client: SentClient) -> (SentVerdict, String) {
        judged(&[part("gw-1", to_group())], &client, &memory())
    }

    fn is((verdict, because): (SentVerdict, String), wanted: SentVerdict, words: &str) {
        assert!(verdict == wanted && because.contains(words), "{wanted:?} {words}: {verdict:?} {because}");
    }

    #[test]
    fn what_was_placed_went_to_the_kernel_waits_or_was_unsent() {
        is(of(client()), SentVerdict::GotIt, "its outbox was empty later");
        let waits = SentClient { outbox_messages: 214, outbox_bytes: 2048, ..client() };
        is(of(waits), SentVerdict::Waits, "214 messages, 2.0 KiB wait");
        let closed = |unsent| SentClient { ended: ended(AT + 700, unsent), ..client() };
        is(of(closed(0)), SentVerdict::GotIt, "ended 0.7 s after (4100, slow)");
        is(of(closed(51)), SentVerdict::Unsent, "51 messages");
    }

    #[test]
    fn who_was_not_there_was_not_addressed() {
        is(
            of(SentClient { opened_at_ms: AT + 700, ..client() }),
            SentVerdict::NotAddressed,
            "connected 0.7 s after",
        );
        let gone = SentClient { ended: ended(AT - 3000, 0), ..client() };
        is(of(gone), SentVerdict::NotAddressed, "had ended 3.0 s before (4100, slow)");
        let out = || SentClient { groups: Vec::new(), ..client() };
        is(of(out()), SentVerdict::NotAddressed, "was not in orders.eu");
        let left = SentClient { moves: vec![moved(40, AT - 500, false)], ..out() };
        is(of(left), SentVerdict::NotAddressed, "left orders.eu 0.5 s before");
        let joined = SentClient { moves: vec![moved(60, AT + 700, true)], ..client() };
        is(of(joined), SentVerdict::NotAddressed, "joined orders.eu 0.7 s after");
        let back = vec![moved(40, AT - 500, false), moved(60, AT + 700, true)];
        let back = SentClient { moves: back, ..client() };
        is(of(back), SentVerdict::NotAddressed, "left orders.eu 0.5 s before, joined orders.eu 0.7 s after");
        let others = part("gw-1", Audience { clients: vec!["9tvg".to_owned()], ..Audience::default() });
        is(judged(&[others], &client(), &memory()), SentVerdict::NotAddressed, "other clients");
    }

    /// Within a millisecond, the thread's own numbers say what came first.
    #[test]
    fn order_is_that_of_the_thread_and_not_of_the_clock() {
        is(
            of(SentClient { moves: vec![moved(51, AT, true)], ..client() }),
            SentVerdict::NotAddressed,
            "joined",
        );
        is(of(SentClient { moves: vec![moved(49, AT, true)], ..client() }), SentVerdict::GotIt, "placed");
        let left_after = SentClient { moves: vec![moved(51, AT, false)], groups: Vec::new(), ..client() };
        is(of(left_after), SentVerdict::GotIt, "placed");
    }

    #[test]
    fn who_is_excepted_was_not_addressed() {
        let except =
            |except| part("gw-1", Audience { all: true, except: Some(except), ..Audience::default() });
        let judge = |except_it| judged(&[except(except_it)], &client(), &memory());
        let group = Except { groups: vec!["orders.eu".to_owned()], ..Except::default() };
        is(judge(group), SentVerdict::NotAddressed, "excepts orders.eu");
        is(
            judge(Except { uids: vec!["42".to_owned()], ..Except::default() }),
            SentVerdict::NotAddressed,
            "uid 42",
        );
        let own = Except { clients: vec!["4uaa".to_owned()], ..Except::default() };
        is(judge(own), SentVerdict::NotAddressed, "excepts this client");
        is(judge(Except { uids: vec!["43".to_owned()], ..Except::default() }), SentVerdict::GotIt, "placed");
    }

    #[test]
    fn uids_are_looked_at_as_groups_are() {
        let to = |uid: &str| part("gw-1", Audience { uids: vec![uid.to_owned()], ..Audience::default() });
        is(judged(&[to("42")], &client(), &memory()), SentVerdict::GotIt, "placed");
        is(judged(&[to("7")], &client(), &memory()), SentVerdict::NotAddressed, "did not have the uid 7");
        let got = SentMove {
            number: 60,
            at_ms: AT + 700,
            joined: true,
            uid: "42".to_owned(),
            ..SentMove::default()
        };
        let later = SentClient { moves: vec![got], ..client() };
        is(judged(&[to("42")], &later, &memory()), SentVerdict::NotAddressed, "got the uid 42 0.7 s after");
    }

    #[test]
    fn what_was_dropped_is_said_and_what_may_have_been_is_not_sure() {
        is(of(SentClient { dropped: "slow".to_owned(), ..client() }), SentVerdict::Dropped, "4100");
        is(of(SentClient { dropped: "protocol".to_owned(), ..client() }), SentVerdict::Dropped, "protocol");
        let drops = |count| SentCommand {
            drops: [("protocol".to_owned(), count)].into(),
            ..part("gw-1", to_group())
        };
        is(judged(&[drops(64)], &client(), &memory()), SentVerdict::GotIt, "placed");
        is(judged(&[drops(65)], &client(), &memory()), SentVerdict::NotSure, "65 clients");
        let forgetful = SendsMemory { drops_since_ms: AT + 1, ..memory() };
        is(judged(&[drops(1)], &client(), &forgetful), SentVerdict::NotSure, "does not remember for which");
        is(judged(&[part("gw-1", to_group())], &client(), &forgetful), SentVerdict::GotIt, "placed");
    }

    #[test]
    fn what_another_gateway_carried_out_has_not_reached_its_own() {
        let elsewhere = [part("gw-2", to_group())];
        let judge = |client, memory| judged(&elsewhere, &client, &memory);
        is(judge(client(), memory()), SentVerdict::NotReceived, "gw-1 did not get the command");
        let forgetful = SendsMemory { sends_since_ms: AT + 1, ..memory() };
        is(judge(client(), forgetful), SentVerdict::Forgotten, "gw-1 has forgotten");
        let off = SendsMemory { sends_since_ms: 0, ..memory() };
        is(judge(client(), off), SentVerdict::NotSure, "remembers no sends");
        let joined = SentClient { moves: vec![moved(3, AT + 700, true)], ..client() };
        is(judge(joined, memory()), SentVerdict::NotAddressed, "joined orders.eu 0.7 s after");
    }

    #[test]
    fn without_the_joins_of_that_time_nobody_is_sure_except_where_nobody_got_it() {
        for since in [0, AT + 1] {
            let forgetful = SendsMemory { joins_since_ms: since, ..memory() };
            let known = part("gw-1", to_group());
            is(
                judged(std::slice::from_ref(&known), &client(), &forgetful),
                SentVerdict::NotSure,
                "who joined and left",
            );
            let nobody = SentCommand { clients: 0, ..known };
            is(judged(&[nobody], &client(), &forgetful), SentVerdict::NotAddressed, "for nobody");
        }
        let mut end = ended(AT + 700, 0);
        if let Some(end) = &mut end {
            end.groups_total = 9;
            end.groups.clear();
        }
        let many = SentClient { ended: end, groups: Vec::new(), ..client() };
        is(of(many), SentVerdict::NotSure, "more groups at its end");
        let often = (0..64).map(|number| moved(60 + number, AT + 1 + number, number % 2 == 1)).collect();
        is(of(SentClient { moves: often, ..client() }), SentVerdict::NotSure, "too often");
        let more = SentCommand { names_left_out: 2, ..part("gw-1", Audience::default()) };
        is(judged(&[more], &client(), &memory()), SentVerdict::NotSure, "2 more names");
    }

    #[test]
    fn a_command_id_belongs_to_an_app() {
        let other = SentCommand { app: "other".to_owned(), at_ms: 7, ..part("gw-2", to_group()) };
        let earlier = SentCommand { at_ms: AT - 5, ..part("gw-2", to_group()) };
        let reply =
            SendsReply { sends: vec![part("gw-1", to_group()), other, earlier], ..SendsReply::default() };
        let fates = fates(&reply);
        let seen: Vec<_> =
            fates.iter().map(|fate| (&*fate.parts[0].app, fate.parts.len(), fate.at_ms)).collect();
        assert_eq!(seen, [("shop", 2, AT - 5), ("other", 1, 7)]);
    }
}
