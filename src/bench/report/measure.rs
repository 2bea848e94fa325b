//! One row: alternating runs, each by a process of its own.

use std::{
    io::Read as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    result::{Figures, Outcome},
    rows::{Against, Row, Way},
    servers::{APP, Ceiling, Servers},
};
use broadgate::failure::Failure;

/// More than any run takes.
const RUN_TIME_MAX: Duration = Duration::from_secs(180);

/// Measures a row; a failure stands in its place.
pub(super) fn row(row: &Row, runs: usize, threads: Option<u16>) -> Outcome {
    let mut outcome = Outcome::default();
    if let Err(failure) = measure(row, runs.min(row.runs_max), threads, &mut outcome) {
        outcome.failed = Some(failure.to_string());
    }
    outcome
}

fn measure(row: &Row, runs: usize, threads: Option<u16>, outcome: &mut Outcome) -> Result<(), Failure> {
    let ceiling = match row.against {
        Against::Merged { .. } => Some(Ceiling::start("merged", threads)?),
        Against::Single { .. } => Some(Ceiling::start("single", threads)?),
        Against::Plain | Against::Pusher | Against::Nothing => None,
    };
    let start = || Servers::start(row.gateways, row.way == Way::SocketIo);
    let mut servers = if row.fresh { None } else { Some(start()?) };
    for run in 0..runs {
        if row.fresh {
            // The one before must be gone first.
            drop(servers.take());
            servers = Some(start()?);
        }
        let other = match row.against {
            Against::Plain => Some((row.way, false)),
            Against::Pusher => Some((Way::PusherSdk, row.is_tls)),
            _ => None,
        };
        if let Some(other) = other {
            for turn in 0..2 {
                if row.fresh && turn == 1 {
                    drop(servers.take());
                    servers = Some(start()?);
                }
                let Some(servers) = &servers else { continue };
                let is_own = (run + turn) % 2 == 0;
                let how = if is_own { (row.way, row.is_tls) } else { other };
                let figures = figures(row, &bench(row, &against_servers(row, servers, how))?)?;
                if is_own { outcome.broadgate.push(figures) } else { outcome.ceiling.push(figures) }
            }
            continue;
        }
        // Who is first changes, so that neither always finds the machine warm.
        for turn in 0..2 {
            match (&ceiling, &servers) {
                (Some(ceiling), _) if (run + turn) % 2 == 0 => {
                    outcome.ceiling.push(figures(row, &bench(row, &against_ceiling(ceiling))?)?);
                }
                (_, Some(servers)) if (run + turn) % 2 == 1 => {
                    let how = (row.way, row.is_tls);
                    let figures = figures(row, &bench(row, &against_servers(row, servers, how))?)?;
                    outcome.broadgate.push(figures);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn against_ceiling(ceiling: &Ceiling) -> Vec<String> {
    vec![format!("--url=ws://{}/g", ceiling.address), format!("--pid={}", ceiling.pid())]
}

fn against_servers(row: &Row, servers: &Servers, (way, is_tls): (Way, bool)) -> Vec<String> {
    let kind = row.args.split(' ').next().unwrap_or_default();
    let path = match way {
        Way::Raw => "ws".to_owned(),
        Way::PusherSdk | Way::PusherApi | Way::PusherEvents => format!("app/{}", servers.apps.key),
        Way::SocketIo => format!("socket.io/?EIO=4&transport=websocket&key={}", servers.apps.key),
    };
    let mut args: Vec<_> = servers.urls(is_tls).map(|url| format!("--url={url}/{path}")).collect();
    let pids = if kind == "echo" { servers.all() } else { servers.gateways() };
    if kind != "storm" {
        args.extend(pids.iter().map(|pid| format!("--pid={pid}")));
    }
    if kind != "echo"
        && let Some(internal) = servers.internal.last()
    {
        args.push(format!("--addr={internal}"));
    }
    match way {
        Way::Raw => {}
        Way::PusherSdk | Way::SocketIo => args.push(format!("--app={APP}")),
        Way::PusherApi | Way::PusherEvents => {
            let publish = if way == Way::PusherApi { "--publish=api" } else { "--publish=events" };
            args.extend([format!("--app={APP}"), publish.to_owned()]);
            args.push(format!("--apps={}", servers.apps.path.display()));
        }
    }
    if kind == "storm"
        && let (Some(dies), Some(stays)) = (servers.gateways().first(), servers.clients.last())
    {
        args.extend([format!("--kill={dies}"), format!("--stay-url=ws://{stays}/{path}")]);
    }
    args
}

/// Runs the load; what it tells.
fn bench(row: &Row, where_to: &[String]) -> Result<Value, Failure> {
    let mut load = Command::new(std::env::current_exe()?)
        .args(row.args.split(' '))
        .args(where_to)
        .arg("--json")
        .env_remove("BROADGATE_APPS")
        .env_remove("BROADGATE_ADDR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (mut text, mut error) = (String::new(), String::new());
    // What it writes is far less than a pipe holds.
    let began = Instant::now();
    while load.try_wait()?.is_none() {
        if began.elapsed() > RUN_TIME_MAX {
            load.kill()?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if let Some(mut pipe) = load.stdout.take() {
        pipe.read_to_string(&mut text)?;
    }
    if let Some(mut pipe) = load.stderr.take() {
        pipe.read_to_string(&mut error)?;
    }
    // A failed run that has told its figures is judged by them.
    serde_json::from_str(&text).map_err(|_| Failure::Failed(error.trim().to_owned()))
}

fn figures(row: &Row, result: &Value) -> Result<Figures, Failure> {
    let at = |pointer: &str| result.pointer(pointer).and_then(Value::as_f64);
    let figure = at(row.figure);
    let figure = figure.ok_or_else(|| Failure::Failed(format!("the bench does not tell {}", row.figure)))?;
    let cpu = ["delivery", "echo", "connect"];
    let cpu_us = cpu.iter().find_map(|per| at(&format!("/server_cpu_us_per_{per}")));
    let not_zero =
        row.zero.iter().filter_map(|zero| Some((*zero, at(zero)?))).filter(|(_, count)| *count > 0.0);
    let broken = not_zero.map(|(zero, count)| format!("{} {count}", &zero[1..])).collect();
    Ok(Figures {
        figure,
        cpu_us,
        p50_ms: at("/latency/p50_ms"),
        p99_ms: at("/latency/p99_ms"),
        load_us: at("/load_cpu_us_per_delivery"),
        broken,
    })
}
