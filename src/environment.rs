//! Variables of the environment: which of them are meant for this program.
//!
//! Others set variables with its name, too: Kubernetes and Docker describe services in them. So a
//! variable that is not known is a warning at most, and only one that is known can be wrong.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use broadgate_business::environment::variable;
use toml::{Table, Value};

use crate::failure::Failure;

const PREFIX: &str = "BROADGATE_";
/// Variables that are not keys of the file and hold text.
const TEXTS: [&str; 7] = ["SECRET", "TOKEN", "ADDR", "REGISTER", "LOG", "NAME", "COMPLETE_TIME"];
/// Variables that hold a path, which need not be UTF-8.
const PATHS: [&str; 2] = ["CONFIG", "APPS"];
/// Variables of this project's examples and tests.
const ELSEWHERE: [&str; 3] = ["SERVICE", "REGENERATE", "FAULT"];
/// The name of an operator's profile, beside the section of that name.
const CLUSTER: &str = "CLUSTER";
/// How unlike a setting a name may be, in 1/5 of its letters, to be taken for a misspelling.
const LIKENESS: usize = 5;

/// What the environment says, sorted.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// Settings and what may be some, without the prefix.
    pub(crate) settings: Vec<(String, OsString)>,
    /// Names with the prefix that are not UTF-8, and so cannot be settings.
    pub(crate) nameless: Vec<String>,
}

impl Environment {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// If one of the variables that are no settings cannot be read.
    pub(crate) fn read() -> Result<Self, String> {
        Self::of(std::env::vars_os())
    }

    pub(crate) fn of(all: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, String> {
        let mut read = Self::default();
        for (name, value) in all {
            if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                continue;
            }
            let Some(key) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
                read.nameless.push(name.to_string_lossy().into_owned());
                continue;
            };
            if TEXTS.contains(&key) && value.to_str().is_none() {
                return Err(unreadable(key));
            }
            // The name of a cluster; a table is the section of that name.
            if key == CLUSTER && !is_section(&value) {
                if value.to_str().is_none() {
                    return Err(unreadable(key));
                }
                continue;
            }
            let is_own = [&TEXTS[..], &PATHS, &ELSEWHERE].iter().any(|own| own.contains(&key));
            // An empty variable is how deployments leave one unset.
            if !is_own && !value.is_empty() {
                read.settings.push((key.to_owned(), value));
            }
        }
        read.settings.sort();
        read.nameless.sort();
        Ok(read)
    }
}

/// Why a known variable cannot be used.
pub(crate) fn unreadable(key: &str) -> String {
    format!("environment variable {PREFIX}{key}: its value is not UTF-8: set it to a text, or unset it")
}

/// The text of `BROADGATE_{key}`; none if it is not set or empty.
pub(crate) fn text(key: &str) -> Result<Option<String>, Failure> {
    variable(&format!("{PREFIX}{key}")).map_err(|error| Failure::usage(error.to_string()))
}

/// The cluster that BROADGATE_CLUSTER names; none if it is not set, empty, or the section of that name.
pub(crate) fn cluster() -> Result<Option<String>, Failure> {
    Ok(text(CLUSTER)?.filter(|text| !is_section(OsStr::new(text))))
}

fn is_section(value: &OsStr) -> bool {
    value.as_encoded_bytes().trim_ascii_start().starts_with(b"{")
}

/// The path in `BROADGATE_{key}`; none if it is not set or empty.
pub fn path(key: &str) -> Option<PathBuf> {
    std::env::var_os(format!("{PREFIX}{key}")).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The threads that TOKIO_WORKER_THREADS asks for. tokio reads it as well, and panics at what it cannot use.
///
/// # Errors
/// If it asks for none, or is not a number.
pub fn threads() -> Result<Option<usize>, Failure> {
    let name = "TOKIO_WORKER_THREADS";
    let Some(text) = variable(name).map_err(|error| Failure::usage(error.to_string()))? else {
        return Ok(None);
    };
    match text.parse() {
        Ok(count @ 1..=THREADS_MAX) => Ok(Some(count)),
        _ => Err(Failure::usage(format!(
            "environment variable {name}: {text:?} is not a number of threads: give 1 to {THREADS_MAX}"
        ))),
    }
}

/// More threads than any machine has cores.
const THREADS_MAX: usize = 1024;

/// Does this describe a Kubernetes service (or a linked container), such as BROADGATE_PORT=tcp://10.0.0.7:8080?
pub(crate) fn is_of_a_service(key: &str, value: &str) -> bool {
    // The service's name comes before; it is nothing for one that is called broadgate.
    let after = |mark: &str| {
        let (whole, inner) = (key.strip_prefix(mark), format!("_{mark}"));
        let rest = key.match_indices(&inner).map(|(at, found)| &key[at + found.len()..]);
        whole.into_iter().chain(rest).map(str::to_owned).collect::<Vec<_>>()
    };
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let port = |rest: &String| {
        let mut parts = rest.trim_start_matches('_').split('_');
        let number = parts.next().is_some_and(|number| number.parse::<u16>().is_ok());
        let kind = parts.next().is_some_and(|kind| ["TCP", "UDP", "SCTP"].contains(&kind));
        let what = parts.next().is_none_or(|what| ["PROTO", "PORT", "ADDR"].contains(&what));
        number && kind && what && parts.next().is_none()
    };
    after("SERVICE_HOST").iter().any(String::is_empty)
        || after("SERVICE_PORT").iter().any(|rest| rest.is_empty() || rest.starts_with('_'))
        || after("PORT").iter().any(|rest| (rest.is_empty() && is_url) || port(rest))
}

/// A warning about a variable that is no setting.
pub(crate) fn unknown(key: &str) -> String {
    let known = known();
    let meant = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(key, known), known))
        .min()
        .filter(|(distance, _)| *distance <= (key.len() / LIKENESS).max(1))
        .map(|(_, known)| known)
        // Or the sections are missing: BROADGATE_CLIENTS_MAX.
        .or_else(|| known.iter().find(|known| known.ends_with(&format!("__{key}"))));
    match meant {
        Some(meant) => format!(
            "environment variable {PREFIX}{key} is not a setting and has no effect: did you mean {PREFIX}{meant}?"
        ),
        None => format!("environment variable {PREFIX}{key} is not a setting and has no effect"),
    }
}

/// The names of all settings, as the reference has them, and of the variables that are none.
fn known() -> BTreeSet<String> {
    let reference = include_str!("../deploy/config/broadgate.toml");
    let text: String =
        reference.lines().map(|line| line.strip_prefix("#= ").unwrap_or(line).to_owned() + "\n").collect();
    let mut names = BTreeSet::new();
    collect(&toml::from_str(&text).unwrap_or_default(), "", &mut names);
    names.extend(TEXTS.iter().chain(&PATHS).chain([&CLUSTER]).map(ToString::to_string));
    names
}

fn collect(table: &Table, path: &str, names: &mut BTreeSet<String>) {
    for (key, value) in table {
        let name = format!("{path}{}", key.to_ascii_uppercase());
        if let Value::Table(inner) = value {
            collect(inner, &format!("{name}__"), names);
        } else {
            names.insert(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn variables_of_services_are_known() {
        for (key, value) in [
            ("SERVICE_HOST", "10.0.0.7"),
            ("SERVICE_PORT", "8080"),
            ("SERVICE_PORT_WEB", "8080"),
            ("SERVICE_PORT_HTTP_WEB", "8080"),
            ("PORT", "tcp://10.0.0.7:8080"),
            ("PORT_8080_TCP", "tcp://10.0.0.7:8080"),
            ("PORT_8080_TCP_PROTO", "tcp"),
            ("PORT_53_UDP_ADDR", "10.0.0.7"),
            ("GATEWAY_SERVICE_HOST", "10.0.0.7"),
            ("GATEWAY_SERVICE_PORT_WEB", "8080"),
            ("GATEWAY_PORT", "udp://10.0.0.7:8080"),
            ("GATEWAY_PORT_8080_TCP_PORT", "8080"),
            ("REGISTER_HEADLESS_PORT_7100_SCTP", "sctp://10.0.0.7:7100"),
            ("REPORT_PORT_1_TCP", "tcp://10.0.0.7:1"),
        ] {
            assert!(is_of_a_service(key, value), "{key}");
        }
        for (key, value) in [
            ("PORT", "8080"),
            ("GATEWAY__NAME", "x"),
            ("PORT_WEB", "tcp://x"),
            ("PORT_80_TCP_NAME", "x"),
            ("SERVICE_HOSTS", "x"),
            ("NONSENSE", "tcp://10.0.0.7:1"),
            ("", "tcp://x"),
        ] {
            assert!(!is_of_a_service(key, value), "{key}");
        }
    }

    #[test]
    fn misspelling_is_explained() {
        for (key, meant) in [
            ("GATEWAY__LIMITS__CLIENT_MAX", "GATEWAY__LIMITS__CLIENTS_MAX"),
            ("GATEWAY_LIMITS_CLIENTS_MAX", "GATEWAY__LIMITS__CLIENTS_MAX"),
            ("GATWAY__NAME", "GATEWAY__NAME"),
            ("CLIENTS_MAX", "GATEWAY__LIMITS__CLIENTS_MAX"),
            ("REGISTER_BIND", "REGISTER__BIND"),
            ("SECRETS", "SECRET"),
            ("CLUSTER__SECRETFILE", "CLUSTER__SECRET_FILE"),
            ("METRIC__BIND", "METRICS__BIND"),
        ] {
            let warning = unknown(key);
            assert!(warning.ends_with(&format!("did you mean {PREFIX}{meant}?")), "{warning}");
        }
        for key in ["PORT", "NONSENSE", "VERSION", "IMAGE", "HOME", ""] {
            assert!(!unknown(key).contains("did you mean"), "{}", unknown(key));
        }
    }

    #[test]
    fn only_known_variables_can_be_wrong() {
        let wrong = || OsString::from_vec(vec![0xff, 0xfe]);
        let of = |name: &str, value| Environment::of([(name.into(), value)].into_iter());
        assert!(of("BROADGATE_SECRET", wrong()).unwrap_err().contains("BROADGATE_SECRET"));
        assert!(of("BROADGATE_LOG", wrong()).unwrap_err().contains("BROADGATE_LOG"));
        for name in ["PATH", "BROADGATE_CONFIG", "BROADGATE_SERVICE"] {
            assert!(of(name, wrong()).unwrap().settings.is_empty(), "{name}");
        }
        assert_eq!(of("BROADGATE_X", wrong()).unwrap().settings.len(), 1);
        assert!(of("BROADGATE_GATEWAY__NAME", OsString::new()).unwrap().settings.is_empty());
        let mut name = b"BROADGATE_".to_vec();
        name.push(0xff);
        let nameless = [(OsString::from_vec(name), "x".into())];
        assert_eq!(Environment::of(nameless.into_iter()).unwrap().nameless.len(), 1);
    }
}
