//! `broadgate token`: makes, lists and removes the tokens of operators.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate_gateway::callers::{AccessToken, TokenRole};
use broadgate_proto::secret::TOKEN_MARK;
use broadgate_tasks::bounded_read::{self, ReadableKind};
use clap::{Args, Subcommand};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::json;
use toml::Value;

use super::{edit, read};
use crate::{
    failure::Failure,
    options::ConfigFile,
    output::{print, print_json, table},
    replaced_file, setting_errors,
};

/// What --role takes.
pub(crate) const ROLES: [&str; 3] =
    [TokenRole::Reader.name(), TokenRole::Operator.name(), TokenRole::Admin.name()];
/// What --right takes.
pub(crate) const RIGHTS: [&str; 1] = [read::PAYLOAD];

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    what: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token: it is printed once, and only its hash is kept
    #[command(after_help = NEW_HELP)]
    New(NewArgs),
    /// List the tokens of a file
    List {
        #[command(flatten)]
        file: TokensFile,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a token from a file: gateways refuse it within seconds
    Remove {
        /// The token's name
        name: String,
        #[command(flatten)]
        file: TokensFile,
    },
}

const NEW_HELP: &str = "\
Roles:
  reader    looks: lists, counts, why, histories without what was said
  operator  and sends, closes, joins, binds, changes sessions, drains
  admin     and closes all clients of an app, closes at once

Examples:
  broadgate token new ann --role operator --app shop --expires 30d --file tokens.toml > ann.token
  broadgate token new grafana --role reader          (prints the token, and after it the entry for the file)
  broadgate status --token-file ann.token";

#[derive(Debug, Args)]
struct NewArgs {
    /// Whose it is: letters, digits, -, _, . and @; audit lines and `why` show it
    name: String,
    /// What it allows: reader, operator or admin
    #[arg(long)]
    role: String,
    /// An app that it is for; repeat for several [default: *, which is all apps and the cluster itself]
    #[arg(long, value_name = "APP")]
    app: Vec<String>,
    /// How long it is valid, such as 12h or 30d [default: until it is removed]
    #[arg(long, value_name = "TIME", value_parser = setting_errors::duration)]
    expires: Option<Duration>,
    /// One more right: payload, which shows what messages, sessions and presence members hold
    #[arg(long, value_name = "RIGHT")]
    right: Vec<String>,
    /// Add the entry to this tokens file, which is made if it is not there
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TokensFile {
    /// The tokens file [default: the configuration's `gateway.tokens_file`]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
}

impl TokensFile {
    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.file {
            return Ok(path.clone());
        }
        self.config.load_for_command()?.gateway.tokens_file.ok_or_else(|| {
            Failure::usage(
                "no tokens file: name it with --file, or set gateway.tokens_file in the configuration",
            )
        })
    }
}

pub(crate) fn token(args: TokenArgs) -> Result<(), Failure> {
    match args.what {
        TokenCommand::New(args) => new(&args),
        TokenCommand::List { file, json } => list(&file.path()?, json),
        TokenCommand::Remove { name, file } => remove(&file.path()?, &name),
    }
}

fn new(args: &NewArgs) -> Result<(), Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Failed(format!("the system has no random numbers: {error}")))?;
    let text = format!("{TOKEN_MARK}{}", BASE64URL_NOPAD.encode(&bytes));
    let expires = args.expires.map(|time| SystemTime::now() + time);
    let all = || vec![AccessToken::ALL_APPS.to_owned()];
    let apps = if args.app.is_empty() { all() } else { args.app.clone() };
    let entry = entry(args, &apps, &HEXLOWER.encode(&AccessToken::hash(&text)), expires);
    // What a gateway would not take is refused here, with its own words.
    let given = Path::new("what was typed");
    let parsed = read::parse(given, &entry)
        .map_err(|error| Failure::usage(error.replacen("tokens file what was typed: ", "", 1)))?;
    if let Some(path) = &args.file {
        add(path, &entry, &args.name)?;
    }
    let expires_at = parsed.first().and_then(|token| token.expires_at_ms).map(rfc3339);
    if args.json {
        return print_json(&json!({
            "token": text, "name": args.name, "role": args.role, "apps": apps, "rights": args.right,
            "expires": expires_at, "sha256": HEXLOWER.encode(&AccessToken::hash(&text)), "entry": entry,
        }));
    }
    match &args.file {
        Some(path) => {
            print(&format!("{text}\n"))?;
            say!("token {:?} is in {}; it is not shown again", args.name, path.display());
        }
        None => {
            print(&format!("{text}\n\n{entry}"))?;
            say!("the token is not shown again; add the entry to the tokens file of every gateway");
        }
    }
    Ok(())
}

/// The entry of the file.
fn entry(args: &NewArgs, apps: &[String], sha256: &str, expires: Option<SystemTime>) -> String {
    let text = |text: &str| Value::String(text.to_owned());
    let list = |all: &[String]| Value::Array(all.iter().map(|one| text(one)).collect());
    let mut entry = format!("[[tokens]]\nname = {}\nrole = {}\n", text(&args.name), text(&args.role));
    entry += &format!("apps = {}\n", list(apps));
    if !args.right.is_empty() {
        entry += &format!("rights = {}\n", list(&args.right));
    }
    entry += &format!("sha256 = \"{sha256}\"\n");
    if let Some(expires) = expires {
        entry += &format!("expires = {}\n", humantime::format_rfc3339_seconds(expires));
    }
    entry
}

fn add(path: &Path, entry: &str, name: &str) -> Result<(), Failure> {
    let _lock = lock(path)?;
    let text = match bounded_read::read_text(path, ReadableKind::Regular) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::usage(format!("tokens file {}: {error}", path.display()))),
    };
    let known = read::parse(path, &text).map_err(Failure::Usage)?;
    if known.iter().any(|token| token.name == name) {
        return Err(Failure::Failed(format!(
            "there is a token {name:?} in {} already: `broadgate token remove {name}` removes it",
            path.display()
        )));
    }
    write(path, &edit::appended(&text, entry), known.len() + 1)
}

fn remove(path: &Path, name: &str) -> Result<(), Failure> {
    let _lock = lock(path)?;
    let file = |error: std::io::Error| Failure::usage(format!("tokens file {}: {error}", path.display()));
    let text = bounded_read::read_text(path, ReadableKind::Regular).map_err(file)?;
    let known = read::parse(path, &text).map_err(Failure::Usage)?;
    let place = known.iter().position(|token| token.name == name).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|token| token.name.as_str()).collect();
        let all = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Failure::NotFound(format!("no token {name:?} in {}: it has {all}", path.display()))
    })?;
    let left = edit::without(&text, place, known.len()).ok_or_else(|| {
        Failure::Failed(format!(
            "{} does not have each token in a section [[tokens]] of its own: remove {name:?} by hand",
            path.display()
        ))
    })?;
    write(path, &left, known.len() - 1)?;
    print(&format!("token {name:?} is removed from {}\n", path.display()))
}

/// One command at a time reads and writes.
fn lock(path: &Path) -> Result<std::fs::File, Failure> {
    replaced_file::lock(path)
        .map_err(|error| Failure::usage(format!("tokens file {}: {error}", path.display())))
}

/// Writes what can be read again, and nothing else.
fn write(path: &Path, text: &str, count: usize) -> Result<(), Failure> {
    let again = read::parse(path, text).map_err(Failure::Failed)?;
    if again.len() != count {
        return Err(Failure::Failed(format!("{} cannot be edited here: edit it by hand", path.display())));
    }
    replaced_file::replace_alike(path, text)
        .map_err(|error| Failure::Failed(format!("tokens file {}: {error}", path.display())))
}

fn list(path: &Path, is_json: bool) -> Result<(), Failure> {
    let tokens = read::read(path).map_err(Failure::Usage)?;
    let now_ms = read::since_epoch_ms(SystemTime::now());
    let is_over = |token: &AccessToken| token.expires_at_ms.is_some_and(|end| end <= now_ms);
    let rights = |token: &AccessToken| if token.sees_payloads { vec![read::PAYLOAD] } else { Vec::new() };
    if is_json {
        let all: Vec<_> = tokens
            .iter()
            .map(|token| {
                json!({
                    "name": token.name, "role": token.role.name(), "apps": token.apps, "rights": rights(token),
                    "expires": token.expires_at_ms.map(rfc3339), "expired": is_over(token),
                })
            })
            .collect();
        return print_json(&json!({ "file": path, "tokens": all }));
    }
    if tokens.is_empty() {
        return print(&format!("no token is in {}: `broadgate token new` makes one\n", path.display()));
    }
    let rows = tokens.iter().map(|token| {
        let expires = match token.expires_at_ms {
            None => "never".to_owned(),
            Some(end) if is_over(token) => format!("EXPIRED {}", rfc3339(end)),
            Some(end) => rfc3339(end),
        };
        let role = token.role.name().to_owned();
        [token.name.clone(), role, token.apps.join(" "), rights(token).join(" "), expires]
    });
    print(&table(["TOKEN", "ROLE", "APPS", "RIGHTS", "EXPIRES"], rows))
}

fn rfc3339(at_ms: u64) -> String {
    // Years after 9999 cannot be written so.
    let time = (UNIX_EPOCH + Duration::from_millis(at_ms)).min(UNIX_EPOCH + YEAR_9999);
    humantime::format_rfc3339_seconds(time).to_string()
}

const YEAR_9999: Duration = Duration::from_secs(253_402_300_799);

/// The role's names, for completion and errors.
#[cfg(test)]
mod tests {
    use broadgate_gateway::callers::TokenRole;

    use super::*;

    #[test]
    fn roles_of_the_help_are_the_roles() {
        for role in [TokenRole::Reader, TokenRole::Operator, TokenRole::Admin] {
            assert!(NEW_HELP.contains(&format!("\n  {}", role.name())));
        }
    }
}
