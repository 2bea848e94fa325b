//! Events that apps' backends publish through Redis, as Laravel's broadcaster `redis` does: a reader for each app
//! that has `[apps.redis]`.
//!
//! Every gateway subscribes, and takes only the messages of channels whose home it is: a look at the channel's
//! name suffices. So in a stable view each message is placed once, and no gateway leads. While a view changes, a
//! message may be lost or placed twice: nothing in it tells a repetition.
//!
//! | file | what |
//! |---|---|
//! | `reader.rs` | one app's reader: connection after connection |
//! | `connection.rs` | dialling, with TLS |
//! | `placing.rs` | messages that are being placed, and their bound |
//! | `states.rs` | status, metrics and log lines of the readers |
//! | `resp.rs` | pure: Redis's protocol |
//! | `talk.rs` | pure: what each reply means, and the search for another prefix |
//! | `message.rs` | pure: Laravel's messages, prefixes and patterns |
//! | `words.rs` | pure: why there is no connection, in a sentence |

mod connection;
mod message;
mod placing;
mod reader;
mod resp;
mod states;
mod talk;
mod words;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    apps::{App, Apps},
    dispatch::{Dispatcher, Installed},
    redis::{
        reader::{ReaderDeps, ReaderPlan},
        states::ReaderReport,
    },
};

pub(crate) use self::states::ReaderStates;

/// The readers of all apps.
pub(crate) struct RedisReaders {
    deps: ReaderDeps,
    states: ReaderStates,
}

impl RedisReaders {
    pub(crate) fn new(
        apps: Apps,
        dispatcher: Weak<Dispatcher>,
        installed: watch::Receiver<Installed>,
        payload_bytes_max: usize,
        states: ReaderStates,
    ) -> Self {
        Self { deps: ReaderDeps { apps, dispatcher, installed, payload_bytes_max }, states }
    }

    /// Starts, restarts and stops readers as the apps change, until it is stopped itself.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut changes = self.deps.apps.changes();
        let mut readers: HashMap<String, (ReaderPlan, DropGuard)> = HashMap::new();
        let mut next_id = 0;
        loop {
            let table = self.deps.apps.load();
            let plans: HashMap<String, ReaderPlan> =
                table.iter().filter_map(|app| plan(app)).map(|plan| (plan.app.clone(), plan)).collect();
            // A reader that is not wanted any more ends with its guard.
            readers.retain(|app, (plan, _)| plans.get(app) == Some(plan));
            for (app, plan) in plans {
                readers.entry(app).or_insert_with(|| {
                    next_id += 1;
                    (plan.clone(), self.start(plan, next_id))
                });
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    fn start(&self, plan: ReaderPlan, id: u64) -> DropGuard {
        let stop = CancellationToken::new();
        let url = plan.settings.urls.first().map(ToString::to_string).unwrap_or_default();
        let report = Arc::new(ReaderReport::new(&self.states, id, &plan.app, url));
        let reading = reader::run(plan, self.deps.clone(), report, stop.clone());
        broadgate_tasks::spawn("redis reader", reading);
        stop.drop_guard()
    }
}

/// What of an app concerns its reader, if it has one.
fn plan(app: &App) -> Option<ReaderPlan> {
    let settings = app.redis.clone().filter(|_| app.enabled)?;
    Some(ReaderPlan {
        app: app.id.clone(),
        settings,
        channel_name_bytes_max: app.limits.channel_name_bytes_max,
    })
}

/// For the fuzz targets: any bytes as replies of a Redis. How they are cut into pieces may make no difference,
/// and no more is kept than the bound allows.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn fuzz(data: &[u8]) {
    use broadgate_proto::limits::REDIS_LINE_BYTES_MAX;

    let [step, bytes @ ..] = data else { return };
    let heard = |step: usize| {
        let mut decoder = resp::ReplyDecoder::new(256);
        let rules = talk::TalkRules { prefix: "x-".to_owned(), ..talk::TalkRules::default() };
        let (mut talk, _) = talk::Talk::begin(rules);
        let mut all = Vec::new();
        for piece in bytes.chunks(step) {
            let buffer = decoder.buffer();
            // Lines of statuses may stand in an array, each with a bound of its own.
            assert!(buffer.len() <= 256 + 17 * REDIS_LINE_BYTES_MAX, "{}", buffer.len());
            buffer.extend_from_slice(piece);
            loop {
                match decoder.next() {
                    Ok(Some(reply)) => {
                        let step = talk.hear(&reply);
                        if let talk::Step::Message { name, payload } = step {
                            let message = message::LaravelMessage::parse(payload);
                            assert!(message.is_none_or(|message| message.data.len() <= payload.len()));
                            if let Some(channel) = message::channel(name, "x-", 200) {
                                all.push(format!("{:?}", talk.judge(channel)));
                            }
                        }
                        all.push(format!("{reply:?}"));
                    }
                    Ok(None) => break,
                    // What is quoted of it depends on what has come.
                    Err(_) => return (all, true),
                }
            }
        }
        (all, false)
    };
    assert_eq!(heard(bytes.len().max(1)), heard(usize::from(*step).max(1)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn corpus_of_the_fuzzer_holds() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/redis");
        let files: Vec<_> = std::fs::read_dir(corpus).unwrap().flatten().collect();
        assert!(files.len() > 5);
        for file in files {
            // Its first byte chooses the parser.
            let mut input = std::fs::read(file.path()).unwrap().split_off(1);
            for step in 1..=40 {
                input[0] = step;
                super::fuzz(&input);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            super::fuzz(&bytes);
        }

        #[test]
        fn anything_like_a_reply_is_taken(text in "[+:$*-][0-9a-z]{0,2}\r\n([$:][0-9]{1,3}\r\n[a-z]{0,3}(\r\n)?){0,4}", step: u8) {
            super::fuzz(&[&[step], text.as_bytes()].concat());
        }
    }
}
