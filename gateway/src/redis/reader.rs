//! One app's reader: a connection to its Redis, again and again, until it is stopped.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use broadgate_proto::limits::{
    REDIS_ANSWER_TIME_MAX, REDIS_CONNECT_TIME_MAX, REDIS_LOOKOUT_INTERVAL, REDIS_PING_INTERVAL,
    REDIS_READ_BYTES, REDIS_REPLY_REST_BYTES, REDIS_RETRY_WAIT_MAX, REDIS_RETRY_WAIT_MIN,
};
use broadgate_topics::Topic;
use tokio::{
    io::AsyncReadExt as _,
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    apps::{AppRedis, Apps, RedisUrl},
    command::{ChannelEvent, EventFlags},
    dispatch::{Dispatcher, Installed},
    redis::{
        connection::{self, NotOpened, RedisStream},
        message::{self, LaravelMessage},
        placing::{self, PlacingSender},
        resp::{ReplyDecoder, command},
        states::{ReaderDrop, ReaderReport},
        talk::{Step, Talk, TalkRules},
        words,
    },
};

/// What of an app concerns its reader; another one is started when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReaderPlan {
    pub(super) app: String,
    pub(super) settings: AppRedis,
    pub(super) channel_name_bytes_max: usize,
}

/// What all readers share.
#[derive(Clone)]
pub(super) struct ReaderDeps {
    pub(super) apps: Apps,
    pub(super) dispatcher: Weak<Dispatcher>,
    pub(super) installed: watch::Receiver<Installed>,
    pub(super) payload_bytes_max: usize,
}

struct Reader<'a> {
    plan: &'a ReaderPlan,
    deps: &'a ReaderDeps,
    report: &'a ReaderReport,
    placing: PlacingSender,
    /// Whether the prefix is right is no question any more.
    is_settled: bool,
}

/// How a connection ended.
struct Ended {
    why: String,
    /// Was it subscribed, and for so long that the next attempt is the first again?
    was_steady: bool,
}

/// Reads until it is stopped, then places what it has read.
pub(super) async fn run(
    plan: ReaderPlan,
    deps: ReaderDeps,
    report: Arc<ReaderReport>,
    stop: CancellationToken,
) {
    let (sender, receiver) = placing::queue(deps.payload_bytes_max);
    let mut reader = Reader { plan: &plan, deps: &deps, report: &report, placing: sender, is_settled: false };
    let reading = async {
        tokio::select! {
            () = stop.cancelled() => {}
            never = reader.read() => match never {},
        }
        drop(reader);
    };
    // In a task of its own, so that a flood of messages does not delay placing.
    broadgate_tasks::spawn("redis messages", receiver.run(deps.dispatcher.clone(), Arc::clone(&report)));
    reading.await;
}

impl Reader<'_> {
    async fn read(&mut self) -> std::convert::Infallible {
        let mut wait = REDIS_RETRY_WAIT_MIN;
        let mut urls = self.plan.settings.urls.iter().cycle();
        // There is at least one.
        let mut url = urls.next();
        loop {
            let Some(at) = url else { std::future::pending().await };
            let shown = at.to_string();
            // A message that makes it panic must not end every gateway.
            let ended = broadgate_tasks::contain("redis reader", self.connection(at, &shown)).await;
            let ended =
                ended.unwrap_or_else(|| Ended { why: "internal error".to_owned(), was_steady: false });
            self.report.failed(&shown, &ended.why);
            if ended.was_steady {
                wait = REDIS_RETRY_WAIT_MIN;
            }
            sleep(jittered(wait)).await;
            wait = (2 * wait).min(REDIS_RETRY_WAIT_MAX);
            url = urls.next();
        }
    }

    /// One connection, to its end.
    async fn connection(&mut self, url: &RedisUrl, shown: &str) -> Ended {
        let begun = Instant::now();
        let end = begun + REDIS_CONNECT_TIME_MAX;
        let opened = match self.open(url, end).await {
            Ok(stream) => self.serve(url, shown, stream, end).await,
            Err(why) => (why, false),
        };
        Ended { why: opened.0, was_steady: opened.1 && begun.elapsed() >= REDIS_RETRY_WAIT_MAX }
    }

    async fn open(&self, url: &RedisUrl, end: Instant) -> Result<Box<dyn RedisStream>, String> {
        let tls = if url.is_tls {
            let files = self.plan.settings.tls.clone();
            // As they are now: they may have been renewed.
            let read = broadgate_tasks::blocking("redis certificates", move || files.open()).await;
            Some(read.and_then(|read| read)?.into())
        } else {
            None
        };
        connection::open(url, tls, end).await.map_err(|error| match error {
            NotOpened::Silent { is_tls: true } => words::silent(true, REDIS_CONNECT_TIME_MAX.as_secs()),
            NotOpened::Silent { is_tls: false } => {
                format!("it cannot be reached within {} s", REDIS_CONNECT_TIME_MAX.as_secs())
            }
            NotOpened::Unreachable(error) => format!("it cannot be reached: {error}"),
            NotOpened::Tls(error) => words::io(&error, true, false),
            NotOpened::Host => format!("{:?} can be in no certificate: name the host in url", url.host),
        })
    }

    /// Why the connection ended, and whether it was subscribed.
    async fn serve(
        &mut self,
        url: &RedisUrl,
        shown: &str,
        mut stream: Box<dyn RedisStream>,
        end: Instant,
    ) -> (String, bool) {
        let mut conversation = Conversation::begin(self, shown, end);
        let mut say = std::mem::take(&mut conversation.say);
        loop {
            if !say.is_empty() {
                let written = connection::say(&mut *stream, &say, conversation.deadline()).await;
                say.clear();
                match written {
                    Some(Ok(())) => {}
                    Some(Err(error)) => {
                        return (
                            words::io(&error, url.is_tls, conversation.is_heard),
                            conversation.is_subscribed,
                        );
                    }
                    None => return (conversation.silence(), conversation.is_subscribed),
                }
            }
            let wake = conversation.wake();
            let buffer = conversation.decoder.buffer();
            buffer.reserve(REDIS_READ_BYTES);
            let read = timeout_at(wake, stream.read_buf(buffer)).await;
            match read {
                Ok(Ok(0)) => {
                    let end = std::io::ErrorKind::UnexpectedEof.into();
                    return (words::io(&end, url.is_tls, conversation.is_heard), conversation.is_subscribed);
                }
                Ok(Ok(_)) => conversation.is_heard = true,
                Ok(Err(error)) => {
                    return (
                        words::io(&error, url.is_tls, conversation.is_heard),
                        conversation.is_subscribed,
                    );
                }
                Err(_) if conversation.is_overdue() => {
                    return (conversation.silence(), conversation.is_subscribed);
                }
                Err(_) => {}
            }
            if let Err(why) = conversation.take_replies() {
                return (why, conversation.is_subscribed);
            }
            if conversation.is_overdue() {
                return (conversation.silence(), conversation.is_subscribed);
            }
            if conversation.is_quiet() {
                conversation.ping();
            }
            // What was taken is placed by other tasks, on the same threads.
            tokio::task::yield_now().await;
            conversation.look_out();
            std::mem::swap(&mut say, &mut conversation.say);
        }
    }

    /// A message of a channel: queued if the channel's home is here. One that was too long has no payload.
    fn message(&self, name: &[u8], payload: Option<&[u8]>, talk: &mut Talk) -> Step<'static> {
        let prefix = &self.plan.settings.prefix;
        let Some(channel) = message::channel(name, prefix, self.plan.channel_name_bytes_max) else {
            let name = String::from_utf8_lossy(name);
            self.report.dropped(ReaderDrop::Name, &name, "no client can be in a channel of this name");
            return Step::Nothing;
        };
        match self.is_home(channel) {
            Some(true) => match payload {
                Some(payload) => self.place(channel, payload),
                None => {
                    let why =
                        "it has more bytes than the largest payload: raise gateway.limits.message_bytes_max";
                    self.report.dropped(ReaderDrop::TooLong, channel, why);
                }
            },
            Some(false) => self.report.elsewhere.increment(1),
            None => self.report.outside.increment(1),
        }
        talk.judge(channel)
    }

    fn place(&self, channel: &str, payload: &[u8]) {
        let Some(message) = LaravelMessage::parse(payload) else {
            let why = "it is no object with \"event\" and \"data\", as Laravel's are";
            return self.report.dropped(ReaderDrop::Unparsable, channel, why);
        };
        let event = ChannelEvent {
            app: self.plan.app.as_str().into(),
            channel: channel.to_owned(),
            except: message.except,
            name: message.event.into(),
            data: message.data.into(),
            user_id_json: String::new(),
            flags: EventFlags::default(),
            by: format!("redis:{}", self.plan.app).into(),
            traceparent: None,
        };
        if !self.placing.put(event) {
            let why =
                "more is published than the cluster takes: it is overloaded, or a gateway does not answer";
            self.report.dropped(ReaderDrop::Full, channel, why);
        }
    }

    /// Whether the channel's home is here; none if no view says so.
    fn is_home(&self, channel: &str) -> Option<bool> {
        let installed = self.deps.installed.borrow();
        let me = installed.inside?;
        let home = installed.ring.as_ref()?.pick(Topic::group(&self.plan.app, channel).key())?;
        Some(home == me)
    }

    /// What a conversation begins with.
    fn rules(&self) -> TalkRules {
        let AppRedis { urls, user, password, prefix, .. } = &self.plan.settings;
        let table = self.deps.apps.load();
        let others = table.iter().filter(|app| app.id != self.plan.app).filter_map(|app| app.redis.as_ref());
        // Of the same Redis.
        let of_this = |redis: &&AppRedis| redis.urls.iter().any(|url| urls.contains(url));
        TalkRules {
            user: user.clone(),
            password: password.reveal().to_owned(),
            prefix: prefix.clone(),
            others: others.filter(of_this).map(|redis| redis.prefix.clone()).collect(),
            is_settled: self.is_settled,
        }
    }
}

/// A connection's conversation and its deadlines.
struct Conversation<'a, 'b> {
    reader: &'a mut Reader<'b>,
    url: &'a str,
    talk: Talk,
    decoder: ReplyDecoder,
    /// To be sent.
    say: Vec<u8>,
    is_subscribed: bool,
    /// Anything has come.
    is_heard: bool,
    /// By then it must be subscribed, or have answered a ping.
    deadline: Option<Instant>,
    heard_at: Instant,
    looked_out_at: Instant,
}

impl<'a, 'b> Conversation<'a, 'b> {
    fn begin(reader: &'a mut Reader<'b>, url: &'a str, end: Instant) -> Self {
        let (talk, say) = Talk::begin(reader.rules());
        let decoder = ReplyDecoder::new(reader.deps.payload_bytes_max + REDIS_REPLY_REST_BYTES);
        let now = Instant::now();
        Self {
            reader,
            url,
            talk,
            decoder,
            say,
            is_subscribed: false,
            is_heard: false,
            deadline: Some(end),
            heard_at: now,
            looked_out_at: now,
        }
    }

    /// By then something must be written.
    fn deadline(&self) -> Instant {
        self.deadline.unwrap_or_else(|| Instant::now() + REDIS_ANSWER_TIME_MAX)
    }

    /// Until then it may be silent.
    fn wake(&self) -> Instant {
        self.deadline.unwrap_or(self.heard_at + REDIS_PING_INTERVAL)
    }

    /// A whole reply has come. Bytes alone are no sign of life: a reply may have no end.
    fn heard(&mut self) {
        self.heard_at = Instant::now();
        if self.is_subscribed {
            self.deadline = None;
        }
    }

    /// It has sent no whole reply for as long as it may.
    fn is_quiet(&self) -> bool {
        self.deadline.is_none() && self.heard_at.elapsed() >= REDIS_PING_INTERVAL
    }

    fn is_overdue(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    fn ping(&mut self) {
        self.say.extend(command(&["PING"]));
        self.deadline = Some(Instant::now() + REDIS_ANSWER_TIME_MAX);
    }

    fn silence(&self) -> String {
        if self.is_subscribed {
            return "it does not answer any more".to_owned();
        }
        words::silent(false, REDIS_CONNECT_TIME_MAX.as_secs())
    }

    fn look_out(&mut self) {
        let is_time = self.looked_out_at.elapsed() >= REDIS_LOOKOUT_INTERVAL;
        if is_time {
            self.looked_out_at = Instant::now();
            self.say.extend(self.talk.look_out().unwrap_or_default());
        }
    }

    /// Takes every whole reply that has come.
    fn take_replies(&mut self) -> Result<(), String> {
        let reader = &*self.reader;
        let mut is_whole = false;
        while let Some(reply) = self.decoder.next().map_err(|error| error.to_string())? {
            is_whole = true;
            let step = match self.talk.hear(&reply) {
                Step::Message { name, payload } => reader.message(name, Some(payload), &mut self.talk),
                Step::TooLong { name } => reader.message(name, None, &mut self.talk),
                step => step,
            };
            match step {
                Step::Nothing | Step::Message { .. } | Step::TooLong { .. } => {}
                Step::Say(bytes) => self.say.extend(bytes),
                Step::Subscribed => {
                    (self.is_subscribed, self.deadline) = (true, None);
                    reader.report.connected(self.url);
                    self.say.extend(self.talk.look_out().unwrap_or_default());
                }
                Step::OtherPrefix(other) => {
                    reader.report.doubt(&words::other_prefix(&reader.plan.settings.prefix, &other));
                    self.say.extend(self.talk.end_of_lookout().unwrap_or_default());
                }
                Step::Fits => reader.report.doubt(""),
                Step::Refused(error) => {
                    let settings = &reader.plan.settings;
                    let why = words::refused(&error, settings, &message::pattern(&settings.prefix));
                    return Err(why);
                }
            }
        }
        if is_whole {
            self.heard();
        }
        Ok(())
    }
}

impl Drop for Conversation<'_, '_> {
    fn drop(&mut self) {
        self.reader.is_settled = self.talk.is_settled();
    }
}

/// Half of a wait, and at random the other half.
fn jittered(wait: Duration) -> Duration {
    let random = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
    wait.mul_f64(0.5 + 0.5 * random)
}
