//! What receivers have heard of a channel, as a message of the contract and back.

use std::sync::Arc;

use broadgate_proto::v1;
use broadgate_topics::{Heard, Told};

const fn encode_heard(heard: Heard) -> v1::Heard {
    match heard {
        Heard::Nothing => v1::Heard::Unspecified,
        Heard::Perhaps => v1::Heard::Perhaps,
        Heard::Surely => v1::Heard::Surely,
    }
}

pub(crate) fn encode_told(told: Told) -> v1::Told {
    let user = |(user, heard): (Arc<str>, Heard)| v1::ToldUser {
        user_id: user.to_string(),
        heard: encode_heard(heard).into(),
    };
    v1::Told {
        occupied: encode_heard(told.occupied).into(),
        users: told.users.into_iter().map(user).collect(),
    }
}

const fn decode_heard(heard: v1::Heard) -> Heard {
    match heard {
        v1::Heard::Unspecified => Heard::Nothing,
        v1::Heard::Perhaps => Heard::Perhaps,
        v1::Heard::Surely => Heard::Surely,
    }
}

pub(crate) fn decode_told(told: v1::Told) -> Told {
    let occupied = decode_heard(told.occupied());
    let user = |user: v1::ToldUser| (user.user_id.as_str().into(), decode_heard(user.heard()));
    Told { occupied, users: told.users.into_iter().map(user).collect() }
}
