//! The tokens file.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate_gateway::callers::{AccessToken, TokenRole, Tokens};
use broadgate_proto::limits::TOKEN_NAME_BYTES_MAX;
use broadgate_tasks::bounded_read::{self, ReadableKind};
use data_encoding::HEXLOWER_PERMISSIVE;
use serde::Deserialize;
use toml::Value;

use crate::unreadable::UnreadableInput;

/// What the file holds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensDocument {
    #[serde(default)]
    tokens: Vec<TokenEntry>,
}

/// One token, as the file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    name: String,
    role: String,
    apps: Vec<String>,
    #[serde(default)]
    rights: Vec<String>,
    sha256: String,
    expires: Option<Value>,
}

/// The right to see what messages, sessions and presence members hold.
pub(super) const PAYLOAD: &str = "payload";

/// The tokens of a gateway that starts; none without a file.
///
/// # Errors
/// One sentence about what cannot be used.
pub(crate) fn open(path: Option<&Path>) -> Result<Tokens, String> {
    let tokens = Tokens::default();
    if let Some(path) = path {
        tokens.replace(read(path)?).map_err(|error| at(path, &error))?;
    }
    Ok(tokens)
}

/// The tokens of a file.
///
/// # Errors
/// One sentence with the file and, where there is one, the line.
pub(super) fn read(path: &Path) -> Result<Vec<AccessToken>, String> {
    let text = bounded_read::read_text(path, ReadableKind::Regular).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => {
                ": `broadgate token new NAME --role reader --file FILE` makes one"
            }
            _ => "",
        };
        UnreadableInput::file("tokens file", path, &error).sentence() + hint
    })?;
    parse(path, &text)
}

/// The tokens in a file's text.
///
/// # Errors
/// The same.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<AccessToken>, String> {
    let document: TokensDocument = toml::from_str(text).map_err(|error| {
        UnreadableInput::toml("tokens file", &path.display().to_string(), text, error).sentence()
    })?;
    let all: Result<Vec<_>, _> = document.tokens.into_iter().map(token).collect();
    all.map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &str) -> String {
    format!("tokens file {}: {error}", path.display())
}

fn token(entry: TokenEntry) -> Result<AccessToken, String> {
    // A name that is far too long is not repeated whole.
    let shown: String = entry.name.chars().take(TOKEN_NAME_BYTES_MAX + 1).collect();
    let wrong = |what: String| format!("token {shown:?}: {what}");
    let role = TokenRole::named(&entry.role)
        .ok_or_else(|| wrong(format!("role is {:?}: expected reader, operator or admin", entry.role)))?;
    if let Some(right) = entry.rights.iter().find(|right| *right != PAYLOAD) {
        return Err(wrong(format!("there is no right {right:?}: expected {PAYLOAD}")));
    }
    let sha256 = HEXLOWER_PERMISSIVE.decode(entry.sha256.as_bytes()).ok();
    let sha256 = sha256
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| wrong("sha256 is not the SHA-256 of a token: 64 hexadecimal digits".to_owned()))?;
    let expires_at_ms = entry.expires.as_ref().map(expiry).transpose().map_err(&wrong)?;
    let sees_payloads = !entry.rights.is_empty();
    let token = AccessToken {
        name: entry.name.clone(),
        role,
        apps: entry.apps.clone(),
        sees_payloads,
        sha256,
        expires_at_ms,
    };
    token.check().map_err(wrong)?;
    Ok(token)
}

/// When a token expires, in milliseconds since the Unix epoch.
fn expiry(value: &Value) -> Result<u64, String> {
    let text = match value {
        Value::Datetime(time) => time.to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let whole = if text.len() == "2026-12-31".len() { format!("{text}T00:00:00Z") } else { text.clone() };
    let time = humantime::parse_rfc3339_weak(&whole).map_err(|_| {
        format!("expires is {text}: give a time in UTC such as 2026-12-31T00:00:00Z, or a date")
    })?;
    Ok(since_epoch_ms(time))
}

pub(super) fn since_epoch_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "aa11aa11aa11aa11aa11aa11aa11aa11aa11aa11aa11aa11aa11aa11aa11aa11";

    fn parsed(more: &str) -> Result<Vec<AccessToken>, String> {
        let text = format!("[[tokens]]\nname = \"ann\"\nrole = \"reader\"\napps = [\"shop\"]\n{more}");
        parse(Path::new("/t/tokens.toml"), &text)
    }

    #[test]
    fn a_token_is_read() {
        let token =
            parsed(&format!("sha256 = \"{HASH}\"\nrights = [\"payload\"]\nexpires = 1970-01-01T00:00:02Z\n"));
        let [token] = &token.unwrap()[..] else { panic!("one") };
        assert_eq!((token.name.as_str(), token.role, token.sees_payloads), ("ann", TokenRole::Reader, true));
        assert_eq!((token.sha256[0], token.expires_at_ms), (0xaa, Some(2000)));
        for text in ["\"1970-01-02\"", "1970-01-02", "1970-01-02T00:00:00Z", "\"1970-01-02 00:00:00\""] {
            let tokens = parsed(&format!("sha256 = \"{HASH}\"\nexpires = {text}\n")).unwrap();
            assert_eq!(tokens[0].expires_at_ms, Some(86_400_000), "{text}");
            assert!(!tokens[0].sees_payloads);
        }
        assert_eq!(parse(Path::new("x"), "# none\n"), Ok(Vec::new()));
    }

    #[test]
    fn errors_say_where_and_what() {
        let hash = format!("sha256 = \"{HASH}\"\n");
        for (more, said) in [
            ("sha256 = \"aa\"\n".to_owned(), "64 hexadecimal digits"),
            (format!("{hash}rights = [\"all\"]\n"), "no right \"all\""),
            (format!("{hash}expires = 5\n"), "expires is 5"),
            (format!("{hash}expires = 2026-01-01T00:00:00+02:00\n"), "a time in UTC"),
            (format!("{hash}secret = 1\n"), "tokens.toml:6: unknown field"),
            (String::new(), "missing field `sha256`"),
        ] {
            let error = parsed(&more).unwrap_err();
            assert!(error.contains("tokens.toml") && error.contains(said), "{error}");
        }
        for (entry, said) in [
            ("name = \"a\"\nrole = \"root\"\napps = [\"*\"]\n", "expected reader, operator or admin"),
            ("name = \"a b\"\nrole = \"admin\"\napps = [\"*\"]\n", "a name has 1 to"),
            ("name = \"a\"\nrole = \"admin\"\napps = []\n", "apps is empty"),
        ] {
            let error = parse(Path::new("t"), &format!("[[tokens]]\n{entry}{hash}")).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
