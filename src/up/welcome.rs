//! What `up` prints when the cluster is ready. Pure, but for the question whether colours are wanted.

use std::{io::IsTerminal as _, net::SocketAddr};

use super::{app::DemoAppsFile, certificates::DemoCertificates, ports::Ports};
use crate::apps::Reach;

/// Lines longer than this break where a shell allows it.
const COLUMNS: usize = 80;
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const LINK: &str = "\x1b[1;36m";
const PLAIN: &str = "\x1b[0m";

pub(super) struct WelcomeScreen<'a> {
    pub(super) ports: &'a Ports,
    pub(super) apps: Option<&'a DemoAppsFile>,
    /// With which the cluster and its client ports speak TLS.
    pub(super) tls: Option<&'a DemoCertificates>,
    /// The dashboard has certificates of its own.
    pub(super) dashboard_tls: bool,
    pub(super) workers: Vec<String>,
    pub(super) paint: bool,
}

/// On a terminal, unless NO_COLOR is set to anything or the terminal knows no colours.
pub(super) fn may_paint() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    std::io::stdout().is_terminal()
        && set("NO_COLOR").is_none()
        && set("TERM").is_none_or(|term| term != "dumb")
}

/// The processes, what to do with them, and last, alone, where to look. No secret is in it.
pub(super) fn text(welcome: &WelcomeScreen<'_>) -> String {
    let paint = |code: &str, text: &str| {
        if welcome.paint { format!("{code}{text}{PLAIN}") } else { text.to_owned() }
    };
    let row = |label: &str, text: &str| {
        let gap = " ".repeat(10usize.saturating_sub(label.len()).max(1));
        format!("{}{gap}{text}\n", paint(DIM, label))
    };
    let mut text = format!("\n{}\n\n{}\n", paint(BOLD, "The cluster is ready."), processes(welcome));
    for (label, command) in commands(welcome) {
        text += &row(label, &command);
    }
    if let Some(tls) = welcome.tls {
        text += &row("Trust", &format!("{} (the CA of this run, for browsers)", tls.ca().display()));
    }
    text += &row("Stop", "Ctrl-C");
    text.push('\n');
    for (label, url) in pages(welcome) {
        text += &row(label, &paint(LINK, &url));
    }
    text
}

fn processes(welcome: &WelcomeScreen<'_>) -> String {
    let ports = welcome.ports;
    let local = |port: u16| format!("127.0.0.1:{port}");
    let none = || "-".to_owned();
    let mut metrics = ports.metrics.iter().map(|&port| local(port));
    let mut metrics = || metrics.next().unwrap_or_else(none);
    let mut rows = vec![["register".to_owned(), none(), local(ports.register), metrics()]];
    for (index, (&internal, client)) in ports.internal.iter().zip(&ports.clients).enumerate() {
        rows.push([format!("gateway-{}", index + 1), client.to_string(), local(internal), metrics()]);
    }
    for name in &welcome.workers {
        rows.push([name.clone(), none(), none(), metrics()]);
    }
    let table = crate::output::table(["PROCESS", "CLIENTS", "INTERNAL", "METRICS"], rows);
    table.lines().map(str::trim_start).fold(String::new(), |text, line| text + line + "\n")
}

/// Commands to copy, by what they are for.
fn commands(welcome: &WelcomeScreen<'_>) -> Vec<(&'static str, String)> {
    let internal = welcome.ports.internal.first().filter(|&&port| port != 7200);
    let addr = internal.map(|port| format!(" --addr 127.0.0.1:{port}")).unwrap_or_default();
    let config = welcome.tls.map(|tls| format!(" --config {}", tls.config().display())).unwrap_or_default();
    let addr = addr + &config;
    let mut commands = vec![
        ("Look", format!("broadgate status{addr}")),
        ("Send", format!("broadgate send{addr} --group lobby 'hello, lobby'")),
    ];
    if let Some(apps) = welcome.apps {
        let path = apps.path.display();
        let command = match apps.pusher_app() {
            Some((app, _)) => {
                let env = format!("broadgate apps env {} --apps {path}", app.id);
                match reach(welcome) {
                    Some(reach) if reach != Reach::listener(([127, 0, 0, 1], 8080).into()) => {
                        let url = format!("--url {}://{}:{}", reach.scheme, reach.host, reach.port);
                        let fits = env.len() + url.len() + 11 <= COLUMNS;
                        format!("{env}{}{url}", if fits { " " } else { " \\\n            " })
                    }
                    _ => env,
                }
            }
            None => format!("broadgate apps new 1    # prints an app with a key: add it to {path}"),
        };
        commands.push(("Laravel", command));
    }
    commands
}

/// The pages to open.
fn pages(welcome: &WelcomeScreen<'_>) -> Vec<(&'static str, String)> {
    let mut pages = Vec::new();
    for (index, client) in welcome.ports.clients.iter().enumerate() {
        let Reach { scheme, host, port } = listener(welcome, *client);
        pages.push((if index == 0 { "Chat" } else { "" }, format!("{scheme}://{host}:{port}/")));
    }
    let app = welcome.apps.and_then(DemoAppsFile::pusher_app);
    if let Some(((app, key), reach)) = app.zip(reach(welcome)) {
        let Reach { scheme, host, port } = reach;
        let url = format!("{scheme}://{host}:{port}/console#app={}&key={}", app.id, key.key);
        pages.push(("Console", url));
    }
    if let Some(port) = welcome.ports.dashboard {
        let scheme = if welcome.dashboard_tls { "https" } else { "http" };
        pages.push(("Dashboard", format!("{scheme}://127.0.0.1:{port}/")));
    }
    pages
}

/// Where browsers find the first gateway.
fn reach(welcome: &WelcomeScreen<'_>) -> Option<Reach> {
    welcome.ports.clients.first().map(|client| listener(welcome, *client))
}

fn listener(welcome: &WelcomeScreen<'_>, client: SocketAddr) -> Reach {
    let scheme = if welcome.tls.is_some() { "https" } else { "http" };
    Reach { scheme, ..Reach::listener(client) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(base: Option<u16>) -> Ports {
        let [register, internal, clients, metrics] =
            base.map_or([7100, 7200, 8080, 9100], |base| [base, base + 10, base + 20, base + 30]);
        Ports {
            register,
            internal: vec![internal, internal + 1],
            clients: [clients, clients + 1].map(|port| ([127, 0, 0, 1], port).into()).to_vec(),
            metrics: (metrics..metrics + 4).collect(),
            dashboard: Some(register + 5),
            notes: Vec::new(),
        }
    }

    #[test]
    fn it_fits_a_terminal_shows_no_secret_and_ends_with_the_pages() {
        let dir = std::env::temp_dir().join(format!("broadgate-up-welcome-{}", std::process::id()));
        let mut apps = DemoAppsFile::open(None, &dir, None).unwrap().unwrap();
        let file = std::fs::read_to_string(&apps.path).unwrap();
        apps.path = "broadgate-state/apps.toml".into();
        let key = apps.pusher_app().unwrap().1.clone();
        assert!(file.contains(key.secret.reveal()));
        for base in [None, Some(27_100)] {
            let ports = ports(base);
            let workers = vec!["chat-1".to_owned()];
            let welcome = |paint| WelcomeScreen {
                ports: &ports,
                apps: Some(&apps),
                tls: None,
                dashboard_tls: false,
                workers: workers.clone(),
                paint,
            };
            let plain = text(&welcome(false));
            for line in plain.lines() {
                assert!(line.chars().count() <= COLUMNS, "{line}");
            }
            assert!(!plain.contains(key.secret.reveal()) && !plain.contains('\x1b'), "{plain}");
            let port = ports.clients[0].port();
            let end = format!(
                "\n\nChat      http://127.0.0.1:{port}/\n          http://127.0.0.1:{}/\n\
                 Console   http://127.0.0.1:{port}/console#app=1&key={}\n\
                 Dashboard http://127.0.0.1:{}/\n",
                port + 1,
                key.key,
                ports.register + 5
            );
            assert!(plain.ends_with(&end), "{plain}");
            assert!(plain.contains("broadgate apps env 1 --apps broadgate-state/apps.toml"), "{plain}");
            assert_eq!(plain.contains("--addr 127.0.0.1:27110"), base.is_some());
            assert_eq!(plain.contains("--url http://127.0.0.1:27120"), base.is_some());
            let painted = text(&welcome(true));
            let bare =
                [BOLD, DIM, LINK, PLAIN].iter().fold(painted.clone(), |text, code| text.replace(code, ""));
            assert!(painted.contains(LINK) && bare == plain, "{painted}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
