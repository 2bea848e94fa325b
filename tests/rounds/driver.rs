//! Carries the schedule out, and writes down what was done to whom and when.

use tokio::time::sleep_until;

use crate::{
    cluster::Cluster,
    faults::{Fault, Step},
    record::{Deed, DeedKind, Micros},
};

/// What was done in a round.
#[derive(Default)]
pub struct Done {
    pub deeds: Vec<Deed>,
    /// From when until when nothing was wrong.
    pub quiet: Vec<(Micros, Micros)>,
}

/// Until the last fault is mended. The schedule counts from `begun_ms`.
pub async fn drive(cluster: &mut Cluster, steps: &[Step], begun_ms: u64) -> Done {
    let mut done = Done::default();
    let mut mended = cluster.ground.now();
    for step in steps {
        let step = Step { at_ms: step.at_ms + begun_ms, until_ms: step.until_ms + begun_ms, ..*step };
        sleep_until(cluster.ground.at(step.at_ms)).await;
        done.quiet.push((mended, cluster.ground.now()));
        println!("{:>6} ms  {:?} until {} ms", cluster.ground.now() / 1000, step.fault, step.until_ms);
        carry_out(cluster, &step, &mut done).await;
        mended = cluster.ground.now();
    }
    done.quiet.push((mended, Micros::MAX));
    done
}

async fn carry_out(cluster: &mut Cluster, step: &Step, done: &mut Done) {
    let until = cluster.ground.at(step.until_ms);
    match step.fault {
        Fault::Kill { gateway, fresh } => {
            note(cluster, gateway, DeedKind::Killed, done);
            cluster.gateways[gateway].process.kill();
            cluster.ground.set_down(gateway, true);
            sleep_until(until).await;
            cluster.start_again(gateway, fresh).await;
        }
        Fault::Stop { gateway, fresh } => {
            note(cluster, gateway, DeedKind::Stopped, done);
            cluster.gateways[gateway].process.signal("TERM");
            let status = cluster.gateways[gateway].process.ended().await;
            cluster.ground.set_down(gateway, true);
            if !status.success() {
                cluster.errors.push(format!("gateway {gateway} stopped with {status}"));
            }
            sleep_until(until).await;
            cluster.start_again(gateway, fresh).await;
        }
        Fault::Pause { gateway } => {
            note(cluster, gateway, DeedKind::Paused, done);
            cluster.gateways[gateway].process.signal("STOP");
            sleep_until(until).await;
            cluster.gateways[gateway].process.signal("CONT");
        }
        Fault::Together { gateway } => {
            note(cluster, gateway, DeedKind::Killed, done);
            cluster.kill_register();
            cluster.gateways[gateway].process.kill();
            cluster.ground.set_down(gateway, true);
            sleep_until(until).await;
            cluster.start_register();
            cluster.start_again(gateway, true).await;
        }
        Fault::Unheard { gateway } => {
            note(cluster, gateway, DeedKind::Unheard, done);
            cluster.cut_from_register(gateway, true);
            sleep_until(until).await;
            cluster.cut_from_register(gateway, false);
        }
        Fault::Add => cluster.add_gateway().await,
        Fault::Register => {
            cluster.kill_register();
            sleep_until(until).await;
            cluster.start_register();
        }
        Fault::Cut { from, to, how, both } => {
            let pairs = if both { vec![(from, to), (to, from)] } else { vec![(from, to)] };
            for (from, to) in &pairs {
                cluster.cut(*from, *to, how);
            }
            sleep_until(until).await;
            for (from, to) in pairs {
                cluster.mend(from, to, how);
            }
        }
    }
}

fn note(cluster: &Cluster, gateway: usize, kind: DeedKind, done: &mut Done) {
    let pid = cluster.gateways[gateway].process.id();
    done.deeds.push(Deed { pid, at: cluster.ground.now(), kind });
}
