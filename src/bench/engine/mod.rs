//! The load: clients on a few epoll threads, which must cost as little as can be, since they share
//! the machine with what they measure.
//!
//! | file | what |
//! |---|---|
//! | `worker/` | one thread's loop over its clients |
//! | `client.rs` | a client, and how it dials |
//! | `window.rs` | which messages are in flight |
//! | `tally.rs` | loss, repeats, order |
//! | `payload.rs` | numbers and times in what is sent |
//! | `part.rs` | clients in other processes |
//! | `clock.rs` | time and CPU time |

mod client;
mod clock;
mod part;
pub(super) mod payload;
mod plan;
mod report_lines;
pub(super) mod serve;
pub(super) mod share;
mod tally;
mod tls;
mod window;
mod worker;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use broadgate::failure::Failure;

use crate::{
    engine::{part::Part, plan::Plan, share::Share},
    load::{Load, progress},
    target::Target,
};

pub(super) use self::{
    clock::{cpu_ns, now_ns},
    tally::Tally,
    window::Window,
    worker::Worker,
};

/// All threads, between two phases.
pub(super) struct Engine {
    pub(super) plan: Arc<Plan>,
    pub(super) workers: Vec<Worker>,
    /// Processes that have the clients instead of this one's threads.
    parts: Vec<Part>,
    /// How many processes there are to be; 0 if the clients are here.
    processes: usize,
    clients: usize,
}

impl Engine {
    pub(super) fn new(load: &Load, groups: u32, in_flight: usize) -> Result<Self, Failure> {
        Self::with(load, groups, in_flight, |_| ())
    }

    pub(super) fn with(
        load: &Load,
        groups: u32,
        in_flight: usize,
        change: impl FnOnce(&mut Plan),
    ) -> Result<Self, Failure> {
        let targets: Result<Vec<_>, _> = load.url.iter().map(|url| Target::parse(url)).collect();
        let threads = usize::from(load.load_threads);
        // Parts have the names of the process that they are parts of.
        let run = load.part.map_or_else(std::process::id, |part| part.run);
        let mut plan = Plan {
            targets: targets.map_err(Failure::Usage)?,
            groups,
            group_names: (0..groups).map(|group| format!("bench-{run}-{group}")).collect(),
            dialing_max: (load.connecting / threads).max(1),
            comes_back: false,
            echo_size: 0,
            reports: false,
            window: Window::new(in_flight),
            live: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        };
        change(&mut plan);
        let plan = Arc::new(plan);
        let (share, processes) = match load.part {
            Some(share) => (Some(share), 0),
            None if load.processes > 1 => (None, usize::from(load.processes)),
            None => (Some(Share { index: 0, count: 1, run: 0 }), 0),
        };
        let mut workers = Vec::new();
        if let Some(share) = share {
            for thread in 0..threads {
                let (me, all) = (share.index * threads + thread, share.count * threads);
                workers.push(Worker::new(Arc::clone(&plan), me, all, load.clients)?);
            }
        }
        let clients = workers.iter().map(Worker::count).sum();
        Ok(Self { plan, workers, parts: Vec::new(), processes, clients })
    }

    /// Connects all clients; tells how long it took.
    pub(super) fn connect(&mut self) -> Result<Duration, Failure> {
        if self.processes > 0 {
            let began = Instant::now();
            self.parts = part::start(&self.plan, self.processes)?;
            return Ok(began.elapsed());
        }
        let bar = progress(self.clients as u64, "connecting");
        let (plan, clients) = (Arc::clone(&self.plan), self.clients);
        let began = Instant::now();
        let patience = Duration::from_secs(20) + Duration::from_millis(clients as u64);
        let took = self.during(|| {
            loop {
                let live = plan.live.load(Ordering::Acquire);
                bar.set_position(live as u64);
                if live >= clients || plan.stop.load(Ordering::Acquire) {
                    return Ok(began.elapsed());
                }
                if began.elapsed() > patience {
                    return Err(Failure::Unreachable(format!(
                        "{live} of {clients} clients within {patience:?}"
                    )));
                }
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        bar.finish_and_clear();
        took
    }

    /// Lets all threads run while this thread does something.
    pub(super) fn during<T>(&mut self, act: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        self.plan.stop.store(false, Ordering::Release);
        let plan = Arc::clone(&self.plan);
        std::thread::scope(|scope| {
            let running: Vec<_> =
                self.workers.iter_mut().map(|worker| scope.spawn(move || worker.run())).collect();
            let done = act();
            plan.stop.store(true, Ordering::Release);
            for worker in running {
                worker.join().map_err(|_| Failure::Failed("a load thread has panicked".to_owned()))??;
            }
            done
        })
    }

    /// What has been counted; parts end with it.
    pub(super) fn tally(&mut self) -> Result<Tally, Failure> {
        let mut all = Tally::new().map_err(|error| Failure::Failed(error.to_string()))?;
        self.workers.iter().for_each(|worker| all.add(&worker.tally));
        for part in &mut self.parts {
            all.add(&part.end()?);
        }
        Ok(all)
    }

    /// Threads that have clients in a group, and how many receivers it has in all.
    pub(super) fn receivers(&self) -> Vec<(u32, u64)> {
        let mut all = vec![(0, 0); self.plan.groups as usize];
        for worker in &self.workers {
            for (group, &members) in all.iter_mut().zip(&worker.members) {
                group.0 += u32::from(members > 0);
                group.1 += u64::from(members);
            }
        }
        for part in &self.parts {
            for (group, (threads, members)) in all.iter_mut().zip(&part.live.receivers) {
                group.0 += threads;
                group.1 += members;
            }
        }
        all
    }

    pub(super) fn part_pids(&self) -> Vec<u32> {
        self.parts.iter().map(Part::pid).collect()
    }

    /// Where each client comes from, and its group: so the cluster's list tells its id.
    pub(super) fn locals(&self) -> Vec<(SocketAddr, u32)> {
        let here = self.workers.iter().flat_map(Worker::locals);
        here.chain(self.parts.iter().flat_map(|part| part.live.locals.iter().copied())).collect()
    }

    /// The last clients of these do not read any more.
    pub(super) fn deafen(&mut self, count: usize) {
        let threads = self.workers.len();
        for (me, worker) in self.workers.iter_mut().enumerate() {
            worker.deafen(count / threads + usize::from(me < count % threads));
        }
    }
}
