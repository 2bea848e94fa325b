//! What receivers have heard of a channel, as a message of the contract and back.

use std::sync::Arc;

use broadgate_proto::v1;
use broadgate_topics::{Delivery, NotifiedState};

const fn encode_heard(delivery: Delivery) -> v1::Delivery {
    match delivery {
        Delivery::None => v1::Delivery::Unspecified,
        Delivery::Unknown => v1::Delivery::Unknown,
        Delivery::Confirmed => v1::Delivery::Confirmed,
    }
}

pub(crate) fn encode_notified(notified: NotifiedState) -> v1::Notified {
    let user = |(user, delivery): (Arc<str>, Delivery)| v1::NotifiedUser {
        user_id: user.to_string(),
        delivery: encode_heard(delivery).into(),
    };
    v1::Notified {
        occupied: encode_heard(notified.occupied).into(),
        users: notified.users.into_iter().map(user).collect(),
    }
}

const fn decode_heard(delivery: v1::Delivery) -> Delivery {
    match delivery {
        v1::Delivery::Unspecified => Delivery::None,
        v1::Delivery::Unknown => Delivery::Unknown,
        v1::Delivery::Confirmed => Delivery::Confirmed,
    }
}

pub(crate) fn decode_notified(notified: v1::Notified) -> NotifiedState {
    let occupied = decode_heard(notified.occupied());
    let user = |user: v1::NotifiedUser| (user.user_id.as_str().into(), decode_heard(user.delivery()));
    NotifiedState { occupied, users: notified.users.into_iter().map(user).collect() }
}
