//! Channel names and what they imply.

use broadgate_proto::limits::NAME_BYTES_MAX;

/// The prefix of a signed-in user's own channel.
const USER_PREFIX: &str = "#server-to-user-";

/// Prefixes of the server's own groups: a user's watchers, and a user's connections. Clients cannot subscribe
/// to them, and they do not count among a client's groups.
pub const ONLINE: &str = "#online-";
pub const SIGNED_IN: &str = "#signed-in-";

/// The maximum of a user's id, in bytes: the names of its channel and of its groups are group names.
pub const USER_ID_BYTES_HIGHEST: usize = NAME_BYTES_MAX - USER_PREFIX.len();

const _: () = assert!(ONLINE.len() <= USER_PREFIX.len() && SIGNED_IN.len() <= USER_PREFIX.len());

/// Whether it is one of the server's own groups, not a channel.
pub fn is_own(group: &str) -> bool {
    group.starts_with('#') && (group.starts_with(ONLINE) || group.starts_with(SIGNED_IN))
}

/// Who may subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Every client.
    Public,
    /// Clients with a signature.
    Private,
    /// Clients with a signature and member data.
    Presence,
    /// The user that [`user_of`] names, once signed in; no client if it names none. All names that begin with
    /// `#` are reserved for this.
    User,
}

/// The kind of channel that a name implies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelKind {
    pub access: Access,
    /// Publishers encrypt the data. The server only forwards it.
    pub encrypted: bool,
    /// The last published event is retained for later subscribers.
    pub cache: bool,
}

impl ChannelKind {
    /// Longer prefixes come first: each of them begins with a shorter one.
    const PREFIXES: [(&str, Self); 8] = [
        ("private-encrypted-cache-", Self::new(Access::Private, true, true)),
        ("private-encrypted-", Self::new(Access::Private, true, false)),
        ("private-cache-", Self::new(Access::Private, false, true)),
        ("presence-cache-", Self::new(Access::Presence, false, true)),
        ("presence-", Self::new(Access::Presence, false, false)),
        ("private-", Self::new(Access::Private, false, false)),
        ("cache-", Self::new(Access::Public, false, true)),
        ("#", Self::new(Access::User, false, false)),
    ];

    const fn new(access: Access, encrypted: bool, cache: bool) -> Self {
        Self { access, encrypted, cache }
    }

    pub fn of(channel: &str) -> Self {
        Self::PREFIXES
            .iter()
            .find(|(prefix, _)| channel.starts_with(prefix))
            .map_or(Self::new(Access::Public, false, false), |&(_, kind)| kind)
    }

    /// Whether the channel's kind allows client events. The protocol does not forbid them on encrypted
    /// channels, though pusher-js does.
    pub fn client_events_allowed(self) -> bool {
        matches!(self.access, Access::Private | Access::Presence)
    }

    pub fn is_presence(self) -> bool {
        self.access == Access::Presence
    }
}

/// The user who owns a channel: `#server-to-user-7` to `7`.
pub fn user_of(channel: &str) -> Option<&str> {
    channel.strip_prefix(USER_PREFIX).filter(|user| !user.is_empty())
}

/// A channel name that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelNameError {
    #[error("the channel's name is empty: give it letters, digits or -_=@,.;")]
    Empty,
    #[error("the channel's name has {len} bytes: at most {bytes_max} are allowed")]
    TooLong { len: usize, bytes_max: usize },
    #[error("the channel's name {0:?} holds other characters than letters, digits and -_=@,.;")]
    Character(String),
}

/// Checks a name by the SDKs' rule, `\A#?[-a-zA-Z0-9_=@,.;]+\z`.
pub fn check_name(name: &str, bytes_max: usize) -> Result<(), ChannelNameError> {
    let rest = name.strip_prefix('#').unwrap_or(name);
    if rest.is_empty() {
        return Err(ChannelNameError::Empty);
    }
    if name.len() > bytes_max {
        return Err(ChannelNameError::TooLong { len: name.len(), bytes_max });
    }
    if !rest.bytes().all(|byte| ALLOWED[usize::from(byte)]) {
        return Err(ChannelNameError::Character(name.to_owned()));
    }
    Ok(())
}

const ALLOWED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"-_=@,.;";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let kind = |channel| {
            let kind = ChannelKind::of(channel);
            (kind.access, kind.encrypted, kind.cache, kind.client_events_allowed())
        };
        assert_eq!(kind("orders"), (Access::Public, false, false, false));
        assert_eq!(kind("private"), (Access::Public, false, false, false));
        assert_eq!(kind("encrypted-x"), (Access::Public, false, false, false));
        assert_eq!(kind("cache-x"), (Access::Public, false, true, false));
        assert_eq!(kind("private-x"), (Access::Private, false, false, true));
        assert_eq!(kind("private-cache"), (Access::Private, false, false, true));
        assert_eq!(kind("private-cache-x"), (Access::Private, false, true, true));
        assert_eq!(kind("private-encrypted-x"), (Access::Private, true, false, true));
        assert_eq!(kind("private-encrypted-cache-x"), (Access::Private, true, true, true));
        assert_eq!(kind("presence-x"), (Access::Presence, false, false, true));
        assert_eq!(kind("presence-encrypted-x"), (Access::Presence, false, false, true));
        assert_eq!(kind("presence-cache-x"), (Access::Presence, false, true, true));
        assert_eq!(kind("#server-to-user-7"), (Access::User, false, false, false));
        assert_eq!(kind("#presence-x"), (Access::User, false, false, false));
        assert_eq!(kind("Presence-x"), (Access::Public, false, false, false));
    }

    #[test]
    fn a_prefix_that_another_one_begins_with_comes_after_it() {
        for (at, (early, _)) in ChannelKind::PREFIXES.iter().enumerate() {
            for (late, _) in &ChannelKind::PREFIXES[at + 1..] {
                assert!(!late.starts_with(early), "{late} is never reached behind {early}");
            }
        }
    }

    #[test]
    fn a_users_channel_names_its_user() {
        assert_eq!(user_of("#server-to-user-7"), Some("7"));
        assert_eq!(user_of("#server-to-user-"), None);
        assert_eq!(user_of("server-to-user-7"), None);
        assert_eq!(user_of("#other"), None);
    }

    #[test]
    fn names_follow_the_rule_of_the_sdks() {
        for name in
            ["a", "private-App.Models.User.1", "#server-to-user-7", "-_=@,.;", "1=2", &"x".repeat(200)]
        {
            assert_eq!(check_name(name, 200), Ok(()), "{name}");
        }
        assert_eq!(check_name("", 200), Err(ChannelNameError::Empty));
        assert_eq!(check_name("#", 200), Err(ChannelNameError::Empty));
        assert_eq!(check_name("abcd", 3), Err(ChannelNameError::TooLong { len: 4, bytes_max: 3 }));
        for name in ["a b", "a:b", "a/b", "a\n", "\na", "##a", "a#", "é", "a\0"] {
            assert_eq!(check_name(name, 200), Err(ChannelNameError::Character(name.to_owned())), "{name}");
        }
        let error = check_name("a b", 200).unwrap_err().to_string();
        assert_eq!(
            error,
            "the channel's name \"a b\" holds other characters than letters, digits and -_=@,.;"
        );
    }
}
