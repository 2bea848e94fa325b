//! An app with a random key and secret, as text for a configuration.

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use crate::failure::Failure;

/// The hosted service's keys have as many: 80 bits, and no secret.
const KEY_BYTES: usize = 10;
/// 256 bits: as many as the hash that it is the key of.
const SECRET_BYTES: usize = 32;

/// An app that nobody has yet.
pub(super) struct Fresh<'a> {
    id: &'a str,
    key: String,
    secret: String,
}

impl<'a> Fresh<'a> {
    /// With this id, which must have been checked.
    pub(super) fn new(id: &'a str) -> Result<Self, Failure> {
        Ok(Self { id, key: random::<KEY_BYTES>()?, secret: random::<SECRET_BYTES>()? })
    }

    /// Only these.
    pub(super) fn key_and_secret(self) -> (String, String) {
        (self.key, self.secret)
    }

    /// The `[[apps]]` entry.
    pub(super) fn toml(&self) -> String {
        let Self { id, key, secret } = self;
        format!("[[apps]]\nid = \"{id}\"\n[[apps.keys]]\nkey = \"{key}\"\nsecret = \"{secret}\"\n")
    }

    /// The same for scripts.
    pub(super) fn json(&self) -> Value {
        let Self { id, key, secret } = self;
        json!({ "id": id, "keys": [{ "key": key, "secret": secret }] })
    }
}

/// A fresh `[[apps]]` entry. The id must have been checked.
pub fn fresh(id: &str) -> Result<String, Failure> {
    Ok(Fresh::new(id)?.toml())
}

/// May an app with keys be called so?
pub(crate) fn check_id(id: &str) -> Result<(), Failure> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    broadgate_proto::name::check_visible("id", id).map_err(|error| Failure::usage(error.to_string()))?;
    if id.bytes().all(good) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "id {id:?} is not valid in a path: use letters, digits, '-', '_' and '.' only"
    )))
}

fn random<const N: usize>() -> Result<String, Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Failed(format!("the system has no random numbers: {error}")))?;
    Ok(HEXLOWER.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_an_app_and_never_the_same() {
        let (one, other) = (fresh("shop").unwrap(), fresh("shop").unwrap());
        assert_ne!(one, other);
        #[derive(serde::Deserialize)]
        struct File {
            apps: Vec<broadgate_gateway::apps::App>,
        }
        let apps = toml::from_str::<File>(&one).unwrap().apps;
        assert_eq!((apps[0].keys[0].key.len(), apps[0].keys[0].secret.reveal().len()), (20, 64));
        broadgate_gateway::apps::Apps::new(apps.clone()).unwrap();
        let json = Fresh { id: "shop", key: "k".into(), secret: "s".into() }.json();
        assert_eq!(json["keys"][0]["secret"], "s");
        assert!(check_id("a.b-c_1").is_ok());
        for wrong in ["", "a b", "a/b", "ä"] {
            assert!(check_id(wrong).is_err(), "{wrong}");
        }
    }
}
