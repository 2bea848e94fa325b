//! The streams of attached workers: events out, answers in. Which client has which worker is decided
//! in the shards.

mod attachments;
mod service;

pub(crate) use self::attachments::Attachments;

pub(crate) use self::service::WorkerService;
