//! Verifies that a request is signed with a key of its app.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

use data_encoding::HEXLOWER;
use md5::{Digest as _, Md5};

use super::{
    ApiRefusal, SIGNED_TEXT, UNKNOWN_KEY,
    params::{Params, array, percent_decode},
    route::after_prefix,
};
use crate::{
    auth::{self, AppKey},
    shown,
};

/// The signed parts of a request.
#[derive(Debug, Clone, Copy)]
pub struct SignedParts<'a> {
    pub method: &'a str,
    /// As received, not decoded.
    pub path: &'a str,
    pub params: &'a Params,
}

/// The parameter with the signature.
pub const SIGNATURE: &str = "auth_signature";
const BODY_MD5: &str = "body_md5";

/// Finds the key that a request is signed with. The body is not needed: its MD5 is signed, and
/// [`verify_body`] compares it.
///
/// `prefixes` are the path prefixes under which the API is reached. SDKs sign the path without
/// them, some with them, and a proxy may have taken one off: each is tried.
pub fn verify<'k>(
    request: SignedParts<'_>,
    keys: &'k [AppKey],
    prefixes: &[&str],
    now_unix_seconds: u64,
    window_seconds: u64,
) -> Result<&'k AppKey, ApiRefusal> {
    let needed = |name| needed(request.params, name);
    let key = needed("auth_key")?;
    let key = auth::find(keys, key)
        .ok_or_else(|| ApiRefusal::unauthorized(format!("{UNKNOWN_KEY}{}", shown(key))))?;
    let version = needed("auth_version")?;
    if version != "1.0" {
        let version = shown(version);
        return Err(ApiRefusal::unauthorized(format!("auth_version {version} is not supported: use 1.0")));
    }
    in_time(needed("auth_timestamp")?, now_unix_seconds, window_seconds)?;
    let signature = needed(SIGNATURE)?;
    signed(request, key, prefixes, signature)?;
    Ok(key)
}

/// Verifies that the body of a signed request is the one that was signed.
pub fn verify_body(params: &Params, body: &[u8]) -> Result<(), ApiRefusal> {
    if !body.is_empty() {
        needed(params, BODY_MD5)?;
    }
    body_unchanged(params.get(BODY_MD5), body)
}

fn needed<'a>(params: &'a Params, name: &str) -> Result<&'a str, ApiRefusal> {
    params.get(name).ok_or_else(|| {
        ApiRefusal::unauthorized(format!(
            "{name} is missing in the query: sign the request with the app's key"
        ))
    })
}

fn in_time(timestamp: &str, now_unix_seconds: u64, window_seconds: u64) -> Result<(), ApiRefusal> {
    let seconds: u64 = timestamp.parse().map_err(|_| {
        ApiRefusal::unauthorized(format!("auth_timestamp {} is not a Unix time in seconds", shown(timestamp)))
    })?;
    if seconds.abs_diff(now_unix_seconds) > window_seconds {
        return Err(ApiRefusal::unauthorized(format!(
            "Timestamp expired: Given timestamp ({seconds}) not within {window_seconds}s of server time ({now_unix_seconds})"
        )));
    }
    Ok(())
}

fn signed(
    request: SignedParts<'_>,
    key: &AppKey,
    prefixes: &[&str],
    signature: &str,
) -> Result<(), ApiRefusal> {
    let queries = [Some(plain_query(request.params)), joined_query(request.params)];
    let mut first = None;
    for path in paths(request.path, prefixes) {
        for query in queries.iter().flatten() {
            let text = format!("{}\n{path}\n{query}", request.method);
            if key.verify(text.as_bytes(), signature) {
                return Ok(());
            }
            first.get_or_insert(text);
        }
    }
    Err(ApiRefusal::unauthorized(format!(
        "Invalid signature{SIGNED_TEXT} HmacSHA256Hex({:?}, your_secret_key), but you sent {:?}",
        shown(&first.unwrap_or_default()),
        shown(signature)
    )))
}

/// The paths that may have been signed, the likeliest first.
fn paths<'a>(path: &'a str, prefixes: &[&str]) -> Vec<Cow<'a, str>> {
    let mut paths: Vec<Cow<'a, str>> = Vec::new();
    // Slashes may have been doubled, or added at the end, in transit or by the SDK after signing.
    for path in tidy(path).map(Cow::Owned).into_iter().chain([Cow::Borrowed(path)]) {
        for prefix in prefixes {
            paths.extend(after_prefix(&path, prefix).map(|rest| Cow::Owned(rest.to_owned())));
        }
        paths.push(path.clone());
        for prefix in prefixes {
            if after_prefix(&path, prefix).is_none() {
                paths.push(format!("{}{path}", prefix.trim_end_matches('/')).into());
            }
        }
    }
    // SDKs sign before their HTTP client encodes characters that a path cannot have. An encoded newline must
    // not pass for the one after the path.
    for at in 0..paths.len() {
        let decoded = String::from_utf8_lossy(&percent_decode(&paths[at], false)).into_owned();
        if !decoded.contains(char::is_control) {
            paths.push(decoded.into());
        }
    }
    let mut seen = HashSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    paths
}

/// A path with single slashes and none at its end; none if it already has that form.
fn tidy(path: &str) -> Option<String> {
    let tidied =
        path.split('/').filter(|part| !part.is_empty()).fold(String::new(), |all, part| all + "/" + part);
    (tidied != path).then_some(tidied)
}

fn plain_query(params: &Params) -> String {
    let mut pairs: Vec<_> = params.iter().filter(|&(name, _)| name != SIGNATURE).collect();
    pairs.sort_by_key(|&(name, _)| name);
    joined(pairs.into_iter().map(|(name, value)| format!("{name}={value}")))
}

/// The PHP SDK signs `info=a,b` and sends `info[0]=a&info[1]=b`. None without such parameters.
fn joined_query(params: &Params) -> Option<String> {
    params.iter().find_map(|(name, _)| array(name))?;
    let mut merged: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in params.iter().filter(|&(name, _)| name != SIGNATURE) {
        merged.entry(array(name).unwrap_or(name)).or_default().push(value);
    }
    Some(joined(merged.into_iter().map(|(name, values)| format!("{name}={}", values.join(",")))))
}

fn joined(pairs: impl Iterator<Item = String>) -> String {
    pairs.collect::<Vec<_>>().join("&")
}

fn body_unchanged(said: Option<&str>, body: &[u8]) -> Result<(), ApiRefusal> {
    let Some(said) = said else { return Ok(()) };
    let md5 = HEXLOWER.encode(&Md5::digest(body));
    if said.eq_ignore_ascii_case(&md5) {
        return Ok(());
    }
    Err(ApiRefusal::unauthorized(format!(
        "Invalid body_md5: the body that came has {md5}, but body_md5 is {}",
        shown(said)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "278d425bdf160c739803";
    const BODY: &str = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    const SENT: u64 = 1_353_088_179;
    const QUERY: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
        &body_md5=ec365a775a4cd0599faeb73354201b6f\
        &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";

    fn keys() -> Vec<AppKey> {
        vec![AppKey::new("new", "other"), AppKey::new(KEY, "7ad3773142a6692b25b8")]
    }

    fn run(
        method: &str,
        path: &str,
        query: &str,
        body: &str,
        prefixes: &[&str],
        now: u64,
    ) -> Result<String, (u16, String)> {
        let params = Params::parse(query);
        let request = SignedParts { method, path, params: &params };
        verify(request, &keys(), prefixes, now, 600)
            .and_then(|key| verify_body(&params, body.as_bytes()).map(|()| key.key.to_string()))
            .map_err(|refusal| (refusal.status.as_u16(), refusal.text))
    }

    fn documented(path: &str, query: &str, body: &str, now: u64) -> Result<String, (u16, String)> {
        run("POST", path, query, body, &["/ws"], now)
    }

    fn ok() -> Result<String, (u16, String)> {
        Ok(KEY.to_owned())
    }

    /// A query with a signature over this text and the parameters that each request has.
    fn sign(method: &str, path: &str, signed: &str, sent: &str) -> String {
        let auth = format!("auth_key={KEY}&auth_timestamp={SENT}&auth_version=1.0");
        let text = format!("{method}\n{path}\n{auth}&{signed}");
        format!("{sent}&{auth}&auth_signature={}", keys()[1].sign(text.as_bytes()))
    }

    #[test]
    fn the_documented_request_is_signed() {
        assert_eq!(documented("/apps/3/events", QUERY, BODY, SENT), ok());
        let reversed = QUERY.split('&').rev().collect::<Vec<_>>().join("&").replace("auth_key", "AUTH_key");
        assert_eq!(documented("/apps/3/events", &reversed, BODY, SENT + 600), ok());
        assert_eq!(documented("/apps/3/events", QUERY, BODY, SENT - 600), ok());
    }

    #[test]
    fn a_prefix_and_double_slashes_are_not_signed_or_are() {
        for path in [
            "//apps/3/events",
            "/apps//3/events/",
            "/ws/apps/3/events",
            "/ws//apps/3/events",
            "//ws/apps/3//events/",
        ] {
            assert_eq!(documented(path, QUERY, BODY, SENT), ok(), "{path}");
        }
        for path in ["//apps/3/channels", "/apps/3//channels/"] {
            let query = sign("GET", path, "x=1", "x=1");
            assert_eq!(run("GET", path, &query, "", &[], SENT), ok(), "also as it was sent: {path}");
        }
        let query = sign("GET", "/ws/apps/3/channels", "x=1", "x=1");
        assert_eq!(run("GET", "/ws/apps/3/channels", &query, "", &["/ws"], SENT), ok());
        assert_eq!(run("GET", "/apps/3/channels", &query, "", &["/ws/"], SENT), ok());
        assert!(run("GET", "/apps/3/channels", &query, "", &[], SENT).is_err());
        let query = sign("POST", "/apps/3/users/a b/terminate_connections", "x=1", "x=1");
        assert_eq!(run("POST", "/apps/3/users/a%20b/terminate_connections", &query, "", &[""], SENT), ok());
    }

    #[test]
    fn an_encoded_newline_does_not_end_the_path() {
        let query = sign("GET", "/apps/3/channels/a\nb", "x=1", "x=1");
        assert!(run("GET", "/apps/3/channels/a%0Ab", &query, "", &[], SENT).is_err());
        let query = sign("GET", "/apps/3/channels/a%0Ab", "x=1", "x=1");
        assert_eq!(run("GET", "/apps/3/channels/a%0Ab", &query, "", &[], SENT), ok());
    }

    #[test]
    fn values_are_signed_decoded_and_arrays_joined_or_as_sent() {
        let get = |query: &str| run("GET", "/apps/3/channels", query, "", &[], SENT);
        let signed = |signed, sent| sign("GET", "/apps/3/channels", signed, sent);
        assert_eq!(get(&signed("filter_by_prefix=a b,c&info=x", "info=x&filter_by_prefix=a+b%2Cc")), ok());
        assert_eq!(get(&signed("info=a,b", "info%5B0%5D=a&info%5B1%5D=b")), ok());
        assert_eq!(get(&signed("info[0]=a&info[1]=b", "info[1]=b&info[0]=a")), ok());
        assert_eq!(get(&signed("info[]=a&info[]=b", "info[]=a&info[]=b")), ok());
        assert!(get(&signed("info=a,b", "info[]=a&info[]=c")).is_err());
    }

    #[test]
    fn a_changed_request_is_refused() {
        let status = |result: Result<String, (u16, String)>| result.unwrap_err().0;
        assert_eq!(status(documented("/apps/4/events", QUERY, BODY, SENT)), 401);
        assert_eq!(status(run("GET", "/apps/3/events", QUERY, BODY, &[], SENT)), 401);
        assert_eq!(status(documented("/apps/3/events", &format!("{QUERY}&x=1"), BODY, SENT)), 401);
        let (status, text) = documented("/apps/3/events", QUERY, "{}", SENT).unwrap_err();
        assert_eq!(
            (status, text.as_str()),
            (
                401,
                "Invalid body_md5: the body that came has 99914b932bd37a50b983c5e7c90ae93b, but body_md5 is ec365a775a4cd0599faeb73354201b6f"
            )
        );
        let query = sign("POST", "/apps/3/events", "x=1", "x=1");
        assert_eq!(run("POST", "/apps/3/events", &query, "", &[], SENT), ok());
        let unsigned_body = run("POST", "/apps/3/events", &query, BODY, &[], SENT).unwrap_err();
        assert_eq!(unsigned_body.1, "body_md5 is missing in the query: sign the request with the app's key");
    }

    #[test]
    fn each_refusal_says_what_is_wrong() {
        let text = |query: &str, now| documented("/apps/3/events", query, BODY, now).unwrap_err().1;
        assert_eq!(text("", SENT), "auth_key is missing in the query: sign the request with the app's key");
        assert_eq!(text(&QUERY.replace(KEY, "nobody"), SENT), "Unknown auth_key nobody");
        assert_eq!(text(&QUERY.replace("=1.0", "=2"), SENT), "auth_version 2 is not supported: use 1.0");
        assert_eq!(
            text(&QUERY.replace("p=1", "p=x"), SENT),
            "auth_timestamp x353088179 is not a Unix time in seconds"
        );
        for now in [SENT + 601, SENT - 601] {
            assert_eq!(
                text(QUERY, now),
                format!(
                    "Timestamp expired: Given timestamp (1353088179) not within 600s of server time ({now})"
                )
            );
        }
        assert_eq!(
            text(&QUERY.replace("=da45", "=f00d"), SENT),
            "Invalid signature: you should have sent HmacSHA256Hex(\"POST\\n/apps/3/events\\nauth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f\", your_secret_key), but you sent \"f00d4824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c\""
        );
    }
}
