//! Queries of an app's backend about channels.

use broadgate_proto::name;

use super::{ApiRefusal, params::Params};
use crate::{
    Compat,
    channel::{self, ChannelKind},
    limits::PusherLimits,
    shown,
};

/// The requested attributes of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Info {
    /// The number of distinct users, in a presence channel.
    pub user_count: bool,
    /// The number of connections.
    pub subscription_count: bool,
    /// The retained event, in a cache channel.
    pub cache: bool,
}

impl Info {
    /// Parses `user_count,subscription_count,cache`. Reverb ignores words that it does not know.
    pub fn parse(text: &str, compat: Compat) -> Result<Self, ApiRefusal> {
        let mut info = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "user_count" => info.user_count = true,
                "subscription_count" => info.subscription_count = true,
                "cache" => info.cache = true,
                _ if compat == Compat::Reverb => {}
                _ => {
                    return Err(ApiRefusal::bad(format!(
                        "info {:?} is not known: ask for user_count, subscription_count or cache",
                        shown(word)
                    )));
                }
            }
        }
        Ok(info)
    }

    pub(super) fn of(params: &Params, compat: Compat) -> Result<Self, ApiRefusal> {
        Self::parse(&params.list("info").join(","), compat)
    }

    /// The attributes that apply to a channel of this kind. The hosted service counts the connections of
    /// presence channels, too.
    pub fn applicable(self, kind: ChannelKind, compat: Compat) -> Self {
        Self {
            user_count: self.user_count && kind.is_presence(),
            subscription_count: self.subscription_count && !(kind.is_presence() && compat == Compat::Reverb),
            cache: self.cache && kind.cache,
        }
    }

    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// Which occupied channels are queried, and which attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channels {
    /// The prefix of their names; may be empty.
    pub prefix: String,
    /// For each channel, as far as they apply.
    pub info: Info,
}

/// `GET /channels`.
pub fn channels(params: &Params, compat: Compat) -> Result<Channels, ApiRefusal> {
    let prefix = params.get("filter_by_prefix").unwrap_or_default();
    let mut info = Info::of(params, compat)?;
    info.cache = false;
    if info.user_count && compat == Compat::Pusher && !prefix.starts_with("presence-") {
        return Err(ApiRefusal::bad(
            "user_count may only be requested for presence channels - please supply filter_by_prefix begining with presence-",
        ));
    }
    Ok(Channels { prefix: prefix.to_owned(), info })
}

/// `GET /channels/{channel}`: the requested attributes.
pub fn channel(
    channel: &str,
    params: &Params,
    limits: &PusherLimits,
    compat: Compat,
) -> Result<Info, ApiRefusal> {
    check_name(channel, limits)?;
    let (asked, kind) = (Info::of(params, compat)?, ChannelKind::of(channel));
    if compat == Compat::Pusher {
        if asked.user_count && !kind.is_presence() {
            return Err(ApiRefusal::bad(
                "Cannot retrieve the user count unless the channel is a presence channel",
            ));
        }
        if asked.cache && !kind.cache {
            return Err(ApiRefusal::bad("Cannot retrieve the cache unless the channel is a cache channel"));
        }
    }
    Ok(asked.applicable(kind, compat))
}

/// `GET /channels/{channel}/users`: checks that the channel has users.
pub fn users(channel: &str, limits: &PusherLimits) -> Result<(), ApiRefusal> {
    check_name(channel, limits)?;
    if ChannelKind::of(channel).is_presence() {
        return Ok(());
    }
    Err(ApiRefusal::bad("Users can only be retrieved for presence channels"))
}

/// Whether backends may name this channel. Names that begin with `#` are reserved, except those of users.
pub(super) fn check_name(channel: &str, limits: &PusherLimits) -> Result<(), ApiRefusal> {
    channel::check_name(channel, limits.channel_name_bytes_max).map_err(ApiRefusal::bad)?;
    check_reserved(channel)
}

/// The same for backends whose protocol allows every printable name, such as `orders:1`.
pub(super) fn check_any_name(channel: &str, limits: &PusherLimits) -> Result<(), ApiRefusal> {
    name::check("the channel's name", channel).map_err(ApiRefusal::bad)?;
    let (len, max) = (channel.len(), limits.channel_name_bytes_max);
    if len > max {
        return Err(ApiRefusal::bad(format!(
            "the channel's name has {len} bytes: at most {max} are allowed"
        )));
    }
    check_reserved(channel)
}

fn check_reserved(channel: &str) -> Result<(), ApiRefusal> {
    if channel.starts_with('#') && channel::user_of(channel).is_none() {
        return Err(ApiRefusal::bad(format!(
            "the channel's name {channel:?} is reserved: only #server-to-user-ID may begin with #"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Info = Info { user_count: true, subscription_count: true, cache: true };

    fn one(name: &str, query: &str, compat: Compat) -> Result<Info, String> {
        channel(name, &Params::parse(query), &PusherLimits::default(), compat).map_err(|refusal| {
            assert_eq!(refusal.status.as_u16(), 400);
            refusal.text
        })
    }

    #[test]
    fn info_is_a_list_of_words() {
        assert_eq!(Info::parse("user_count, subscription_count,,cache", Compat::Pusher), Ok(ALL));
        assert!(Info::parse("", Compat::Pusher).unwrap().is_nothing());
        assert_eq!(
            Info::of(
                &Params::parse("info[]=user_count&info[]=cache&info=subscription_count"),
                Compat::Pusher
            ),
            Ok(ALL)
        );
        let error = Info::parse("user_counts", Compat::Pusher).unwrap_err().text;
        assert_eq!(
            error,
            "info \"user_counts\" is not known: ask for user_count, subscription_count or cache"
        );
        assert!(Info::parse("user_counts", Compat::Reverb).unwrap().is_nothing());
    }

    #[test]
    fn user_counts_of_many_channels_need_the_presence_prefix() {
        let ask = |query, compat| channels(&Params::parse(query), compat).map_err(|refusal| refusal.text);
        let all = ask("", Compat::Pusher).unwrap();
        assert_eq!((all.prefix.as_str(), all.info.is_nothing()), ("", true));
        let presence = ask("filter_by_prefix=presence-a&info=user_count", Compat::Pusher).unwrap();
        assert_eq!((presence.prefix.as_str(), presence.info.user_count), ("presence-a", true));
        let expected = "user_count may only be requested for presence channels - please supply filter_by_prefix begining with presence-";
        for query in [
            "info=user_count",
            "filter_by_prefix=private-&info=user_count",
            "filter_by_prefix=presence&info=user_count",
        ] {
            assert_eq!(ask(query, Compat::Pusher).unwrap_err(), expected);
            assert!(ask(query, Compat::Reverb).unwrap().info.user_count);
        }
    }

    #[test]
    fn what_a_channel_does_not_have_is_refused_or_left_out_for_reverb() {
        assert_eq!(
            one("x", "info=user_count", Compat::Pusher).unwrap_err(),
            "Cannot retrieve the user count unless the channel is a presence channel"
        );
        assert_eq!(
            one("presence-x", "info=cache", Compat::Pusher).unwrap_err(),
            "Cannot retrieve the cache unless the channel is a cache channel"
        );
        assert_eq!(
            one("presence-cache-x", "info=user_count,subscription_count,cache", Compat::Pusher),
            Ok(ALL)
        );
        let all = "info=user_count,subscription_count,cache";
        let counted = Info { subscription_count: true, ..Info::default() };
        assert_eq!(one("x", all, Compat::Reverb), Ok(counted));
        assert_eq!(one("presence-x", all, Compat::Reverb), Ok(Info { user_count: true, ..Info::default() }));
        assert_eq!(one("x", "info=subscription_count", Compat::Pusher), Ok(counted));
    }

    #[test]
    fn users_are_in_presence_channels() {
        let ask = |name| {
            users(name, &PusherLimits::default()).map_err(|refusal| (refusal.status.as_u16(), refusal.text))
        };
        assert_eq!(ask("presence-x"), Ok(()));
        assert_eq!(ask("x"), Err((400, "Users can only be retrieved for presence channels".to_owned())));
    }

    #[test]
    fn names_are_checked_and_reserved_ones_refused() {
        assert!(one("a b", "", Compat::Reverb).is_err());
        assert!(one("#server-to-user-7", "", Compat::Pusher).is_ok());
        assert_eq!(
            one("#users", "", Compat::Pusher).unwrap_err(),
            "the channel's name \"#users\" is reserved: only #server-to-user-ID may begin with #"
        );
    }
}
