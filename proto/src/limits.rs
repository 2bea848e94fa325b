//! Every limit that decisions rest on: the default, its unit, and why.
//!
//! Most are settings (see `deploy/config/broadgate.toml`); what is fixed says so. Units stand last
//! in the names. The relations between them are asserted at the end, at compile time.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A name of an app, uid or group. Fixed: it is part of the contract.
pub const NAME_BYTES_MAX: usize = 200;
/// An event's name, in bytes; as Pusher has it.
pub const EVENT_NAME_BYTES_MAX: usize = 200;
/// Hops of a traced send in its receipt: each gateway of the largest cluster has one, and its home a few more. A hop
/// has an entry for each shard, some 20 bytes. It is part of the contract.
pub const TRACE_HOPS_MAX: usize = 512;
/// A close reason. Fixed by RFC 6455 section 5.5: 125 bytes less the code.
pub const CLOSE_REASON_BYTES_MAX: usize = 123;
/// A message from a client. A client's decoder buffers at most about twice this.
pub const MESSAGE_BYTES_MAX: usize = 64 * KIB;
/// The most that may be configured for a message from a client, and so for a payload.
pub const MESSAGE_BYTES_HIGHEST: usize = 64 * MIB;
/// A payload in a command, unless messages of clients may be larger: a worker's answer may be as large as
/// what it answers.
pub const PAYLOAD_BYTES_MAX: usize = MIB;
/// What a command may have besides its payload, in bytes: [`NAMES_PER_COMMAND_MAX`] names of
/// [`NAME_BYTES_MAX`], and more.
pub const COMMAND_REST_BYTES: usize = 3 * MIB;
/// What a frame may have besides its payload, in bytes: a frame's head, or an event's object around it
/// with names of 200 bytes that JSON makes six times as long.
pub const FRAME_OVERHEAD_BYTES: usize = 8 * KIB;
/// A session's JSON: it travels with every event.
pub const SESSION_BYTES_MAX: usize = 16 * KIB;
/// Groups one client may be in.
pub const GROUPS_PER_CLIENT_MAX: usize = 1000;
/// Names and ids in one command.
pub const NAMES_PER_COMMAND_MAX: usize = 10_000;
/// Rows of one page of a list.
pub const PAGE_MAX: u32 = 1000;
/// Bytes of one page of a list, whatever number of rows was asked for: gRPC clients take 4 MiB.
pub const PAGE_BYTES_MAX: usize = 2 * MIB;
/// Clusters that an operator has named. Fixed: a file that a person writes.
pub const PROFILES_MAX: usize = 256;
/// Addresses of one of them: they are tried one after the other, within one command's time.
pub const PROFILE_ADDRESSES_MAX: usize = 16;
/// Such a name, in bytes.
pub const PROFILE_NAME_BYTES_MAX: usize = 64;
/// Settings of another server that are imported from standard input, in bytes: a person wrote them.
pub const IMPORTED_FILE_BYTES_MAX: u64 = 1_048_576;
/// Characters of a text of a stranger that commands print in a table or a sentence; its middle is left out.
/// `--json` has all of it.
pub const SHOWN_CELL_CHARS_MAX: usize = 1000;
/// And of a line of an error or a warning, which repeats what was typed.
pub const SHOWN_LINE_CHARS_MAX: usize = 2000;
/// Rows that a shard keeps of its busiest groups, clients or apps, and the most that can be asked for. Fixed: two
/// screens of a tall terminal, and a few milliseconds to merge for a large cluster.
pub const TOP_ROWS_MAX: usize = 256;
/// Different questions for which a shard measures at once: by groups or by clients, of all apps or of one. Fixed: each
/// takes 32 bytes for every group or client, in rounds of which each takes 9 µs for 1,024 of them.
pub const SURVEYS_MAX: usize = 8;
/// Groups or clients that a shard looks at in one slice of a round, between which it does everything else.
pub const SURVEY_SLICE: u32 = 1024;
/// How often a round begins, while somebody asks.
pub const SURVEY_INTERVAL: Duration = Duration::from_secs(1);
/// How long rounds go on after the last question: some intervals of a slow reader.
pub const SURVEY_TIME: Duration = Duration::from_secs(10);
/// Pairs of a caller and an app whose commands a gateway counts. Fixed: about 500 bytes each. Beyond, those that have
/// been silent for [`CALLER_SECONDS`] are forgotten, or further ones are counted together as "others".
pub const CALLERS_MAX: usize = 1024;
/// Over how many complete seconds the rates of callers are measured. Fixed: operators give few commands, and would be
/// seen for one second only.
pub const CALLER_SECONDS: u64 = 10;
/// Rows of a page if none are asked for.
pub const PAGE_DEFAULT: u32 = 100;

/// What may be queued for one client, in bytes.
pub const OUTBOX_BYTES_MAX: usize = MIB;
/// What all outboxes of a gateway may take in memory, in bytes: a message counts once in each shard, however
/// many clients wait for it. The shards share it; beyond, the clients with the most are closed as slow.
pub const OUTBOXES_BYTES_MAX: usize = 1024 * MIB;
/// The most that may be configured to be queued for one client, in bytes: it is counted in 32 bits, and the
/// gateway's own frames come on top.
pub const OUTBOX_BYTES_HIGHEST: usize = 1024 * MIB;
/// What may be queued for one client, in messages: 8 bytes of bookkeeping each, and a bound on tiny messages.
pub const OUTBOX_MESSAGES_MAX: usize = 16 * KIB;
/// How long an outbox may stay above its low-water mark.
pub const OUTBOX_TIME_MAX: Duration = Duration::from_secs(10);
/// The low-water mark of an outbox.
pub const OUTBOX_LOW_WATER_BYTES: usize = 64 * KIB;
/// How long a closing client may take to read what is left, and answer.
pub const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// Events of one client that its worker has not answered; beyond, it is not read from.
pub const EVENTS_PER_CLIENT_MAX: usize = 32;
/// And the bytes of their messages, so that large messages do not multiply by their number; one message is
/// always allowed.
pub const EVENTS_PER_CLIENT_BYTES_MAX: usize = 2 * MIB;
/// Events that one worker may leave unanswered at one gateway, unless it says otherwise.
pub const EVENTS_PER_WORKER_DEFAULT: u32 = 1024;
/// The most that a worker may ask for.
pub const EVENTS_PER_WORKER_MAX: u32 = 65_536;
/// How long a client's event may wait for any worker, before the client is closed 1013.
pub const HOLD_TIME_MAX: Duration = Duration::from_secs(10);

/// The longest time that a setting may be: a year, so that sums and multiples of settings are times as well.
pub const TIME_SETTING_MAX: Duration = Duration::from_hours(365 * 24);

/// Workers that may be lost with an event unanswered before it is suspected: then it is delivered alone. One
/// may crash for any reason.
pub const EVENT_DEATHS_FREE: u8 = 1;
/// After so many, also an event that was not delivered alone is given up: it cannot be known which of several
/// it is.
pub const EVENT_DEATHS_MAX: u8 = 8;
/// Events for one worker go in messages of about this size, in bytes: gRPC clients take 4 MiB. One event
/// alone may be larger.
pub const EVENTS_MESSAGE_BYTES: usize = MIB;

/// From accept to the end of the handshake.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// From accept to the first byte.
pub const FIRST_BYTE_TIME_MAX: Duration = Duration::from_secs(5);
/// TLS handshakes that a shard computes before clients that are there have their turn: some 250 µs each.
pub const TLS_HANDSHAKES_PER_TURN: usize = 16;
/// How long after its start a gateway that is in no view yet delays commands, each for a link timeout at
/// most, instead of refusing them.
pub const STARTING_TIME: Duration = Duration::from_secs(10);
/// Log lines per minute for refusals of one reason; beyond, they are only counted: anybody can be refused as
/// often as they like.
pub const REFUSALS_LOGGED_PER_MINUTE: u32 = 10;
/// Bytes that a log shows of one text from a refused caller.
pub const REFUSAL_FIELD_BYTES_MAX: usize = 200;
/// Ends of clients that a shard remembers, if the gateway caused them: some 450 bytes each, and the names of
/// [`ENDED_GROUPS_MAX`] groups.
pub const ENDS_CAUSED_MAX: usize = 4096;
/// And ends that the clients caused: more, since page reloads and health checks are among them.
pub const ENDS_OWN_MAX: usize = 8192;
/// Limits of apps that have refused somebody in a minute, for the doctor: beyond, such a limit is in the metric of refusals
/// alone.
pub const LIMITS_MET_MAX: usize = 512;
/// How many refusals by one limit within two minutes are odd: a page that is loaded again may come before its former
/// connection is gone, and a stranger may try twice.
pub const LIMIT_REFUSALS_ODD: u64 = 3;
/// Groups of a client that its end names.
pub const ENDED_GROUPS_MAX: usize = 8;
/// Refusals that a gateway remembers; equal ones are one.
pub const REFUSALS_KEPT_MAX: usize = 1024;
/// How many refusals may be unlike all that are remembered, in one second; beyond, they are only counted: to
/// remember one costs some microseconds, and anybody can be refused as often as they like.
pub const REFUSALS_NEW_PER_SECOND_MAX: usize = 64;
/// And how many of them may be of one address and one reason, so that others have theirs.
pub const REFUSALS_NEW_PER_ADDRESS_MAX: usize = 8;
/// Sends that a shard remembers, one for each command: 64 bytes each, and [`SENT_TEXT_BYTES`] for each.
pub const SENDS_KEPT_MAX: usize = 16_384;
/// Ids and names of a remembered send, in bytes on average: with longer ones fewer are remembered.
pub const SENT_TEXT_BYTES: usize = 64;
/// Names of each kind of a send's audience that are remembered.
pub const SENT_NAMES_MAX: usize = 8;
/// Joins, leaves and changed uids that a shard remembers: 32 bytes each.
pub const MOVES_KEPT_MAX: usize = 16_384;
/// Deliveries that were dropped and that a shard remembers: 40 bytes each.
pub const DROPS_KEPT_MAX: usize = 4096;
/// And how many of them may be of one command: a message that no client of a large group can take must not
/// displace all others.
pub const DROPS_PER_SEND_MAX: usize = 64;
/// Groups and uids of which a question about sends asks, each, and changes listed of one client.
pub const SENT_ASKED_MAX: usize = 64;
/// The most ends or refusals that may be configured to be remembered.
pub const REMEMBERED_HIGHEST: usize = 1_000_000;
/// Between two requests of a connection. Longer than the 60 s for which nginx keeps upstream connections, so
/// that no request meets a closing connection.
pub const KEEP_ALIVE_TIME_MAX: Duration = Duration::from_secs(75);
/// How long executing a request and writing its answer may take, besides the time for the body and a worker.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// How long the peer of an HTTP connection may read nothing of an answer.
pub const WRITE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a closing HTTP connection is read, so that its peer gets the answer and no reset.
pub const LINGER_TIME_MAX: Duration = Duration::from_secs(2);
/// And how much of it, in bytes.
pub const LINGER_BYTES_MAX: usize = 256 * KIB;
/// Connections beyond the limits of a gateway that still get an answer at once. Each costs a file and at most
/// [`HANDSHAKE_BYTES_MAX`]; those beyond are closed unread.
pub const FAREWELLS_MAX: usize = 64;
/// The whole life of such a connection.
pub const FAREWELL_TIME_MAX: Duration = Duration::from_secs(5);
/// Connections of an internal port: peers, workers and callers. The open-files limit may say less.
pub const INTERNAL_CONNECTIONS_MAX: usize = 2048;
/// How many of them may be unauthenticated; beyond, the oldest one is closed.
pub const INTERNAL_STRANGERS_MAX: usize = 256;
/// Connections of a register: each member's, and as many of watchers and operators. The open-files limit
/// may say less.
pub const REGISTER_CONNECTIONS_MAX: usize = 2 * MEMBERS_MAX;
/// Connections of a metrics port; beyond, the oldest one is closed.
pub const METRICS_CONNECTIONS_MAX: usize = 32;
/// Connections of a dashboard: some tabs, each with a stream and the requests of its start; beyond, the oldest one
/// is closed.
pub const DASHBOARD_CONNECTIONS_MAX: usize = 128;
/// Tabs of a dashboard that are shown something; beyond, a tab is refused.
pub const DASHBOARD_TABS_MAX: usize = 64;
/// Operators who are logged in at a dashboard; beyond, the one that has done nothing for the longest time is
/// logged out.
pub const DASHBOARD_SESSIONS_MAX: usize = 64;
/// An operator who has looked at nothing for this long is logged out.
pub const DASHBOARD_IDLE_TIME_MAX: Duration = Duration::from_secs(30 * 60);
/// And after this time in any case.
pub const DASHBOARD_SESSION_TIME_MAX: Duration = Duration::from_secs(12 * 3600);
/// The stream of a tab that nobody has seen for this long is closed, and with it the connection, the place and the tap
/// that it holds; the page opens it again when somebody looks.
pub const DASHBOARD_HIDDEN_TIME_MAX: Duration = Duration::from_secs(5 * 60);
/// Failed logins of one address in a minute; beyond, it has to wait.
pub const DASHBOARD_LOGINS_PER_MINUTE_MAX: u32 = 5;
/// Addresses whose failed logins are counted; beyond, the one that began first is forgotten.
pub const DASHBOARD_LOGIN_ADDRESSES_MAX: usize = 1024;
/// Bytes of a request's body at a dashboard, and of what a page says on its stream: an order with a message.
pub const DASHBOARD_REQUEST_BYTES_MAX: usize = 96 * KIB;
/// Gateways that a dashboard tries for one answer, one after the other.
pub const DASHBOARD_GATEWAYS_TRIED_MAX: usize = 4;
/// Addresses of gateways that a dashboard keeps, to go on when one is gone.
pub const DASHBOARD_GATEWAYS_KNOWN_MAX: usize = 64;
/// How long one gateway may take to answer a dashboard: it waits itself for others that do not answer it.
pub const DASHBOARD_ANSWER_TIME_MAX: Duration = Duration::from_secs(4);
/// Files for the connections that a gateway dials: to each other member, and those of webhooks.
pub const DIALED_CONNECTIONS_MAX: usize = MEMBERS_MAX + 256;
/// Bytes of all request bodies in a gateway for the HTTP API of Pusher apps; one app gets half of it at most.
pub const API_BODIES_BYTES_MAX: usize = 64 * MIB;
/// The least that may be configured: one app's half takes a batch of ten events of 10 KiB, in JSON.
pub const API_BODIES_BYTES_LEAST: usize = 2 * MIB;
/// Bytes of a query of the HTTP API, which is parsed before the signature is checked. Fixed.
pub const API_QUERY_BYTES_MAX: usize = 8 * KIB;
/// Parameters of such a query. Fixed.
pub const API_PARAMETERS_MAX: usize = 64;
/// A silent TCP connection is probed after this.
pub const TCP_KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Between two such probes. Fixed.
pub const TCP_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// After so many unanswered probes the peer is gone. Fixed.
pub const TCP_KEEP_ALIVE_PROBES: u32 = 3;
/// Bytes of an HTTP request's head.
pub const HANDSHAKE_BYTES_MAX: usize = 16 * KIB;
/// Connections of one gateway; the open-files limit may say less.
pub const CLIENTS_MAX: usize = 100_000;
/// Connections from one address; 0 is no limit, since proxies share one.
pub const CLIENTS_PER_IP_MAX: usize = 0;
/// Messages per second from one client; 0 is no limit.
pub const MESSAGES_PER_SECOND_MAX: u32 = 0;

/// Frames per second from one client that are no message: pings, pongs, and fragments of messages; 0 is no
/// limit. A browser sends only pongs; a library splits the largest messages into far fewer.
pub const FRAMES_PER_SECOND_MAX: u32 = 2000;

/// A client silent for this long gets a ping.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);
/// A client silent for this long, without even a pong, is closed.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A member's beat.
pub const BEAT: Duration = Duration::from_secs(1);
/// Silence after which the register removes a member.
pub const LEASE: Duration = Duration::from_secs(5);
/// Members of one cluster; a first view travels whole.
pub const MEMBERS_MAX: usize = 1000;
/// What one member announces in a view, in bytes: its name, addresses, services and listeners. Most need 200.
/// Fixed: it is part of the contract.
pub const MEMBER_BYTES_MAX: usize = 4 * KIB;
/// The members of one view together, in bytes, so that every process can decode it; a newcomer that does not
/// fit is refused. Fixed: it is part of the contract.
pub const VIEW_BYTES_MAX: usize = 2 * MIB;
/// The former views that a register keeps for members that redial, and a gateway for its peers, together, in
/// bytes.
pub const VIEWS_KEPT_BYTES_MAX: usize = 16 * MIB;
/// How many former views these are.
pub const VIEWS_KEPT_MAX: usize = 64;
/// A member gets a whole view after so many that came as changes: whatever went wrong is over then.
pub const VIEW_CHANGES_MAX: usize = 64;
/// How long a gateway waits for the register to send a view that a peer has announced, before it asks the peer; each
/// link at random up to twice as long. The register sends a view to all members at once, but not in one moment, and a
/// gateway that asked at once would mostly ask for what is on its way. While it waits, messages of that peer wait, too.
pub const VIEW_ASK_GRACE: Duration = VIEW_INTERVAL;
/// A link whose view another link has asked for asks for itself after this time.
pub const VIEW_ASK_AGAIN: Duration = Duration::from_millis(100);
/// What waits on a link to this gateway for a view that the peer has announced by number, in bytes, besides the
/// first batch; beyond, the link is reset, and the peer resyncs.
pub const LINK_PENDING_BYTES_MAX: usize = 32 * MIB;
/// The lease of a register that leads over a ledger; etcd makes it no shorter than 2 s.
pub const LEDGER_LEASE: Duration = Duration::from_secs(3);
/// How often it is renewed.
pub const LEDGER_RENEW: Duration = Duration::from_secs(1);
/// How often a register that stands by looks for the leader.
pub const LEDGER_LOOK: Duration = Duration::from_millis(500);
/// How often a register that stands by reports a leader's key without a lease.
pub const LEDGER_ORPHAN_SAY: Duration = Duration::from_secs(60);
/// How long a ledger may take to accept a write before the register gives its lead up.
pub const LEDGER_COMMIT_TIME_MAX: Duration = Duration::from_secs(5);
/// One write, and the members of one view, in bytes, while the list is kept in etcd, whose requests have at most
/// 1.5 MiB.
pub const LEDGER_VIEW_BYTES_MAX: usize = MIB;
/// Views in one write: etcd takes 128 operations.
pub const LEDGER_VIEWS_MAX: usize = 64;
/// Removed incarnations that the ledger remembers: 8 bytes each in every write.
pub const LEDGER_REMOVED_MAX: usize = 1000;
/// Between two views: changes that come meanwhile go together into the next. When a cluster of 200 members
/// starts, each of them gets some views of 20 KB instead of 200.
pub const VIEW_INTERVAL: Duration = Duration::from_millis(50);
/// Answers to members and operators that wait for the next view; beyond, it is made at once.
pub const VIEW_DEFERRED_MAX: usize = 16 * MEMBERS_MAX;
/// Answers and views for members that wait for the ledger; beyond, members and operators are turned away.
pub const LEDGER_DEFERRED_MAX: usize = 16 * MEMBERS_MAX;
/// The views that wait for the ledger together, in bytes; beyond, members and operators are turned away.
pub const LEDGER_WAITING_BYTES_MAX: usize = 16 * MIB;
/// The step from one term to the next in the terms that registers make: the lower 16 bits are random.
pub const TERM_STEP: u64 = 1 << 16;
/// A view whose term is so much above the known one is not believed: 65,536 take-overs lie between them.
/// A false report of a higher term can be superseded as often.
pub const TERM_LEAP_MAX: u64 = TERM_STEP << 16;
/// The highest term that a process believes at once if it knows no view of a cluster: 2^32 take-overs.
pub const TERM_FIRST_MAX: u64 = TERM_STEP << 32;
/// Terms beyond this are never believed.
pub const TERM_MAX: u64 = TERM_STEP << 46;
/// A beat of the link between two gateways.
pub const LINK_BEAT: Duration = Duration::from_millis(500);
/// How long a peer may take to answer before answers name it as missing.
pub const LINK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a question may be parked at a home while gateways have not synced.
pub const PARKING_TIME_MAX: Duration = Duration::from_secs(3);
/// A client's subscription is confirmed within this time, also if the channel's home died just before: a
/// lease and two link timeouts, and a second for what follows.
pub const ENTER_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes that may be parked at a home.
pub const PARKING_BYTES_MAX: usize = 4 * MIB;
/// Bytes of one group's history, whatever number of messages was asked for.
pub const HISTORY_BYTES_MAX: usize = MIB;
/// The most messages that may be configured for one group's history.
pub const HISTORY_MESSAGES_MAX: usize = 10_000;
/// What groups retain at one gateway, their last values and histories together, in bytes of memory; beyond,
/// the app that retains more than an equal share loses its least recently written.
pub const RETAINED_BYTES_MAX: usize = 256 * MIB;
/// And the groups of one app, likewise.
pub const RETAINED_APP_BYTES_MAX: usize = 64 * MIB;
/// The least that may be configured for the groups of one app: one message in every form fits.
pub const RETAINED_APP_BYTES_LEAST: usize = 8 * MIB;
/// Commands on the link to a peer that it has not accepted, in bytes; beyond, it is not asked.
pub const LINK_UNTAKEN_BYTES_MAX: usize = 8 * MIB;
/// Unanswered questions of one gateway's callers to homes, in bytes, with some 300 for each question; beyond,
/// callers are asked to repeat.
pub const ASKED_BYTES_MAX: usize = 64 * MIB;
/// How long a command id is remembered.
pub const COMMAND_ID_TIME: Duration = Duration::from_secs(120);
/// A command's id. Fixed: it is part of the contract.
pub const COMMAND_ID_BYTES_MAX: usize = 64;
/// Member info, which others see of a presence member. Fixed: it is part of the contract.
pub const MEMBER_INFO_BYTES_MAX: usize = 4 * KIB;
/// Command ids chosen by callers that one shard remembers, if that is fewer: the apps share them.
pub const COMMAND_IDS_MAX: usize = 1_000_000;
/// And their bytes, with answers and tables: some 240 for an id and a receipt, so half a million of them.
pub const COMMAND_IDS_BYTES_MAX: usize = 128 * MIB;
/// Command ids generated for callers that chose none that one shard remembers, if that is fewer.
pub const COMMAND_IDS_MADE_MAX: usize = 500_000;
/// And their bytes, with answers and tables.
pub const COMMAND_IDS_MADE_BYTES_MAX: usize = 128 * MIB;
/// Keys of backends' publishes (`X-Idempotency-Key`) that one gateway remembers as their home, to refuse
/// another publish under the same key; the apps share them.
pub const IDEMPOTENCY_KEYS_MAX: usize = 100_000;
/// And their bytes, with tables.
pub const IDEMPOTENCY_KEYS_BYTES_MAX: usize = 32 * MIB;
/// A backend's `X-Idempotency-Key`, in bytes: it leaves room for the rest of a command's id.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 50;
/// Batches unanswered on one link or command stream.
pub const LINK_BATCHES_MAX: usize = 1024;
/// Commands in one batch that a gateway forms.
pub const BATCH_COMMANDS_MAX: usize = 256;
/// Messages queued for one shard.
pub const MAILBOX_MAX: usize = 8 * KIB;

/// A shard whose tick comes this much after the one before was not running, and neither were its deadlines:
/// the time does not count against its clients.
pub const SHARD_PAUSE_MIN: Duration = Duration::from_secs(3);

/// A worker that has events to answer, and answers none for so many seconds, is reported as silent: a handler
/// may well wait for a database for some of them.
pub const WORKER_SILENT_S: u32 = 10;
/// A worker that leaves single events unanswered for so many seconds, and answers others, is reported: what is
/// unanswered for longer than most handlers may take.
pub const WORKER_ANSWER_ODD_S: u32 = 20;
/// Notes of when events went to a worker, of each shard: so it knows the age of the oldest unanswered one. One a
/// second; of more every second one is dropped.
pub const SEND_TIMES_MAX: usize = 64;
/// Members that a gateway remembers as removed from its view: as many as vanish when a rack of hosts does.
pub const REMOVED_MEMBERS_MAX: usize = 64;
/// Members that a register remembers as refused: more than are set up wrongly at once. Each has a sentence of 400 bytes,
/// and gateways show them.
pub const REFUSED_MEMBERS_MAX: usize = 64;
/// After the last refusal of a member: the time in which somebody who sets it up looks at the cluster.
pub const REFUSED_MEMBERS_TIME: Duration = Duration::from_secs(600);
/// Apps that a gateway's evidence lists; a hash of all covers the others. So 50 gateways fit into one answer.
pub const EVIDENCE_APPS_MAX: usize = 500;

/// From "not ready" to the first close when a gateway stops, so that load balancers notice.
pub const READY_DELAY: Duration = Duration::from_secs(2);
/// Within this time a stopping gateway closes all its clients.
pub const DRAIN_TIME: Duration = Duration::from_secs(20);

/// How long webhooks debounce that a channel is empty or a user has left, in case they come back; the hosted
/// service waits up to 3 s (its documentation of webhooks).
pub const WEBHOOK_LEAVE_TIME: Duration = Duration::from_secs(3);
/// A channel's empty cache is reported at most once within this time: no event says when it is filled.
pub const WEBHOOK_CACHE_MISS_TIME: Duration = Duration::from_secs(60);
/// The number of a large channel's subscribers is reported at most once within this time, as the hosted
/// service does.
pub const WEBHOOK_COUNT_TIME: Duration = Duration::from_secs(5);
/// A channel with more subscribers than this is a large one, as for the hosted service.
pub const WEBHOOK_COUNT_SMALL_MAX: u64 = 100;
/// Events that one app's webhooks debounce at once; beyond, they are posted undelayed. Some 200 bytes each.
pub const WEBHOOK_HELD_MAX: usize = 100_000;
/// Facts queued for the webhooks' task, in bytes, with [`WEBHOOK_EVENT_OVERHEAD_BYTES`] for each: some
/// 50,000. Beyond, the apps with more than an equal share lose theirs, and in an app the channels.
pub const WEBHOOK_INBOX_BYTES_MAX: usize = 16 * MIB;
/// Facts that homes have seen in channels, queued for the task that reports them, likewise.
pub const CHANNEL_CHANGES_BYTES_MAX: usize = 16 * MIB;
/// After a gateway was killed and restarted, clients may come back within this time: then no webhook says
/// that they had left.
pub const WEBHOOK_RETURN_TIME: Duration = Duration::from_secs(5);
/// The journal of notified channels and users in memory, and half of it on disk, in bytes; beyond, new facts
/// are not recorded: if the gateway is killed then, no webhook says that they have ended.
pub const WEBHOOK_TOLD_BYTES_MAX: usize = 64 * MIB;
/// Events queued for one endpoint; beyond, channels that appeared and vanished unreported lose theirs first,
/// then those with the most.
pub const WEBHOOK_QUEUE_EVENTS_MAX: usize = 10_000;
/// And their bytes.
pub const WEBHOOK_QUEUE_BYTES_MAX: usize = 16 * MIB;
/// The overhead of a queued event besides its texts, in bytes.
pub const WEBHOOK_EVENT_OVERHEAD_BYTES: usize = 256;
/// Posts in flight to one endpoint: a PHP receiver rarely has more processes to spare.
pub const WEBHOOK_POSTS_MAX: usize = 8;
/// Events in one post, where an endpoint takes several.
pub const WEBHOOK_BATCH_EVENTS_MAX: usize = 100;
/// And their bytes; one event alone may have more. Below the 1 MiB that nginx takes by default.
pub const WEBHOOK_BATCH_BYTES_MAX: usize = 256 * KIB;
/// How long the first event of a batch waits for others.
pub const WEBHOOK_LINGER: Duration = Duration::from_millis(100);
/// For a whole post: connection, TLS, request and answer.
pub const WEBHOOK_POST_TIME_MAX: Duration = Duration::from_secs(10);
/// How long an event is tried, from its first attempt; as the hosted service does.
pub const WEBHOOK_RETRY_TIME_MAX: Duration = Duration::from_mins(5);
/// The wait after the first failure; doubled with each.
pub const WEBHOOK_RETRY_WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait between two attempts.
pub const WEBHOOK_RETRY_WAIT_MAX: Duration = Duration::from_secs(60);
/// After so many failures in a row an endpoint is down: then one post at a time probes whether it is back.
pub const WEBHOOK_DOWN_FAILURES: u32 = 5;
/// Bytes of one gateway's spool; beyond, events are in memory only.
pub const WEBHOOK_SPOOL_BYTES_MAX: usize = 64 * MIB;
/// A crash of the machine loses at most this much of the spool.
pub const WEBHOOK_SPOOL_SYNC: Duration = Duration::from_secs(1);
/// With a spool, a stopping gateway waits this long for its queues, once no event is debounced: the rest is
/// safe.
pub const WEBHOOK_SPOOLED_DRAIN_TIME: Duration = Duration::from_secs(1);

/// For a connection to an app's backend.
pub const BACKEND_CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of an answer of a backend that are read, so that the connection can serve again; beyond, it is closed.
pub const BACKEND_ANSWER_BYTES_MAX: usize = 64 * KIB;
/// Questions to one app's backend that one gateway has under way, whether a client may subscribe. PHP has few
/// processes, and they serve the app's users, too.
pub const AUTHORIZATIONS_UNDER_WAY_MAX: usize = 32;
/// And those that wait to be asked, within the time that the app gives its backend: one for each client at most,
/// some 4 KiB each with a cookie, and never more than [`AUTHORIZATION_HEADERS_BYTES_MAX`] and
/// [`SOCKETIO_HANDSHAKE_BYTES_MAX`]. Beyond, a subscription is refused.
pub const AUTHORIZATIONS_WAITING_MAX: usize = 4 * KIB;
/// Bytes of headers that one question passes on for a client, cookies included.
pub const AUTHORIZATION_HEADERS_BYTES_MAX: usize = 16 * KIB;
/// The wait before a question is asked again that the backend has not answered, doubled at random.
pub const AUTHORIZATION_RETRY_WAIT: Duration = Duration::from_millis(100);

/// From dialling a Redis until it has confirmed the subscription.
pub const REDIS_CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// A Redis that sends nothing for so long is pinged.
pub const REDIS_PING_INTERVAL: Duration = Duration::from_secs(10);
/// And how long it may take to answer; beyond, the connection is dead.
pub const REDIS_ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// The wait before the first attempt to reach a Redis again; doubled with each. Half of it is random, so that
/// gateways do not dial together.
pub const REDIS_RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
/// The longest wait between two attempts: what is published meanwhile is lost.
pub const REDIS_RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// The same trouble with a Redis is logged once within this time.
pub const REDIS_TROUBLE_INTERVAL: Duration = Duration::from_secs(60);
/// One read from a Redis, in bytes.
pub const REDIS_READ_BYTES: usize = 16 * KIB;
/// A line of a Redis: the head of a text, or an error. That about its protected mode has 950 bytes.
pub const REDIS_LINE_BYTES_MAX: usize = 4 * KIB;
/// What a message of a Redis may have besides the largest payload, in bytes: names, and the object around the
/// data. Beyond, a message is skipped and counted.
pub const REDIS_REPLY_REST_BYTES: usize = 8 * KIB;
/// Messages of an app's Redis that are being placed, in bytes, with [`REDIS_MESSAGE_OVERHEAD_BYTES`] for each, or
/// two of the largest, if that is more; beyond, messages are dropped and counted: a slow cluster must not slow
/// the reader, whom Redis closes at 32 MB behind.
pub const REDIS_PLACING_BYTES_MAX: usize = 16 * MIB;
/// The overhead of such a message besides its texts, in bytes.
pub const REDIS_MESSAGE_OVERHEAD_BYTES: usize = 512;
/// While no message of an app's prefix has come, so many messages of other names are looked at, to find that
/// Laravel publishes under another prefix.
pub const REDIS_LOOKOUT_MESSAGES_MAX: u32 = 1000;
/// And so many bytes of them.
pub const REDIS_LOOKOUT_BYTES_MAX: usize = MIB;
/// And again after this time.
pub const REDIS_LOOKOUT_INTERVAL: Duration = Duration::from_secs(60);

/// How often a Socket.IO client and its gateway say that they are there. Fixed: what the reference server has.
pub const SOCKETIO_PING_INTERVAL: Duration = Duration::from_secs(25);
/// And how long either waits for the other.
pub const SOCKETIO_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Within this a Socket.IO client has to go over to its WebSocket and to connect to the namespace.
pub const SOCKETIO_CONNECT_TIME_MAX: Duration = Duration::from_secs(45);
/// Bytes of a Socket.IO client's Cookie header, and of its Origin, that are kept as long as it is connected: what web
/// servers take of one header by default. A longer one counts as none.
pub const SOCKETIO_HANDSHAKE_BYTES_MAX: usize = 8 * KIB;
/// How long a poll is held that asks for more than the handshake.
pub const SOCKETIO_POLL_TIME: Duration = Duration::from_millis(200);
/// For how long a Socket.IO client may poll, from its handshake on, before it asks for its WebSocket; beyond, its
/// polls are refused, so that it learns that it would hear nothing. Gateways' clocks may differ by much of it.
pub const SOCKETIO_POLLING_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of a POST by polling, which is dropped: before the upgrade it holds a client's connect packet.
pub const SOCKETIO_POST_BYTES_MAX: usize = 64 * KIB;

/// Groups that one shard's Pusher clients have entered and that the homes do not know of yet; beyond, a
/// subscription or sign-in is answered as busy. Some 100 bytes each: as many as a full gateway's clients
/// subscribe to when they all reconnect at once.
pub const PUSHER_ENTRIES_MAX: usize = 256 * KIB;
/// Client events of one shard that are placed and unanswered; beyond, the clients are not read. By default at
/// most 10 KiB each.
pub const PUSHER_UNANSWERED_MAX: usize = 4 * KIB;
/// Events of Pusher clients queued for one observer; beyond, they are dropped and counted. Fixed: it is part
/// of the contract.
pub const PUSHER_WATCH_EVENTS_MAX: usize = 16 * KIB;
/// And their bytes. Fixed: it is part of the contract.
pub const PUSHER_WATCH_BYTES_MAX: usize = 16 * MIB;
/// Bytes in one message to a watcher; one event alone may have more. Well below the 4 MiB that gRPC
/// clients take.
pub const PUSHER_WATCH_MESSAGE_BYTES_MAX: usize = 256 * KIB;
/// Observers' streams at one gateway: each may fill its queue.
pub const PUSHER_WATCHERS_MAX: usize = 256;

/// Taps of one gateway, each an operator who looks on: a client has one bit for each in its byte of marks. Fixed.
pub const TAPS_MAX: usize = 8;
/// Events that wait for the reader of one tap; beyond, they are dropped, counted, and reported as missed: some
/// seconds of what a tap shows.
pub const TAP_EVENTS_MAX: usize = 4096;
/// And their bytes.
pub const TAP_BYTES_MAX: usize = MIB;
/// One message of a tap's stream, in bytes.
pub const TAP_MESSAGE_BYTES_MAX: usize = 64 * KIB;
/// Events that a tap shows in a second at most: more than a person reads, and each costs its shard about a
/// microsecond.
pub const TAP_EVENTS_PER_SECOND_MAX: u32 = 1000;
/// How long a tap lasts at most, in seconds: one that was forgotten ends.
pub const TAP_SECONDS_MAX: u32 = 600;
/// What a tap shows of a payload at most, in bytes, and if no number is given.
pub const TAP_PAYLOAD_BYTES_MAX: u32 = 4096;
/// See [`TAP_PAYLOAD_BYTES_MAX`].
pub const TAP_PAYLOAD_BYTES_DEFAULT: u32 = 256;
/// Events with workers of tapped clients whose times a shard knows, so that an answer's time can be told.
pub const TAP_TIMES_MAX: usize = 1024;

/// The shortest shared secret.
pub const SECRET_BYTES_MIN: usize = 32;
/// Tokens of operators at one gateway.
pub const TOKENS_MAX: usize = 1000;
/// Bytes of a token's name: it stands in every line about its holder.
pub const TOKEN_NAME_BYTES_MAX: usize = 64;
/// Bytes of the note that an operator leaves with an order: it stands in a line of the audit and in an event.
pub const NOTE_BYTES_MAX: usize = 256;
/// Bytes of who gave an order, as one process tells another: who, how, from where, and the note.
pub const ORDER_GIVER_BYTES_MAX: usize = 4 * KIB;
/// Bytes of who gave a command: the id and key of an app at most, and what kind of caller it is.
pub const CALLER_BYTES_MAX: usize = 2 * NAME_BYTES_MAX + 16;
/// Events that a gateway remembers for operators.
pub const EVENTS_KEPT_MAX: usize = 4096;
/// And their bytes: an audit line may be long.
pub const EVENTS_KEPT_BYTES_MAX: usize = 4 * MIB;
/// Bytes of an event's sentence; longer ones are cut.
pub const EVENT_TEXT_BYTES_MAX: usize = 512;
/// Lines of the audit that wait to be written. A file on a disk that hangs fills it: then operators' orders wait for a
/// while, and lines are dropped and counted.
pub const AUDIT_QUEUE_LINES_MAX: usize = 1024;
/// How long an operator's order waits for a place in that queue.
pub const AUDIT_WAIT_TIME_MAX: Duration = Duration::from_secs(2);
/// Clients, uids and groups that an audit line names, of each; it says how many there are.
pub const AUDIT_NAMES_MAX: usize = 4;
/// Apps that one token names; one for more says `*`.
pub const TOKEN_APPS_MAX: usize = 1000;
/// The secret of an app's key: 128 bits in hexadecimal have 32, the secrets of hosted services and of Laravel
/// Reverb 20. A shorter one can be guessed from one signature.
pub const APP_SECRET_BYTES_MIN: usize = 16;
/// One gRPC message, where nothing larger is needed.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 4 * MIB;
/// One gRPC message between a gateway and its workers and callers, who have the secret: the largest payload
/// that may be configured, and its envelope. What exceeds the configured limits is refused with a sentence,
/// not by ending a stream that others use.
pub const GRPC_MESSAGE_BYTES_HIGHEST: usize = MESSAGE_BYTES_HIGHEST + GRPC_MESSAGE_BYTES_MAX;
/// One gRPC message between gateways, and from a gateway to a watcher of groups, which may get a large group
/// at once. Both ends decode with this.
pub const PEER_MESSAGE_BYTES_MAX: usize = 64 * MIB;
/// Between gateways, a larger message travels in parts of [`PEER_PART_BYTES`]. Below the 4 MiB that a gateway
/// of an earlier version accepts.
pub const PEER_WHOLE_BYTES_MAX: usize = 3 * MIB;
/// One part, in bytes.
pub const PEER_PART_BYTES: usize = MIB;
/// The most that may be reassembled from parts, in bytes: the roster of a group with a million members, or a
/// batch of the largest messages. Beyond, the link is closed.
pub const PEER_JOINED_BYTES_MAX: usize = 256 * MIB;
/// A text is so many times as long in JSON at most: a control character is written as `\u0000`. A JSON body on
/// an internal port may have so many times the largest payload, and [`COMMAND_REST_BYTES`]. Fixed.
pub const JSON_GROWTH_MAX: usize = 6;
/// All JSON bodies that an internal port is reading or executing, or two of the largest, if that is more.
pub const JSON_BODIES_BYTES_MAX: usize = 64 * MIB;

// By default the number of events alone holds clients back.
const _: () = assert!(EVENTS_PER_CLIENT_MAX * MESSAGE_BYTES_MAX <= EVENTS_PER_CLIENT_BYTES_MAX);
// A batch of client events must fit, or nothing would ever be placed.
const _: () = assert!(4 * REFUSALS_NEW_PER_ADDRESS_MAX <= REFUSALS_NEW_PER_SECOND_MAX);
const _: () = assert!(BATCH_COMMANDS_MAX <= PUSHER_UNANSWERED_MAX);
// A late beat or two must not remove a member.
const _: () = assert!(LEASE.as_millis() >= 4 * BEAT.as_millis());
const _: () = assert!(LINK_TIMEOUT.as_millis() >= 3 * LINK_BEAT.as_millis());
// A repeat after every wait that a caller may have gone through is still known.
const _: () = assert!(COMMAND_ID_TIME.as_secs() > 4 * (PARKING_TIME_MAX.as_secs() + LINK_TIMEOUT.as_secs()));
const _: () = assert!(IDEMPOTENCY_KEY_BYTES_MAX + "key::999999999".len() <= COMMAND_ID_BYTES_MAX);
const _: () = assert!(LINK_UNTAKEN_BYTES_MAX < ASKED_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX < PARKING_BYTES_MAX && PAYLOAD_BYTES_MAX < LINK_UNTAKEN_BYTES_MAX);
const _: () =
    assert!(PEER_PART_BYTES < PEER_WHOLE_BYTES_MAX && PEER_WHOLE_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX);
const _: () = assert!(GRPC_MESSAGE_BYTES_MAX <= PEER_MESSAGE_BYTES_MAX);
const _: () = assert!(PAGE_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX);
const _: () = assert!(PEER_MESSAGE_BYTES_MAX <= PEER_JOINED_BYTES_MAX);
// A view and one member more fit into a message, in a Hello too, with epochs and heads of a few bytes; and as
// many ordinary members as a cluster may have fit into a view.
const _: () = assert!(VIEW_BYTES_MAX + MEMBER_BYTES_MAX + KIB < GRPC_MESSAGE_BYTES_MAX);
const _: () = assert!(MEMBERS_MAX * 2 * KIB <= VIEW_BYTES_MAX && 2 * VIEW_BYTES_MAX <= VIEWS_KEPT_BYTES_MAX);
// Every term that is believed can be superseded many times before the terms end.
const _: () =
    assert!(2 * VIEW_ASK_GRACE.as_millis() + VIEW_ASK_AGAIN.as_millis() < LINK_TIMEOUT.as_millis() / 4);
const _: () = assert!(3 * LEDGER_RENEW.as_millis() <= LEDGER_LEASE.as_millis());
const _: () = assert!(LEDGER_VIEW_BYTES_MAX + MEMBER_BYTES_MAX + 8 * LEDGER_REMOVED_MAX < 3 * MIB / 2);
const _: () = assert!(LEDGER_VIEWS_MAX + 2 <= 128 && MEMBERS_MAX * KIB <= LEDGER_VIEW_BYTES_MAX);
const _: () = assert!(TERM_STEP * 65_536 <= TERM_LEAP_MAX && TERM_LEAP_MAX * 65_536 <= TERM_FIRST_MAX);
const _: () = assert!(TERM_FIRST_MAX < TERM_MAX / 2 && TERM_MAX < u64::MAX / 2);
// Kubernetes kills 30 s after SIGTERM.
const _: () = assert!(READY_DELAY.as_secs() + DRAIN_TIME.as_secs() < 25);
const _: () = assert!(MESSAGE_BYTES_MAX < OUTBOX_BYTES_MAX && PAYLOAD_BYTES_MAX <= OUTBOX_BYTES_MAX);
// A history of one group and a message of any size fit, in every form in which they are kept.
const _: () = assert!(4 * PAYLOAD_BYTES_MAX < RETAINED_APP_BYTES_LEAST);
const _: () =
    assert!(8 * HISTORY_BYTES_MAX <= RETAINED_APP_BYTES_MAX && RETAINED_APP_BYTES_MAX <= RETAINED_BYTES_MAX);
const _: () = assert!(OUTBOX_LOW_WATER_BYTES < OUTBOX_BYTES_MAX);
const _: () = assert!(64 * OUTBOX_BYTES_MAX <= OUTBOXES_BYTES_MAX);
const _: () =
    assert!(PAYLOAD_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX && PAYLOAD_BYTES_MAX <= MESSAGE_BYTES_HIGHEST);
// The largest message travels: as an event, as a command, over a link, and into an outbox, also if JSON makes
// it six times as long.
const _: () = assert!(NAMES_PER_COMMAND_MAX * (NAME_BYTES_MAX + 8) < COMMAND_REST_BYTES);
const _: () = assert!(MESSAGE_BYTES_HIGHEST + COMMAND_REST_BYTES < GRPC_MESSAGE_BYTES_HIGHEST);
const _: () = assert!(MESSAGE_BYTES_HIGHEST + SESSION_BYTES_MAX < GRPC_MESSAGE_BYTES_HIGHEST);
const _: () = assert!(GRPC_MESSAGE_BYTES_HIGHEST < PEER_JOINED_BYTES_MAX);
const _: () = assert!(6 * MESSAGE_BYTES_HIGHEST + FRAME_OVERHEAD_BYTES < OUTBOX_BYTES_HIGHEST);
const _: () =
    assert!(12 * EVENT_NAME_BYTES_MAX < FRAME_OVERHEAD_BYTES && 12 * NAME_BYTES_MAX < FRAME_OVERHEAD_BYTES);
const _: () = assert!(FIRST_BYTE_TIME_MAX.as_secs() <= HANDSHAKE_TIME_MAX.as_secs());
const _: () = assert!(API_QUERY_BYTES_MAX < HANDSHAKE_BYTES_MAX);
// One app's share takes the largest event that may be configured, in JSON.
const _: () = assert!(6 * PAYLOAD_BYTES_MAX < API_BODIES_BYTES_MAX / 2);
const _: () = assert!(2 * (JSON_GROWTH_MAX * PAYLOAD_BYTES_MAX + COMMAND_REST_BYTES) < JSON_BODIES_BYTES_MAX);
const _: () = assert!(API_BODIES_BYTES_LEAST <= API_BODIES_BYTES_MAX);
const _: () = assert!(FAREWELL_TIME_MAX.as_secs() < DRAIN_TIME.as_secs());
const _: () = assert!(SILENCE_MAX.as_secs() > 2 * PING_INTERVAL.as_secs());
// What a client or caller may send fits, also when JSON makes it longer.
const _: () = assert!(2 * PAYLOAD_BYTES_MAX < WEBHOOK_QUEUE_BYTES_MAX);
const _: () = assert!(2 * PAYLOAD_BYTES_MAX < WEBHOOK_INBOX_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX < PUSHER_WATCH_BYTES_MAX);
const _: () = assert!(PUSHER_WATCH_MESSAGE_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX);
const _: () = assert!(TAPS_MAX == u8::BITS as usize);
const _: () = assert!(TAP_PAYLOAD_BYTES_MAX as usize + 8 * NAME_BYTES_MAX < TAP_MESSAGE_BYTES_MAX);
const _: () = assert!(TAP_MESSAGE_BYTES_MAX < TAP_BYTES_MAX && TAP_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX);
const _: () = assert!(WEBHOOK_BATCH_BYTES_MAX < WEBHOOK_QUEUE_BYTES_MAX);
const _: () = assert!(WEBHOOK_QUEUE_BYTES_MAX <= WEBHOOK_SPOOL_BYTES_MAX);
const _: () = assert!(BACKEND_CONNECT_TIME_MAX.as_secs() < WEBHOOK_POST_TIME_MAX.as_secs());
const _: () = assert!(WEBHOOK_RETRY_WAIT_MAX.as_secs() < WEBHOOK_RETRY_TIME_MAX.as_secs());
