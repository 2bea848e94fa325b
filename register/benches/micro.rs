//! What the register's state machine and the ring cost, in nanoseconds: with three members, as most
//! clusters have, and with a hundred.
//!
//! ```text
//! cargo bench -p broadgate-benches --bench register             # all
//! cargo bench -p broadgate-benches --bench register -- ring     # some
//! cargo bench -p broadgate-benches --bench register -- --test   # does each run at all?
//! ```

use std::time::Duration;

use broadgate_proto::{
    id::Incarnation,
    limits::{BEAT, LEASE},
    ring::Ring,
    v1::{Hello, Member, MemberState, Role, View},
};
use broadgate_register::server::simulation::{Core, Input, Now, PeerOrigin};
use divan::{Bencher, black_box, counter::ItemsCount};

const SIZES: [u64; 2] = [3, 100];

/// How long each is measured, if `--min-time` does not say otherwise.
const MIN_TIME: Duration = Duration::from_millis(500);

fn main() {
    divan::Divan::default().min_time(MIN_TIME).config_with_args().main();
}

fn gateway(number: u64) -> Member {
    Member {
        incarnation: Incarnation::from_bits(number + 1).to_string(),
        role: Role::Gateway.into(),
        state: MemberState::Ready.into(),
        name: format!("gateway-{number}"),
        address: format!("10.0.0.{number}:7200"),
        ring_version: 1,
        ..Member::default()
    }
}

/// A member's connection has its number.
fn hello(number: u64) -> Input {
    let hello = Hello { member: Some(gateway(number)), view: None, ..Hello::default() };
    Input::Hello { connection: number, origin: PeerOrigin::default(), hello: Box::new(hello) }
}

fn now() -> Now {
    Now { up: Duration::from_secs(1), unix_ms: 1_700_000_000_000 }
}

/// The register of so many gateways, all connected.
fn register(gateways: u64) -> Core {
    let mut core = Core::new(BEAT, LEASE, SIZES[1] as usize).with_view_interval(Duration::ZERO);
    for number in 0..gateways {
        core.apply(hello(number), now());
    }
    assert_eq!(core.view().members.len() as u64, gateways);
    core
}

/// One step of the state machine.
mod step {
    use super::*;

    /// The last of so many members joins, and a view with it is made.
    #[divan::bench(args = SIZES)]
    fn join(bencher: Bencher<'_, '_>, members: u64) {
        bencher.with_inputs(|| (register(members - 1), hello(members - 1))).bench_local_values(
            |(mut core, hello)| {
                let effects = core.apply(hello, now());
                (core, effects)
            },
        );
    }

    #[divan::bench(args = SIZES)]
    fn beat(bencher: Bencher<'_, '_>, members: u64) {
        let mut core = register(members);
        bencher.bench_local(|| core.apply(black_box(Input::Beat { connection: 1, number: 7 }), now()));
    }

    /// A member says that it is ready, or that it drains: each time a view is made.
    #[divan::bench(args = SIZES)]
    fn view_change(bencher: Bencher<'_, '_>, members: u64) {
        let mut core = register(members);
        let mut states = [MemberState::Draining, MemberState::Ready].into_iter().cycle();
        bencher
            .with_inputs(|| states.next().unwrap_or_default())
            .bench_local_values(|state| core.apply(Input::SetState { connection: 1, state }, now()));
    }
}

/// Where topics live.
mod ring {
    use super::*;

    fn view(gateways: u64) -> View {
        View { members: (0..gateways).map(gateway).collect(), ..View::default() }
    }

    /// An item is one look-up, each of another key.
    #[divan::bench(args = SIZES)]
    fn look_up(bencher: Bencher<'_, '_>, gateways: u64) {
        let ring = Ring::of_view(&view(gateways));
        let keys: Vec<String> = (0..1000).map(|number| format!("room-{number}")).collect();
        bencher.counter(ItemsCount::new(keys.len())).bench_local(|| {
            for key in &keys {
                black_box(ring.pick(black_box(key.as_bytes())));
            }
        });
    }

    /// As every gateway does for every view.
    #[divan::bench(args = SIZES)]
    fn of_view(bencher: Bencher<'_, '_>, gateways: u64) {
        let view = view(gateways);
        bencher.bench_local(|| Ring::of_view(black_box(&view)));
    }
}
