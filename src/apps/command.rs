//! `broadgate apps`: what the configuration's apps are, a fresh one, and how Laravel finds one.

use broadgate_gateway::apps::{App, WebhookEvent};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    apps::{
        fresh,
        laravel::{self, Reach},
        read::{AppsReading, Source},
    },
    failure::Failure,
    options::{AppsFileOption, ConfigFile},
    output::{fitted, print, print_json, screen},
};

#[derive(Debug, Args)]
pub(crate) struct AppsArgs {
    #[command(subcommand)]
    command: Option<AppsCommand>,
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    apps: AppsFileOption,
    /// For scripts
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum AppsCommand {
    /// Print a fresh app with a random key and secret, ready to paste into the configuration
    New {
        /// Its id
        id: String,
    },
    /// Print what Laravel's .env and Echo need to find an app: holds its secret
    Env {
        /// Its id
        id: String,
        /// Where browsers reach the gateways [default: the configuration's first web listener]
        #[arg(long, value_name = "URL")]
        url: Option<String>,
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
        Some(AppsCommand::Env { id, url }) => args.env(id, url.as_deref()),
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
        if self.json {
            let apps = table.iter().enumerate().map(|(index, app)| as_json(app, reading.place(index)));
            return print_json(&json!({ "apps": apps.collect::<Vec<_>>() }));
        }
        if table.iter().len() == 0 {
            return print("no apps are configured: `broadgate apps new ID` prints one to paste\n");
        }
        print(&as_text(table.iter().map(AsRef::as_ref), screen()))
    }

    fn env(&self, id: &str, url: Option<&str>) -> Result<(), Failure> {
        let table = self.read()?.open().map_err(Failure::Usage)?.load();
        let app = table.by_id(id).ok_or_else(|| {
            Failure::NotFound(format!("no app {id:?} is configured: `broadgate apps` lists those that are"))
        })?;
        let key = app.keys.first().ok_or_else(|| {
            Failure::NotFound(format!(
                "app {id:?} has no key: add [[apps.keys]] (`broadgate apps new ID` prints one)"
            ))
        })?;
        let reach = match url {
            Some(url) => Reach::parse(url).map_err(|error| Failure::usage(format!("--url: {error}")))?,
            None => Reach::of(&self.file.load_for_command()?.gateway).ok_or_else(|| {
                Failure::usage("the configuration has no web listener: say with --url where browsers connect")
            })?,
        };
        if self.json {
            return print_json(&laravel::as_json(app, key, &reach));
        }
        print(&laravel::both(app, key, &reach))
    }
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
