//! What is measured, and what it must reach. The targets are those of the issue "The fast path".

/// Which clients connect, and by what their messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Raw,
    /// Pusher clients, messages by the SDK.
    PusherSdk,
    /// Pusher clients, messages by the API's `batch_events`.
    PusherApi,
    /// Pusher clients, each message by an `events` of the API.
    PusherEvents,
    /// Socket.IO clients, messages by the SDK.
    SocketIo,
}

/// What the ceiling does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Against {
    /// The same, with merged writes; the row is void if it takes more µs of CPU per delivery.
    Merged { cpu_us_max: Option<f64> },
    /// The same, with one write per delivery.
    Single { cpu_us_max: Option<f64> },
    /// The same without TLS, at the same cluster.
    Plain,
    /// The same with Pusher clients, at the same cluster.
    Pusher,
    /// Nothing: the target is absolute.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    /// Of the ceiling's.
    RatioMin(f64),
    RatioMax(f64),
    Max(f64),
    /// Only what must be 0.
    Whole,
    /// It is reported, and not bound.
    Told,
}

/// One row of the table.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// The bench's subcommand and flags, without those that say where.
    pub(super) args: &'static str,
    pub(super) gateways: usize,
    pub(super) way: Way,
    /// Clients come by TLS.
    pub(super) is_tls: bool,
    pub(super) against: Against,
    /// The JSON pointer of the figure, and its unit.
    pub(super) figure: &'static str,
    pub(super) unit: &'static str,
    pub(super) goal: Goal,
    /// JSON pointers of what must be 0.
    pub(super) zero: &'static [&'static str],
    /// Every run has a cluster of its own, since the figure tells what is left of runs before.
    pub(super) fresh: bool,
    pub(super) runs_max: usize,
}

const RATE: &str = "/deliveries_per_s";
const ROW: Row = Row {
    name: "",
    about: "",
    args: "",
    gateways: 1,
    way: Way::Raw,
    is_tls: false,
    against: Against::Merged { cpu_us_max: None },
    figure: RATE,
    unit: "/s",
    goal: Goal::Told,
    zero: &["/missing", "/lost", "/doubled", "/disordered", "/closed"],
    fresh: false,
    runs_max: usize::MAX,
};
/// At 1,000 clients, so says the issue; more is no ceiling.
const MERGED: Against = Against::Merged { cpu_us_max: Some(1.0) };
const SINGLE: Against = Against::Single { cpu_us_max: Some(5.2) };
const FANOUT_1000: &str = "fanout --clients 1000 --messages 4000";
const FANOUT_10000: &str = "fanout --clients 10000 --messages 400";
const IDLE_10000: &str = "idle --clients 10000 --join --hold 2s";
const IDLE_16000: &str = "idle --clients 16000 --join --hold 2s";

fn fanouts() -> Vec<Row> {
    let ratio = Goal::RatioMin;
    vec![
        Row {
            name: "fanout-1000",
            about: "one group of 1,000, 8 in flight",
            args: FANOUT_1000,
            against: MERGED,
            goal: ratio(0.7),
            ..ROW
        },
        Row {
            name: "fanout-10000",
            about: "one group of 10,000, 8 in flight",
            args: FANOUT_10000,
            goal: ratio(0.7),
            ..ROW
        },
        Row {
            name: "two-gateways-1000",
            about: "the same 1,000 on two gateways",
            args: FANOUT_1000,
            gateways: 2,
            against: MERGED,
            goal: ratio(0.6),
            ..ROW
        },
        Row {
            name: "two-gateways-10000",
            about: "the same 10,000 on two gateways",
            args: FANOUT_10000,
            gateways: 2,
            goal: ratio(0.6),
            ..ROW
        },
        Row {
            name: "single-1000",
            about: "1 in flight, against one write per delivery",
            args: "fanout --clients 1000 --messages 1000 --in-flight 1",
            against: SINGLE,
            goal: ratio(0.9),
            ..ROW
        },
    ]
}

fn channels() -> Vec<Row> {
    let ratio = Goal::RatioMin;
    vec![
        Row {
            name: "pusher-sdk-1000",
            about: "a channel of 1,000, sent by the SDK",
            args: FANOUT_1000,
            way: Way::PusherSdk,
            against: MERGED,
            goal: ratio(0.6),
            ..ROW
        },
        Row {
            name: "pusher-sdk-10000",
            about: "a channel of 10,000, sent by the SDK",
            args: FANOUT_10000,
            way: Way::PusherSdk,
            goal: ratio(0.6),
            ..ROW
        },
        Row {
            name: "pusher-api-1000",
            about: "a channel of 1,000, sent by batch_events",
            args: FANOUT_1000,
            way: Way::PusherApi,
            against: MERGED,
            goal: ratio(0.6),
            ..ROW
        },
        Row {
            name: "pusher-api-10000",
            about: "a channel of 10,000, sent by batch_events",
            args: FANOUT_10000,
            way: Way::PusherApi,
            goal: ratio(0.6),
            ..ROW
        },
        // Few clients: the requests are what takes the time.
        Row {
            name: "pusher-events-10",
            about: "a channel of 10, sent by one POST /events each",
            args: "fanout --clients 10 --messages 10000",
            way: Way::PusherEvents,
            against: Against::Nothing,
            ..ROW
        },
        Row {
            name: "socketio-sdk-1000",
            about: "a channel of 1,000 by Socket.IO, against Pusher clients",
            args: FANOUT_1000,
            way: Way::SocketIo,
            against: Against::Pusher,
            goal: ratio(0.9),
            ..ROW
        },
    ]
}

fn many() -> Vec<Row> {
    vec![
        Row {
            name: "groups-8",
            about: "10,000 in 1,000 groups of 10, 8 in flight",
            args: "groups --clients 10000 --groups 1000 --messages 40000",
            goal: Goal::RatioMin(0.5),
            ..ROW
        },
        Row {
            name: "groups-1000",
            about: "10,000 in 1,000 groups of 10, 1,000 in flight",
            args: "groups --clients 10000 --groups 1000 --messages 40000 --in-flight 1000",
            goal: Goal::RatioMin(0.5),
            ..ROW
        },
    ]
}

fn latencies() -> Vec<Row> {
    let (figure, unit) = ("/latency/p99_ms", "ms");
    vec![
        Row {
            name: "p99-200",
            about: "p99 at 200 messages/s to 1,000",
            args: "fanout --clients 1000 --messages 1000 --rate 200 --in-flight 64",
            figure,
            unit,
            goal: Goal::RatioMax(2.0),
            ..ROW
        },
        Row {
            name: "p99-20",
            about: "p99 at 20 messages/s to 1,000",
            args: "fanout --clients 1000 --messages 100 --rate 20 --in-flight 64",
            figure,
            unit,
            ..ROW
        },
        Row {
            name: "echo-100",
            about: "echo through a worker, 100 clients",
            args: "echo --clients 100 --time 3s",
            figure: "/echoes_per_s",
            goal: Goal::RatioMin(0.5),
            zero: &["/wrong", "/silent", "/closed"],
            ..ROW
        },
        Row {
            name: "echo-cpu",
            about: "CPU of all processes per echo",
            args: "echo --clients 100 --time 3s",
            against: Against::Nothing,
            figure: "/server_cpu_us_per_echo",
            unit: "µs",
            goal: Goal::Max(12.0),
            zero: &["/wrong", "/silent", "/closed"],
            ..ROW
        },
    ]
}

fn clients() -> Vec<Row> {
    let idle = Row {
        against: Against::Nothing,
        figure: "/bytes_per_client",
        unit: "B",
        goal: Goal::Max(3072.0),
        zero: &[],
        fresh: true,
        ..ROW
    };
    let pusher = Row { way: Way::PusherSdk, goal: Goal::Max(3584.0), ..idle.clone() };
    vec![
        Row {
            name: "memory-10000",
            about: "memory per idle client in a group, 10,000",
            args: IDLE_10000,
            ..idle.clone()
        },
        Row { name: "memory-16000", about: "the same, 16,000", args: IDLE_16000, ..idle.clone() },
        Row {
            name: "memory-pusher-10000",
            about: "memory per subscribed Pusher client, 10,000",
            args: IDLE_10000,
            ..pusher.clone()
        },
        Row { name: "memory-pusher-16000", about: "the same, 16,000", args: IDLE_16000, ..pusher },
        Row {
            name: "memory-socketio-10000",
            about: "memory per subscribed Socket.IO client, 10,000",
            args: IDLE_10000,
            way: Way::SocketIo,
            ..idle.clone()
        },
        Row {
            name: "rest-10000",
            about: "CPU at rest, 10,000 clients, two rounds of pings",
            args: "idle --clients 10000 --join --hold 55s",
            figure: "/server_cpu_at_rest",
            unit: "of a core",
            goal: Goal::Max(0.01),
            runs_max: 1,
            ..idle
        },
        Row {
            name: "connects",
            about: "10,000 clients connect, 64 handshakes at once",
            args: "idle --clients 10000 --hold 0s",
            figure: "/connects_per_s",
            goal: Goal::RatioMin(0.6),
            zero: &[],
            ..ROW
        },
        Row {
            name: "storm",
            about: "a gateway with 14,000 clients dies; all are served by the other, whose 2,000 miss nothing",
            args: "storm --clients 14000 --stay 2000",
            gateways: 2,
            against: Against::Nothing,
            figure: "/served_s",
            unit: "s",
            goal: Goal::Whole,
            zero: &[
                "/refused_without_time",
                "/stayed/missing",
                "/stayed/lost",
                "/stayed/doubled",
                "/stayed/disordered",
                "/stayed/closed",
            ],
            fresh: true,
            ..ROW
        },
    ]
}

/// Clients by TLS; what stands for the ceiling are the same clients without.
fn tls() -> Vec<Row> {
    let tls = Row { is_tls: true, against: Against::Plain, ..ROW };
    vec![
        Row {
            name: "tls-fanout-1000",
            about: "one group of 1,000 over wss, against ws",
            args: FANOUT_1000,
            goal: Goal::RatioMin(0.85),
            ..tls.clone()
        },
        Row {
            name: "tls-echo-100",
            about: "echo through a worker over wss, against ws",
            args: "echo --clients 100 --time 3s",
            figure: "/echoes_per_s",
            zero: &["/wrong", "/silent", "/closed"],
            ..tls.clone()
        },
        Row {
            name: "tls-connects",
            about: "4,000 clients connect over wss, against ws",
            args: "idle --clients 4000 --hold 0s",
            figure: "/connects_per_s",
            zero: &[],
            ..tls.clone()
        },
        Row {
            name: "tls-memory-4000",
            about: "memory per idle client in a group over wss, against ws",
            args: "idle --clients 4000 --join --hold 2s",
            figure: "/bytes_per_client",
            unit: "B",
            goal: Goal::Max(6656.0),
            zero: &[],
            fresh: true,
            ..tls
        },
    ]
}

pub(super) fn all() -> Vec<Row> {
    [fanouts(), channels(), many(), latencies(), clients(), tls()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let mut names: Vec<_> = all().iter().map(|row| row.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert!(names.len() == count && names.iter().all(|name| !name.is_empty()));
    }
}
