//! The evidence of this gateway: what `broadgate doctor` decides from.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate_proto::{
    limits::{CLIENTS_MAX, EVIDENCE_APPS_MAX},
    v1::{self, Epoch},
};
use sha2::{Digest as _, Sha256};

use crate::{
    admission::Admission,
    apps::App,
    audit::Audit,
    command::EvidenceQuestion,
    config::{Config, GatewaySettings},
    refusals::Refusals,
    shard::ShardEvidence,
    webhooks::FailingEndpoints,
};

/// What a gateway's evidence needs besides the dispatcher.
pub(crate) struct EvidenceSource {
    pub(crate) config: Arc<Config>,
    /// Connections as configured.
    pub(crate) clients_wanted: usize,
    pub(crate) webhooks: FailingEndpoints,
    pub(crate) audit: Audit,
    pub(crate) admission: Arc<Admission>,
    pub(crate) refusals: Arc<Refusals>,
}

/// How the gateway stands in its cluster.
pub(super) struct ClusterPlace {
    pub(super) epoch: Epoch,
    pub(super) inside: bool,
    pub(super) unsynced: u64,
    pub(super) parked: u64,
    pub(super) removed: Vec<v1::RemovedMember>,
    pub(super) refused_by: Vec<String>,
}

/// Hashes of one question.
#[derive(Clone, Copy)]
struct SaltedHash(u64);

impl SaltedHash {
    fn of<'a>(self, parts: impl IntoIterator<Item = &'a str>) -> u64 {
        let mut hash = Sha256::new_with_prefix(self.0.to_be_bytes());
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let bytes: [u8; 32] = hash.finalize().into();
        bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Each field of a structure, by its name.
    fn fields(self, prefix: &str, fields: &impl Debug) -> HashMap<String, u64> {
        let named = named_fields(fields).into_iter();
        named.map(|(name, text)| (format!("{prefix}{name}"), self.of([text.as_str()]))).collect()
    }
}

impl EvidenceSource {
    /// None if it was not asked for.
    pub(super) fn of(&self, shards: &[ShardEvidence], place: ClusterPlace) -> Option<v1::GatewayEvidence> {
        let EvidenceQuestion { salt, apps } = &*shards.first()?.asked;
        let hash = SaltedHash(*salt);
        let limits = &self.config.settings.limits;
        let sum = |of: fn(&ShardEvidence) -> u64| shards.iter().map(of).sum();
        let mut drops = HashMap::new();
        for (reason, count) in shards.iter().flat_map(|shard| &shard.drops) {
            *drops.entry((*reason).to_owned()).or_default() += count;
        }
        let pause = shards.iter().filter_map(|shard| shard.pause).min_by_key(|(age, _)| *age);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (apps, apps_all) = self.apps(hash, apps);
        let stale = self.config.tokens.stale();
        Some(v1::GatewayEvidence {
            now_ms: ms(now),
            epoch: Some(place.epoch),
            inside: place.inside,
            unsynced: u32::try_from(place.unsynced).unwrap_or(u32::MAX),
            parked: place.parked,
            clients_max: limits.clients_max as u64,
            // The default takes what the limit on open files allows.
            clients_wanted: match self.clients_wanted {
                CLIENTS_MAX => limits.clients_max as u64,
                wanted => wanted as u64,
            },
            outboxes_bytes: sum(|shard| shard.outboxes_bytes),
            outboxes_bytes_max: limits.outboxes_bytes_max as u64,
            slow: sum(|shard| shard.slow),
            held: sum(|shard| shard.held),
            paused: sum(|shard| shard.paused),
            drops,
            pause_ms: pause.map_or(0, |(_, pause)| ms(pause)),
            pause_age_ms: pause.map_or(0, |(age, _)| u64::from(age) * 1000),
            webhooks: self.webhooks.list(),
            silent_workers: silent_workers(shards),
            audit_trouble: self.audit.trouble(),
            secrets: self.config.credentials.secret.map(|secret| hash.of([secret])),
            settings: self.settings(hash),
            apps,
            apps_all,
            removed: place.removed,
            apps_stale: String::clone(&self.config.apps.stale()),
            tokens_stale: stale.why.clone(),
            tokens_stale_since_ms: stale.since_ms,
            refused_by: place.refused_by,
            limits_met: self.limits_met(),
        })
    }

    /// With what each allows.
    fn limits_met(&self) -> Vec<v1::MetLimit> {
        let table = self.config.apps.load();
        let mut all = self.refusals.limits_met();
        for met in &mut all {
            let app = table.by_id(&met.app);
            met.allowed = match &*met.limit {
                "clients_per_ip_max" => self.config.settings.limits.clients_per_ip_max as u64,
                "connections_max" => app.map_or(0, |app| app.connections_here_max() as u64),
                _ => app.and_then(|app| app.limits.members_max(app.compat)).map_or(0, u64::from),
            };
        }
        all
    }

    /// Settings that should be the same at all gateways: not those that say where this one is, nor what only its
    /// machine decides.
    fn settings(&self, hash: SaltedHash) -> HashMap<String, u64> {
        let GatewaySettings { affinity, groups, limits, stop, listeners, .. } = &self.config.settings;
        let mut settings = hash.fields("limits.", limits);
        settings.insert("limits.clients_max".to_owned(), hash.of([&*self.clients_wanted.to_string()]));
        settings.extend(hash.fields("stop.", stop));
        for (name, text) in [("affinity", format!("{affinity:?}")), ("groups", format!("{groups:?}"))] {
            settings.insert(name.to_owned(), hash.of([text.as_str()]));
        }
        for listener in listeners {
            let mut fields = hash.fields(&format!("listeners.{}.", listener.name), listener);
            fields
                .retain(|name, _| !["bind", "tls", "trusted_proxies"].iter().any(|own| name.ends_with(own)));
            settings.extend(fields);
        }
        let tokens = self.config.tokens.sorted();
        if !tokens.is_empty() {
            settings.insert("tokens".to_owned(), hash.of(tokens.iter().map(String::as_str)));
        }
        settings
    }

    /// The first apps, and a hash of all.
    fn apps(&self, hash: SaltedHash, asked: &[Box<str>]) -> (Vec<v1::AppHashes>, u64) {
        let table = self.config.apps.load();
        let clients = self.admission.by_app();
        let mut apps: Vec<&App> = table.iter().map(|app| &**app).collect();
        apps.sort_by(|a, b| a.id.cmp(&b.id));
        let hashes: Vec<v1::AppHashes> = apps
            .into_iter()
            .map(|app| {
                let settings = app_settings(hash, app);
                let mut names: Vec<String> =
                    settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
                names.sort_unstable();
                let is_asked = asked.iter().any(|asked| **asked == *app.id);
                v1::AppHashes {
                    id: app.id.clone(),
                    all: hash.of(names.iter().map(String::as_str)),
                    settings: if is_asked { settings } else { HashMap::new() },
                    service: app.service.clone().filter(|_| app.enabled && app.raw).unwrap_or_default(),
                    clients: clients.get(&app.id).map_or(0, |clients| *clients as u64),
                    connections_max: app.connections_max.into(),
                    connections_per_gateway_max: app.connections_per_gateway_max as u64,
                }
            })
            .collect();
        let all: Vec<String> = hashes.iter().map(|app| format!("{} {}", app.id, app.all)).collect();
        let all = hash.of(all.iter().map(String::as_str));
        (hashes.into_iter().take(EVIDENCE_APPS_MAX).collect(), all)
    }
}

/// A setting that is a secret, or may hold one, is hashed as it is and not as it is shown.
fn app_settings(hash: SaltedHash, app: &App) -> HashMap<String, u64> {
    let mut settings = hash.fields("", app);
    let keys = app.keys.iter().flat_map(|key| [key.key.as_str(), key.secret.reveal()]);
    settings.insert("keys".to_owned(), hash.of(keys));
    let hooks = app.webhooks.iter().map(|hook| format!("{} {:?} {hook:?}", hook.url, hook.headers));
    let hooks: Vec<String> = hooks.collect();
    settings.insert("webhooks".to_owned(), hash.of(hooks.iter().map(String::as_str)));
    let urls = app.auth.iter().flat_map(|auth| {
        std::iter::once(auth.url.as_str())
            .chain(auth.by_origin.iter().map(|by_origin| by_origin.url.as_str()))
    });
    let shown = format!("{:?}", app.auth);
    settings.insert("auth".to_owned(), hash.of(urls.chain([shown.as_str()])));
    settings
}

/// Each worker by the shard in which it has been silent for the longest time.
fn silent_workers(shards: &[ShardEvidence]) -> Vec<v1::SilentWorker> {
    let mut workers: HashMap<&str, v1::SilentWorker> = HashMap::new();
    for worker in shards.iter().flat_map(|shard| &shard.silent_workers) {
        let all = workers
            .entry(&worker.name)
            .or_insert_with(|| v1::SilentWorker { name: worker.name.clone(), ..v1::SilentWorker::default() });
        all.seconds = all.seconds.max(worker.seconds);
        all.events_unanswered += worker.events_unanswered;
    }
    workers.into_values().collect()
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The fields of a structure as its debug text has them, so that none can be forgotten.
fn named_fields(structure: &impl Debug) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in format!("{structure:#?}").lines().skip(1) {
        let is_name =
            line.strip_prefix("    ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        match (line.split_once(": "), fields.last_mut()) {
            (Some((name, value)), _) if is_name => fields.push((name.trim().to_owned(), value.to_owned())),
            (_, Some((_, text))) => text.push_str(line),
            (_, None) => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        apps::{KeyPair, KeySecret},
        config::GatewayLimits,
    };

    #[test]
    fn every_setting_has_a_hash_that_follows_it() {
        let hash = SaltedHash(1);
        let limits = GatewayLimits::default();
        let before = hash.fields("limits.", &limits);
        assert!(before.len() >= 20 && before.contains_key("limits.link_timeout"), "{before:?}");
        let changed = GatewayLimits { link_timeout: Duration::from_secs(3), ..limits.clone() };
        let after = hash.fields("limits.", &changed);
        let differ: Vec<&String> =
            after.iter().filter(|(name, value)| before[*name] != **value).map(|(name, _)| name).collect();
        assert_eq!(differ, ["limits.link_timeout"]);
        assert_ne!(SaltedHash(2).fields("limits.", &limits), before, "the salt counts");
    }

    #[test]
    fn secrets_of_apps_are_compared_and_not_shown() {
        let hash = SaltedHash(1);
        let app = |secret: &str| {
            let key = KeyPair { key: "k".into(), secret: KeySecret::new(secret), secret_file: None };
            App { keys: vec![key], ..App::new("shop") }
        };
        let (one, other) = (app_settings(hash, &app("one")), app_settings(hash, &app("other")));
        let differ: Vec<&String> =
            one.iter().filter(|(name, value)| other[*name] != **value).map(|(name, _)| name).collect();
        assert_eq!(differ, ["keys"]);
        assert!(one.contains_key("origins") && one.contains_key("limits") && one.len() > 15, "{one:?}");
    }
}
