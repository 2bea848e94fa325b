//! `broadgate apps`: what the configuration's apps are, a fresh one, and how Laravel finds one.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use broadgate_gateway::apps::{App, WebhookEvent};
use broadgate_proto::limits::IMPORTED_FILE_BYTES_MAX;
use broadgate_tasks::bounded_read::{self, ReadableKind};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    apps::{
        fresh, import,
        laravel::{self, Places, Reach},
        read::{AppsReading, Source},
    },
    failure::Failure,
    options::{AppsFileOption, ConfigFile},
    output::{fitted, print, print_json, screen},
    replaced_file,
};

#[derive(Debug, Args)]
pub(crate) struct AppsArgs {
    #[command(subcommand)]
    command: Option<AppsCommand>,
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    apps: AppsFileOption,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum AppsCommand {
    /// Generate an app with a random key and secret, to paste into the configuration
    New {
        /// The app's id
        id: String,
    },
    /// Convert a laravel-echo-server.json into an app with its secret, and report on each of its settings
    Import {
        /// The laravel-echo-server.json; - reads it from standard input
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
        /// Write the app to this file, which only its owner may read and must not be there yet, and print the
        /// settings that are left to do
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Print an app's settings for Laravel's .env and Echo, including its secret
    Env {
        /// The app's id
        id: String,
        /// URL at which Laravel reaches the gateways [default: the configuration's first web listener]
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// URL at which browsers reach them [default: the same]
        #[arg(long, value_name = "URL")]
        public_url: Option<String>,
    },
}

pub(crate) fn run(args: &AppsArgs) -> Result<(), Failure> {
    match &args.command {
        None => args.list(),
        Some(AppsCommand::New { id }) => {
            fresh::check_id(id)?;
            let app = fresh::Fresh::new(id)?;
            if args.json { print_json(&app.json()) } else { print(&app.toml()) }
        }
        Some(AppsCommand::Import { file, out }) => args.import(file, out.as_deref()),
        Some(AppsCommand::Env { id, url, public_url }) => args.env(id, url.as_deref(), public_url.as_deref()),
    }
}

impl AppsArgs {
    fn read(&self) -> Result<AppsReading, Failure> {
        let source = Source { config: self.file.path(), apps: self.apps.path(), raw: Vec::new() };
        source.read(&mut Vec::new()).map_err(Failure::Usage)
    }

    fn list(&self) -> Result<(), Failure> {
        let reading = self.read()?;
        let table = reading.open().map_err(Failure::Usage)?.load();
        for warning in reading.warnings() {
            say!("broadgate: warning: {warning}");
        }
        if self.json {
            let apps = table.iter().enumerate().map(|(index, app)| as_json(app, reading.place(index)));
            return print_json(&json!({ "apps": apps.collect::<Vec<_>>() }));
        }
        if table.iter().len() == 0 {
            return print("no apps are configured: `broadgate apps new ID` prints one to paste\n");
        }
        print(&as_text(table.iter().map(AsRef::as_ref), screen()))
    }

    fn import(&self, file: &Path, out: Option<&Path>) -> Result<(), Failure> {
        if let Some(out) = out.filter(|out| out.symlink_metadata().is_ok()) {
            let out = out.display();
            return Err(Failure::usage(format!(
                "--out: {out} is there already, and is not overwritten: choose another name, or move it away"
            )));
        }
        let (name, text) = settings_of_other_server(file)?;
        let mut fresh =
            || fresh::Fresh::new("").map(fresh::Fresh::key_and_secret).map_err(|failure| failure.to_string());
        let check_id = |id: &str| fresh::check_id(id).map_err(|failure| failure.to_string());
        let imported = import::import(&text, &mut fresh, &check_id);
        let mut imported = imported.map_err(|sentence| Failure::usage(format!("{name}: {sentence}")))?;
        // A gateway is started in another folder.
        let beside = out.and_then(Path::parent).unwrap_or(Path::new("")).join(import::PASSWORD_FILE);
        imported.expect_password_in(&std::path::absolute(beside)?);
        let Some(out) = out else {
            return if self.json { print_json(&imported.json()) } else { print(&imported.toml()) };
        };
        replaced_file::replace(out, &imported.toml()).map_err(|error| {
            Failure::usage(format!("--out: {} cannot be written: {error}", out.display()))
        })?;
        if self.json { print_json(&imported.json()) } else { print(&imported.to_do(out)) }
    }

    fn env(&self, id: &str, url: Option<&str>, public_url: Option<&str>) -> Result<(), Failure> {
        let table = self.read()?.open().map_err(Failure::Usage)?.load();
        let app = table.by_id(id).ok_or_else(|| {
            Failure::NotFound(format!("no app {id:?} is configured: `broadgate apps` lists those that are"))
        })?;
        let key = app.keys.first().ok_or_else(|| {
            Failure::NotFound(format!(
                "app {id:?} has no key: add [[apps.keys]] (`broadgate apps new ID` prints one)"
            ))
        })?;
        let parse = |flag: &str, url: &str| {
            Reach::parse(url).map_err(|error| Failure::usage(format!("{flag}: {error}")))
        };
        let inner = match url {
            Some(url) => parse("--url", url)?,
            None => Reach::of(&self.file.load_for_command()?.gateway).ok_or_else(|| {
                Failure::usage("the configuration has no web listener: say with --url where it is reached")
            })?,
        };
        let public = public_url.map(|url| parse("--public-url", url)).transpose()?;
        let places = Places { inner, public };
        if self.json {
            return print_json(&laravel::as_json(app, key, &places));
        }
        print(&laravel::both(app, key, &places))
    }
}

/// How the settings are called in errors, and their text.
fn settings_of_other_server(file: &Path) -> Result<(String, String), Failure> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let wrong = |error: &dyn std::fmt::Display| Failure::usage(format!("{name}: {error}"));
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        let most = IMPORTED_FILE_BYTES_MAX;
        std::io::stdin().take(most + 1).read_to_end(&mut bytes).map_err(|error| wrong(&error))?;
        if bytes.len() as u64 > most {
            return Err(wrong(&format!("it has more than {most} bytes: it is no laravel-echo-server.json")));
        }
        bytes
    } else {
        bounded_read::read(file, ReadableKind::Regular).map_err(|error| wrong(&error))?
    };
    let text = String::from_utf8(bytes).map_err(|_| wrong(&"it is not UTF-8"))?;
    // Editors of Windows begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
    Ok((name, text))
}

fn as_text<'a>(apps: impl Iterator<Item = &'a App>, width: Option<usize>) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let or = |texts: Vec<&str>, none: &str| if texts.is_empty() { none.to_owned() } else { texts.join(" ") };
    let rows = apps.map(|app| {
        [
            app.id.clone(),
            yes(app.enabled),
            or(app.keys.iter().map(|key| &key.key[..]).collect(), "-"),
            or(app.origins.iter().map(|origin| origin.as_str()).collect(), "any"),
            yes(app.client_events && !app.keys.is_empty()),
            or(app.webhooks.iter().map(|hook| hook.address()).collect(), "-"),
            yes(app.raw),
        ]
    });
    let header = ["APP", "ENABLED", "KEYS", "ORIGINS", "CLIENT EVENTS", "WEBHOOKS", "RAW"];
    fitted(width, header, &["CLIENT EVENTS", "RAW"], rows)
}

/// Everything but secrets: of webhooks neither the query nor the values of headers.
fn as_json(app: &App, place: &str) -> Value {
    let webhooks = app.webhooks.iter().map(|hook| {
        json!({
            "url": hook.address(),
            "events": hook.events.iter().map(|event| WebhookEvent::name(*event)).collect::<Vec<_>>(),
            "channel_prefix": hook.channel_prefix,
            "channel_suffix": hook.channel_suffix,
            "headers": hook.headers.keys().collect::<Vec<_>>(),
            "batch": hook.batch,
        })
    });
    json!({
        "id": app.id,
        "place": place,
        "enabled": app.enabled,
        "keys": app.keys.iter().map(|key| &key.key).collect::<Vec<_>>(),
        "origins": app.origins.iter().map(|origin| origin.as_str()).collect::<Vec<_>>(),
        "client_events": app.client_events && !app.keys.is_empty(),
        "webhooks": webhooks.collect::<Vec<_>>(),
        "socketio": app.socketio,
        "raw": app.raw,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_printed() {
        let text = r#"
            id = "shop"
            keys = [{ key = "k1", secret = "hush" }, { key = "k2", secret = "hush" }]
            webhooks = [{ url = "https://example.com/hook?t=hush", headers = { A = "hush" } }]
        "#;
        let app: App = toml::from_str(text).unwrap();
        let (table, json) = (as_text([&app].into_iter(), None), as_json(&app, "x:1").to_string());
        assert!(table.contains("k1 k2") && table.contains("https://example.com/hook"), "{table}");
        assert!(json.contains("\"k2\"") && json.contains("cache_miss"), "{json}");
        assert!(!table.contains("hush") && !json.contains("hush"), "{table}{json}");
    }
}
