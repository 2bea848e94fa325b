//! Screens, as they are drawn.

use broadgate_business::v1::{
    Coverage, Epoch, GatewayCounters, GatewayStatus, Member, MemberState, Role, ShardStatus, StatusReply,
    View, WorkerStatus,
};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::*;

fn counters(at: u64, scale: u64) -> GatewayCounters {
    GatewayCounters {
        at_us: at * 1_000_000,
        messages_in: at * 70 * scale,
        messages_out: at * 52_000 * scale,
        drops: [("slow".to_owned(), 0)].into(),
        outboxes_bytes: 44 * scale * scale * 1_048_576,
        slow: scale,
        shards: [62, 48, 51, 60]
            .map(|percent| ShardStatus { cpu_us: at * percent * 10_000, ..Default::default() })
            .into(),
        homes_busy_us: at * 310_000,
        ..GatewayCounters::default()
    }
}

fn picture(at: u64) -> TopPicture {
    let member = |name: &str| {
        let mut member = Member { incarnation: name.into(), name: name.into(), ..Member::default() };
        member.set_role(Role::Gateway);
        member.set_state(MemberState::Ready);
        member
    };
    let gateway = |(name, scale): (&str, u64)| GatewayStatus {
        incarnation: name.into(),
        name: name.into(),
        clients: 4_200 * scale,
        counters: Some(counters(at, scale)),
        ..GatewayStatus::default()
    };
    let group = |name: &str, rate: f64| TopGroup {
        app: "shop".into(),
        group: name.into(),
        home: "gw-2".into(),
        clients: 9_310,
        messages_per_s: rate,
        deliveries_per_s: rate * 9_310.0,
        bytes_per_s: rate * 1e6,
        drops_per_s: 0.0,
    };
    let worker = WorkerStatus {
        incarnation: "w".into(),
        name: "chat-1".into(),
        services: vec!["default".into()],
        clients: 8_400,
        events_unanswered: 7,
        oldest_unanswered_s: 41,
        gateways: 2,
        events_sent: at * 640,
        answers_timed: at * 10,
        answers_us: at * 10 * 1_800,
    };
    TopPicture {
        at: Duration::from_secs(at),
        status: StatusReply {
            view: Some(View {
                epoch: Some(Epoch { term: 7, count: 41 }),
                members: ["gw-3", "gw-1", "gw-2"].map(member).into(),
                ..View::default()
            }),
            gateways: [("gw-1", 1), ("gw-2", 2)].map(gateway).into(),
            workers: vec![worker],
            ..StatusReply::default()
        },
        top: Some(TopReply {
            measured_ms: 1000,
            groups: vec![group("orders.eu", 18.0), group("evil\u{1b}[2J", 0.5)],
            coverage: Some(Coverage { complete: false, missing: vec!["gw-3".into()], ..Coverage::default() }),
            ..TopReply::default()
        }),
    }
}

fn state() -> TopState {
    let mut state = TopState { cluster: "prod".into(), ..TopState::default() };
    state.answered(picture(10), TopView::Groups);
    state.answered(picture(12), TopView::Groups);
    state
}

/// What a terminal of this size shows, without spaces at the ends of lines.
fn drawn(state: &TopState, now: u64, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| render(frame, state, Duration::from_secs(now))).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(row).collect()
}

fn press(state: &mut TopState, letter: char) {
    state.key(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE));
}

#[test]
fn the_screen_of_groups() {
    assert_eq!(
        drawn(&state(), 14, 80, 24),
        [
            "prod  epoch 7.41  12,600 clients  in 210/s  out 156k/s  drops 0/s  slow 3    2 s",
            "Without gw-3: the list below is incomplete.",
            "GATEWAY  STATE  CLIENTS  IN/S  OUT/S  SLOW  HOMES  SHARDS BUSY %     OUTBOX",
            "gw-1     ready    4,200    70    52k     1   31 %  62 48 51 60     44.0 MiB",
            "gw-2     ready    8,400   140   104k     2   31 %  62 48 51 60    176.0 MiB",
            "gw-3     NO ANSWER for 4 s (ready)",
            "",
            "GROUP               HOME  MEMBERS  MSG/S  OUT/S*    BYTES/S  DROPS/S",
            "shop/orders.eu      gw-2    9,310     18    168k   17.2 MiB        0",
            "shop/evil\\u{1b}[2J  gw-2    9,310    0.5    4.7k  488.3 KiB        0",
        ]
        .into_iter()
        .map(str::to_owned)
        .chain(std::iter::repeat_n(String::new(), 13))
        .chain(["g c a w l views  s sort  / filter  space pause  y print the command  q quit".to_owned()])
        .collect::<Vec<_>>()
    );
}

#[test]
fn the_first_screen_has_no_rates_and_says_so() {
    let mut state = TopState { cluster: "127.0.0.1:7200".into(), ..TopState::default() };
    assert_eq!(drawn(&state, 1, 60, 8)[0], "127.0.0.1:7200  no answer yet");
    let mut first = picture(10);
    first.top.as_mut().unwrap().measured_ms = 0;
    state.answered(first, TopView::Groups);
    let lines = drawn(&state, 10, 100, 12);
    assert!(lines[0].contains("in ?/s  out ?/s") && lines[1].starts_with("Measuring"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("gw-1") && line.contains('?')), "{lines:#?}");
}

#[test]
fn every_view_fits_every_terminal() {
    let mut state = state();
    for view in "gcawl".chars() {
        press(&mut state, view);
        let shown = state.view;
        state.answered(TopPicture { at: Duration::from_secs(14), ..picture(14) }, shown);
        for (width, height) in [(1, 1), (20, 5), (40, 14), (80, 24), (300, 90)] {
            let lines = drawn(&state, 15, width, height);
            assert_eq!(lines.len(), usize::from(height));
            if width >= 40 {
                let text = lines.join("\n");
                assert!(text.contains("gw-1") && text.contains("NO ANSWER"), "{view} {width}: {text}");
                assert!(lines.last().unwrap().starts_with("g c a w l views"), "{text}");
            }
        }
    }
}

/// On a low screen, those that answer make room for those that do not.
#[test]
fn gateways_that_do_not_answer_are_always_seen() {
    let lines = drawn(&state(), 15, 80, 10);
    assert!(lines.iter().any(|line| line.starts_with("gw-3     NO ANSWER")), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line == "2 more gateways")
            && lines.iter().any(|line| line.starts_with("GROUP")),
        "{lines:#?}"
    );
}

#[test]
fn workers_are_listed_with_their_answer_times() {
    let mut state = state();
    press(&mut state, 'w');
    state.answered(picture(14), TopView::Workers);
    let lines = drawn(&state, 14, 90, 20);
    let worker = lines.iter().find(|line| line.starts_with("chat-1")).unwrap();
    let cells: Vec<&str> = worker.split_whitespace().collect();
    assert_eq!(cells, ["chat-1", "default", "8,400", "7", "41", "s", "640", "1.8", "ms", "2"]);
    press(&mut state, 's');
    assert!(drawn(&state, 14, 90, 20).iter().any(|line| line.contains("UNANSWERED*")));
}

#[test]
fn troubles_are_said_in_words() {
    let mut state = state();
    state.failed("gw-1:7200 refused \u{9b}31m".into(), Duration::from_secs(13));
    press(&mut state, ' ');
    press(&mut state, '/');
    press(&mut state, 'x');
    let text = drawn(&state, 20, 80, 24).join("\n");
    for words in ["NO ANSWER for 7 s: gw-1:7200 refused \\u{9b}31m", "PAUSED", "filter: x_", "enter keeps"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("orders.eu"), "it is filtered: {text}");
}

#[test]
fn an_app_shows_the_limit_that_is_nearest() {
    let app = |clients, max, here, here_max| {
        limit(&TopApp {
            clients,
            connections_max: max,
            clients_at_a_gateway: here,
            connections_per_gateway_max: here_max,
            ..TopApp::default()
        })
    };
    assert_eq!(app(5, 0, 5, 0), "none");
    assert_eq!(app(1_204, 5_000, 700, 0), "24 % of 5,000");
    assert_eq!(app(1_204, 5_000, 700, 1_000), "70 % of 1,000 a gateway");
    assert_eq!(app(10, 0, 10, 20), "50 % of 20 a gateway");
}

#[test]
fn many_shards_are_summed_up() {
    assert_eq!(shards(&[62, 48]), "62 48");
    assert_eq!(shards(&[10; 31].into_iter().chain([71]).collect::<Vec<_>>()), "max 71, mean 11 of 32");
}

#[test]
fn scripts_get_rates_and_the_contracts_rows() {
    let value = json(&state()).unwrap();
    assert_eq!((&value["epoch"], &value["view"]), (&"7.41".into(), &"groups".into()));
    assert_eq!(value["gateways"][1]["messages_out_per_s"], 104_000.0);
    assert_eq!(
        (&value["gateways"][2]["answered"], &value["gateways"][2]["clients"]),
        (&false.into(), &Value::Null)
    );
    assert_eq!(value["groups"][0]["group"], "orders.eu");
    let text = text(&state(), Duration::from_secs(12), None);
    assert!(text.contains("shop/orders.eu") && !text.contains("q quit"), "{text}");
}

#[test]
fn callers_are_listed_with_their_gateways() {
    let mut state = state();
    press(&mut state, 'l');
    assert_eq!((state.view, state.order), (TopView::Callers, TopOrder::Out));
    let caller = |caller: &str, commands_per_s: f64, gateways: &[&str]| TopCaller {
        caller: caller.into(),
        commands_per_s,
        sends_per_s: commands_per_s / 2.0,
        bytes_per_s: commands_per_s * 512.0,
        commands: 4_711,
        last_at_ms: 1_700_000_000_000,
        gateways: gateways.iter().map(ToString::to_string).collect(),
        ..TopCaller::default()
    };
    let mut next = picture(14);
    next.top = Some(TopReply {
        measured_ms: 10_000,
        callers: vec![
            caller("app:shop/b6e2", 312.0, &["gw-1", "gw-2"]),
            caller("token:a\u{1b}nn", 0.1, &["gw-1"]),
        ],
        ..TopReply::default()
    });
    state.answered(next, TopView::Callers);
    let screen = drawn(&state, 14, 100, 24);
    let rows = &screen[6..9];
    assert_eq!(
        rows,
        [
            "CALLER           COMMANDS/S*  SENDS/S    BYTES/S  REFUSED/S  COMMANDS          LAST  GATEWAYS",
            "app:shop/b6e2            312      156  156.0 KiB          0     4,711  22:13:20.000  gw-1,gw-2",
            "token:a\\u{1b}nn          0.1      0.1       51 B          0     4,711  22:13:20.000  gw-1",
        ]
    );
    assert_eq!(json(&state).unwrap()["callers"][0]["caller"], "app:shop/b6e2");
}
