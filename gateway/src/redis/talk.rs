//! A subscriber's conversation with Redis: what each reply means and what is said next. Pure.
//!
//! A wrong prefix would only be silence. So as long as no message of the prefix has come, some messages of all
//! other names are looked at (the *lookout*): if Laravel publishes under another prefix, it is found.

use broadgate_proto::limits::{REDIS_LOOKOUT_BYTES_MAX, REDIS_LOOKOUT_MESSAGES_MAX};

use crate::redis::{
    message::{has_no_prefix, is_laravels, pattern, prefix_of},
    resp::{Element, RedisReply, command},
};

/// Every name.
const ALL: &str = "*";

/// What a reply means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    Nothing,
    /// To be sent.
    Say(Vec<u8>),
    /// From now on messages arrive.
    Subscribed,
    Message {
        name: &'a [u8],
        payload: &'a [u8],
    },
    /// A message that exceeded the bound.
    TooLong {
        name: &'a [u8],
    },
    OtherPrefix(OtherPrefix),
    /// What had seemed to be another prefix was another program's: messages of this one come.
    Fits,
    /// Redis refuses to serve; what it has said.
    Refused(String),
}

/// Laravel publishes under another prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OtherPrefix {
    /// None if it cannot be guessed.
    pub(super) prefix: Option<String>,
    /// The channel's name in Redis.
    pub(super) name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Authenticating,
    Subscribing,
    Subscribed,
}

#[derive(Debug, PartialEq, Eq)]
enum Lookout {
    Off,
    /// It was asked for; Redis may refuse it.
    Asked,
    On {
        messages: u32,
        bytes: usize,
    },
}

/// What of an app's settings and of earlier connections a conversation needs.
#[derive(Debug, Default)]
pub(super) struct TalkRules {
    pub(super) user: String,
    pub(super) password: String,
    pub(super) prefix: String,
    /// Prefixes of other apps: their messages are no sign of anything.
    pub(super) others: Vec<String>,
    /// Whether the prefix is right is no question any more.
    pub(super) is_settled: bool,
}

/// One connection's conversation.
#[derive(Debug)]
pub(super) struct Talk {
    stage: Stage,
    rules: TalkRules,
    pattern: String,
    lookout: Lookout,
    /// A message of the prefix has come on this connection.
    is_heard: bool,
    /// Another prefix was found on this connection.
    is_doubted: bool,
}

impl Talk {
    /// A conversation, and its first words.
    pub(super) fn begin(rules: TalkRules) -> (Self, Vec<u8>) {
        let pattern = pattern(&rules.prefix);
        let first = match (&*rules.user, &*rules.password) {
            (_, "") => command(&["PSUBSCRIBE", &pattern]),
            ("", password) => command(&["AUTH", password]),
            (user, password) => command(&["AUTH", user, password]),
        };
        let stage = if rules.password.is_empty() { Stage::Subscribing } else { Stage::Authenticating };
        (Self { stage, rules, pattern, lookout: Lookout::Off, is_heard: false, is_doubted: false }, first)
    }

    /// Whether the prefix is right is no question any more, for this connection and later ones.
    pub(super) const fn is_settled(&self) -> bool {
        self.rules.is_settled
    }

    /// Begins to look out, if that is of use; to be called when subscribed and every [`REDIS_LOOKOUT_INTERVAL`].
    ///
    /// [`REDIS_LOOKOUT_INTERVAL`]: broadgate_proto::limits::REDIS_LOOKOUT_INTERVAL
    pub(super) fn look_out(&mut self) -> Option<Vec<u8>> {
        let may = self.stage == Stage::Subscribed && self.lookout == Lookout::Off;
        let is_of_use = !self.rules.is_settled && !self.is_heard && !self.rules.prefix.is_empty();
        (may && is_of_use).then(|| {
            self.lookout = Lookout::Asked;
            command(&["PSUBSCRIBE", ALL])
        })
    }

    pub(super) fn hear<'a>(&mut self, reply: &RedisReply<'a>) -> Step<'a> {
        match (reply, self.stage) {
            (RedisReply::Error(error), Stage::Subscribed) => self.denied(error),
            (RedisReply::Error(error), _) => Step::Refused(String::from_utf8_lossy(error).into_owned()),
            (RedisReply::Status(_), Stage::Authenticating) => {
                self.stage = Stage::Subscribing;
                Step::Say(command(&["PSUBSCRIBE", &self.pattern]))
            }
            (RedisReply::Array(elements), Stage::Subscribing | Stage::Subscribed) => self.array(elements),
            // An answer to a ping.
            _ => Step::Nothing,
        }
    }

    /// An error while messages arrive.
    fn denied(&mut self, error: &[u8]) -> Step<'static> {
        let error = String::from_utf8_lossy(error).into_owned();
        // A user who may only subscribe: the answer shows all the same that the connection is alive.
        if error.starts_with("NOPERM") && error.contains("'ping'") {
            return Step::Nothing;
        }
        if error.contains("'punsubscribe'") {
            // The lookout cannot be ended but with the connection; the next one does without.
            self.rules.is_settled = true;
            return Step::Refused(error);
        }
        if self.lookout == Lookout::Asked {
            // The access control list allows the prefix alone.
            (self.lookout, self.rules.is_settled) = (Lookout::Off, true);
            return Step::Nothing;
        }
        Step::Refused(error)
    }

    fn array<'a>(&mut self, elements: &[Element<'a>]) -> Step<'a> {
        match *elements {
            [Element::Text(b"psubscribe"), ..] if self.stage == Stage::Subscribing => {
                self.stage = Stage::Subscribed;
                Step::Subscribed
            }
            [Element::Text(b"psubscribe"), ..] if self.lookout == Lookout::Asked => {
                self.lookout = Lookout::On { messages: 0, bytes: 0 };
                if self.is_heard { Step::Say(self.end_lookout()) } else { Step::Nothing }
            }
            [Element::Text(b"pmessage"), Element::Text(pattern), Element::Text(name), payload] => {
                if pattern == self.pattern.as_bytes() {
                    own(name, payload)
                } else {
                    self.other(name, payload)
                }
            }
            _ => Step::Nothing,
        }
    }

    /// A message that came because of the lookout.
    fn other<'a>(&mut self, name: &'a [u8], payload: Element<'a>) -> Step<'a> {
        let Lookout::On { messages, bytes } = &mut self.lookout else { return Step::Nothing };
        let payload = if let Element::Text(payload) = payload { payload } else { &[] };
        (*messages, *bytes) = (*messages + 1, *bytes + name.len() + payload.len());
        let is_over = *messages >= REDIS_LOOKOUT_MESSAGES_MAX || *bytes >= REDIS_LOOKOUT_BYTES_MAX;
        let is_others = |name: &str| self.rules.others.iter().any(|other| name.starts_with(&**other));
        let foreign = std::str::from_utf8(name).ok().filter(|name| {
            !name.starts_with(&*self.rules.prefix) && !is_others(name) && is_laravels(payload)
        });
        if let Some(name) = foreign {
            let prefix = if has_no_prefix(name) { Some("") } else { prefix_of(name) };
            return self.found(prefix.map(str::to_owned), name.to_owned());
        }
        if is_over { Step::Say(self.end_lookout()) } else { Step::Nothing }
    }

    /// After a message of the prefix in Laravel's form: is this a channel's name, or does it begin with more of
    /// a prefix?
    pub(super) fn judge(&mut self, channel: &str) -> Step<'static> {
        self.is_heard = true;
        let more = if has_no_prefix(channel) { None } else { prefix_of(channel) };
        if more.is_none() && std::mem::take(&mut self.is_doubted) {
            return Step::Fits;
        }
        if !self.rules.is_settled {
            self.rules.is_settled = has_no_prefix(channel);
            let prefix = &self.rules.prefix;
            let name = format!("{prefix}{channel}");
            let is_others = self
                .rules
                .others
                .iter()
                .any(|other| other.len() > prefix.len() && name.starts_with(&**other));
            if let Some(more) = more.filter(|_| !is_others) {
                return self.found(Some(format!("{prefix}{more}")), name);
            }
        }
        if matches!(self.lookout, Lookout::On { .. }) { Step::Say(self.end_lookout()) } else { Step::Nothing }
    }

    fn found(&mut self, prefix: Option<String>, name: String) -> Step<'static> {
        (self.rules.is_settled, self.is_doubted) = (true, true);
        Step::OtherPrefix(OtherPrefix { prefix, name })
    }

    /// What ends the lookout, if it is on.
    pub(super) fn end_of_lookout(&mut self) -> Option<Vec<u8>> {
        matches!(self.lookout, Lookout::On { .. }).then(|| self.end_lookout())
    }

    fn end_lookout(&mut self) -> Vec<u8> {
        self.lookout = Lookout::Off;
        command(&["PUNSUBSCRIBE", ALL])
    }
}

fn own<'a>(name: &'a [u8], payload: Element<'a>) -> Step<'a> {
    match payload {
        Element::Text(payload) => Step::Message { name, payload },
        Element::TooLong(_) => Step::TooLong { name },
        _ => Step::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWS: &[u8] = br#"{"event":"e","data":{},"socket":null}"#;

    fn rules(prefix: &str) -> TalkRules {
        TalkRules { prefix: prefix.to_owned(), ..TalkRules::default() }
    }

    fn array<'a>(parts: &[&'a str]) -> RedisReply<'a> {
        RedisReply::Array(parts.iter().map(|part| Element::Text(part.as_bytes())).collect())
    }

    fn message<'a>(pattern: &'a str, name: &'a str, payload: &'a [u8]) -> RedisReply<'a> {
        let [kind, pattern, name] = ["pmessage", pattern, name].map(|part| Element::Text(part.as_bytes()));
        RedisReply::Array([kind, pattern, name, Element::Text(payload)].into_iter().collect())
    }

    /// Subscribed, and looking out if that is of use.
    fn subscribed(rules: TalkRules) -> Talk {
        let (mut talk, first) = Talk::begin(rules);
        assert_eq!(first, command(&["PSUBSCRIBE", &talk.pattern]));
        assert_eq!(talk.hear(&array(&["psubscribe", "p"])), Step::Subscribed);
        if let Some(asked) = talk.look_out() {
            assert_eq!(asked, command(&["PSUBSCRIBE", "*"]));
            assert_eq!(talk.hear(&array(&["psubscribe", "*"])), Step::Nothing);
        }
        talk
    }

    #[test]
    fn user_and_password_come_first() {
        for (user, expected) in [("", &["AUTH", "p"][..]), ("u", &["AUTH", "u", "p"])] {
            let rules = TalkRules { user: user.into(), password: "p".into(), ..rules("x-") };
            let (mut talk, first) = Talk::begin(rules);
            assert_eq!(first, command(expected));
            assert_eq!(talk.hear(&RedisReply::Status(b"OK")), Step::Say(command(&["PSUBSCRIBE", "x-*"])));
        }
        let (mut talk, _) = Talk::begin(rules("x-"));
        assert_eq!(talk.hear(&RedisReply::Error(b"NOAUTH a")), Step::Refused("NOAUTH a".into()));
    }

    #[test]
    fn messages_of_the_prefix_are_given_out_and_end_the_lookout() {
        let mut talk = subscribed(rules("x-"));
        let given = talk.hear(&message("x-*", "x-private-a", NEWS));
        assert_eq!(given, Step::Message { name: b"x-private-a", payload: NEWS });
        assert_eq!(talk.judge("private-a"), Step::Say(command(&["PUNSUBSCRIBE", "*"])));
        assert!(talk.is_settled() && talk.look_out().is_none());
        assert_eq!(talk.judge("private-a"), Step::Nothing);
        // What comes by the other pattern meanwhile is no message.
        assert_eq!(talk.hear(&message("*", "x-private-a", NEWS)), Step::Nothing);
        assert_eq!(talk.hear(&array(&["pong", ""])), Step::Nothing);
        let long = RedisReply::Array(
            [Element::Text(b"pmessage"), Element::Text(b"x-*"), Element::Text(b"x-a"), Element::TooLong(9)]
                .into_iter()
                .collect(),
        );
        assert_eq!(talk.hear(&long), Step::TooLong { name: b"x-a" });
    }

    #[test]
    fn another_prefix_is_found_once() {
        for (configured, name, found) in [
            ("x-", "laravel-database-private-a", Some("laravel-database-")),
            ("x-", "private-a", Some("")),
            ("x-", "orders", None),
        ] {
            let mut talk = subscribed(rules(configured));
            assert_eq!(
                talk.hear(&message("*", "metrics", b"{\"cpu\":1}")),
                Step::Nothing,
                "no message of Laravel"
            );
            let other = OtherPrefix { prefix: found.map(str::to_owned), name: name.to_owned() };
            assert_eq!(talk.hear(&message("*", name, NEWS)), Step::OtherPrefix(other));
            assert_eq!(talk.end_of_lookout(), Some(command(&["PUNSUBSCRIBE", "*"])));
            assert!(talk.is_settled() && talk.look_out().is_none() && talk.end_of_lookout().is_none());
            // It was another program's: messages of the prefix come all the same.
            assert_eq!((talk.judge("any"), talk.judge("any")), (Step::Fits, Step::Nothing));
        }
        // Messages of an app that is configured, too, say nothing.
        let mut talk = subscribed(TalkRules { others: vec!["y-".into()], ..rules("x-") });
        assert_eq!(talk.hear(&message("*", "y-private-a", NEWS)), Step::Nothing);
    }

    #[test]
    fn prefix_that_is_too_short_is_found_in_names() {
        for (configured, channel) in [("", "laravel-database-private-a"), ("laravel", "-database-any")] {
            let mut talk = subscribed(rules(configured));
            assert_eq!(
                talk.judge("any"),
                if configured.is_empty() {
                    Step::Nothing
                } else {
                    Step::Say(command(&["PUNSUBSCRIBE", "*"]))
                }
            );
            let Step::OtherPrefix(other) = talk.judge(channel) else { panic!("{channel}") };
            assert_eq!(other.prefix.as_deref(), Some("laravel-database-"));
        }
        // Names of an app that is configured, too, are no sign.
        let mut talk = subscribed(TalkRules { others: vec!["y_database_".into()], ..rules("") });
        assert_eq!(talk.judge("y_database_private-a"), Step::Nothing);
        assert!(matches!(talk.judge("z_database_private-a"), Step::OtherPrefix(_)));
        let mut talk = subscribed(rules(""));
        assert_eq!((talk.judge("private-a"), talk.judge("my-private-a")), (Step::Nothing, Step::Nothing));
    }

    #[test]
    fn lookout_ends_by_itself_and_may_be_repeated() {
        let mut talk = subscribed(rules("x-"));
        for _ in 1..REDIS_LOOKOUT_MESSAGES_MAX {
            assert_eq!(talk.hear(&message("*", "a", b"b")), Step::Nothing);
        }
        assert_eq!(talk.hear(&message("*", "a", b"b")), Step::Say(command(&["PUNSUBSCRIBE", "*"])));
        assert!(talk.look_out().is_some() && talk.look_out().is_none());
        assert_eq!(talk.hear(&array(&["psubscribe", "*"])), Step::Nothing);
        let big = vec![b'x'; REDIS_LOOKOUT_BYTES_MAX];
        assert_eq!(talk.hear(&message("*", "a", &big)), Step::Say(command(&["PUNSUBSCRIBE", "*"])));
    }

    #[test]
    fn user_who_may_only_subscribe_is_served() {
        let (mut talk, _) = Talk::begin(rules("x-"));
        talk.hear(&array(&["psubscribe", "x-*"]));
        assert!(talk.look_out().is_some());
        let ping: &[u8] = b"NOPERM User u has no permissions to run the 'ping' command";
        assert_eq!(talk.hear(&RedisReply::Error(ping)), Step::Nothing);
        let channel: &[u8] = b"NOPERM No permissions to access a channel";
        assert_eq!(talk.hear(&RedisReply::Error(channel)), Step::Nothing);
        assert!(talk.look_out().is_none(), "it is not asked for again");
        assert!(matches!(talk.hear(&RedisReply::Error(b"ERR x")), Step::Refused(_)));
        let mut talk = subscribed(rules("x-"));
        talk.judge("any");
        let end: &[u8] = b"NOPERM User u has no permissions to run the 'punsubscribe' command";
        assert!(matches!(talk.hear(&RedisReply::Error(end)), Step::Refused(_)) && talk.is_settled());
    }
}
