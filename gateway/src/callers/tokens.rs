//! The tokens of operators.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use arc_swap::ArcSwap;
use broadgate_proto::{limits, name};
use sha2::{Digest as _, Sha256};

/// What a caller may do. A later one may do all that an earlier one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenRole {
    /// Looks.
    Reader,
    /// Sends, closes, drains.
    Operator,
    /// Everything. The shared secret is one.
    Admin,
}

impl TokenRole {
    /// The role of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Reader, Self::Operator, Self::Admin].into_iter().find(|role| role.name() == name)
    }

    /// Its name in files and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// A token, as its gateway knows it: not the text that its holder has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// Whose it is.
    pub name: String,
    /// What it allows.
    pub role: TokenRole,
    /// In which apps; `*` is all of them, and the cluster itself.
    pub apps: Vec<String>,
    /// Whether it shows payloads, sessions and presence infos.
    pub sees_payloads: bool,
    /// The SHA-256 of the text.
    pub sha256: [u8; 32],
    /// In milliseconds since the Unix epoch; none if it never expires.
    pub expires_at_ms: Option<u64>,
}

impl AccessToken {
    /// The sign for all apps.
    pub const ALL_APPS: &'static str = "*";

    /// The hash by which a gateway knows a token.
    #[must_use]
    pub fn hash(text: &str) -> [u8; 32] {
        Sha256::digest(text.as_bytes()).into()
    }

    /// Whether it is for all apps.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        self.apps.iter().any(|app| app == Self::ALL_APPS)
    }

    /// Whether it is for this app.
    #[must_use]
    pub fn is_for(&self, app: &str) -> bool {
        self.is_for_all() || self.apps.iter().any(|own| own == app)
    }

    /// Can it be used?
    ///
    /// # Errors
    /// One sentence about what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let max = limits::TOKEN_NAME_BYTES_MAX;
        let is_fit = |letter: char| letter.is_ascii_alphanumeric() || "-_.@".contains(letter);
        if self.name.is_empty() || self.name.len() > max || !self.name.chars().all(is_fit) {
            // The caller says whose entry it is.
            return Err(format!("a name has 1 to {max} letters, digits, -, _, . and @"));
        }
        if self.apps.is_empty() {
            return Err("apps is empty: name the apps that it is for, or [\"*\"] for all".to_owned());
        }
        if self.apps.len() > limits::TOKEN_APPS_MAX {
            return Err(format!("apps has more than {} entries: use [\"*\"]", limits::TOKEN_APPS_MAX));
        }
        self.apps.iter().try_for_each(|app| name::check("app", app)).map_err(|error| error.to_string())
    }
}

/// Why a token does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenRefusal {
    #[error(
        "this gateway knows no tokens: its tokens file (gateway.tokens_file) has none or is not set; use the shared secret"
    )]
    None,
    #[error("the token is unknown here: it was removed, or is another cluster's (`broadgate token list`)")]
    Unknown,
    #[error("token {0:?} has expired: make another one with `broadgate token new`")]
    Expired(String),
}

/// The tokens of a gateway, as they are and as they become. Cheap to clone; the table is replaced as a whole.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Arc<KnownTokens>);

#[derive(Debug, Default)]
struct KnownTokens {
    table: ArcSwap<TokenTable>,
    stale: ArcSwap<StaleTokens>,
}

/// Why what was read last is not in use; "" if it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StaleTokens {
    pub(crate) why: String,
    /// In milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct TokenTable {
    by_hash: HashMap<[u8; 32], Arc<AccessToken>>,
}

/// How the tokens of a gateway differ from the former ones: names, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokensChange {
    /// They were not there.
    pub added: Vec<String>,
    /// Something of theirs differs, with the names of what.
    pub changed: Vec<String>,
    /// They are not there any more.
    pub removed: Vec<String>,
}

impl TokensChange {
    /// Is everything as it was?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl fmt::Display for TokensChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("added", &self.added), ("changed", &self.changed), ("removed", &self.removed)];
        let parts = parts.into_iter().filter(|(_, names)| !names.is_empty());
        let parts: Vec<String> = parts.map(|(what, names)| format!("{what} {}", names.join(", "))).collect();
        if parts.is_empty() { f.write_str("nothing has changed") } else { f.write_str(&parts.join("; ")) }
    }
}

impl TokenTable {
    fn by_name(&self) -> BTreeMap<&str, &AccessToken> {
        self.by_hash.values().map(|token| (&*token.name, &**token)).collect()
    }

    /// How this table differs from a former one.
    fn after(&self, former: &Self) -> TokensChange {
        let (before, now) = (former.by_name(), self.by_name());
        let mut change = TokensChange::default();
        for (name, token) in &now {
            let Some(was) = before.get(name) else {
                change.added.push((*name).to_owned());
                continue;
            };
            let fields = [
                ("role", was.role != token.role),
                ("apps", was.apps != token.apps),
                ("rights", was.sees_payloads != token.sees_payloads),
                ("sha256", was.sha256 != token.sha256),
                ("expires", was.expires_at_ms != token.expires_at_ms),
            ];
            let fields: Vec<&str> =
                fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
            if !fields.is_empty() {
                change.changed.push(format!("{name} ({})", fields.join(", ")));
            }
        }
        let removed = before.keys().filter(|name| !now.contains_key(*name));
        change.removed = removed.map(|name| (*name).to_owned()).collect();
        change
    }
}

impl Tokens {
    /// These tokens from now on; whether they differ from the former ones.
    ///
    /// # Errors
    /// One sentence about the first that cannot be used; the former ones stay.
    pub fn replace(&self, tokens: Vec<AccessToken>) -> Result<TokensChange, String> {
        if tokens.len() > limits::TOKENS_MAX {
            return Err(format!("there are {} tokens: at most {}", tokens.len(), limits::TOKENS_MAX));
        }
        let mut names = BTreeSet::new();
        let mut by_hash = HashMap::with_capacity(tokens.len());
        for token in tokens {
            token.check().map_err(|error| format!("token {:?}: {error}", token.name))?;
            if !names.insert(token.name.clone()) {
                return Err(format!("two tokens are named {:?}: nobody could tell them apart", token.name));
            }
            if let Some(other) = by_hash.insert(token.sha256, Arc::new(token.clone())) {
                return Err(format!("tokens {:?} and {:?} are the same token", other.name, token.name));
            }
        }
        let table = TokenTable { by_hash };
        let change = table.after(&self.0.table.load());
        self.0.table.store(Arc::new(table));
        Ok(change)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.table.load().by_hash.len()
    }

    /// Says why what was read last is not in use, or, by "", that it is. One task says so.
    pub fn set_stale(&self, why: &str, now_ms: u64) {
        let before = self.stale();
        let since_ms = match (why.is_empty(), before.why.is_empty()) {
            (true, _) => 0,
            (false, true) => now_ms,
            // It could not be used before, either.
            (false, false) => before.since_ms,
        };
        self.0.stale.store(Arc::new(StaleTokens { why: why.to_owned(), since_ms }));
    }

    pub(crate) fn stale(&self) -> Arc<StaleTokens> {
        self.0.stale.load_full()
    }

    /// All that is known of each, in an order that does not depend on the file's.
    pub(crate) fn sorted(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.0.table.load().by_hash.values().map(|token| format!("{token:?}")).collect();
        all.sort_unstable();
        all
    }

    /// The token with this hash. It is found by that, so the time of the search says nothing about its text.
    pub(crate) fn find_hash(&self, hash: &[u8; 32], now_ms: u64) -> Result<Arc<AccessToken>, TokenRefusal> {
        let table = self.0.table.load();
        if table.by_hash.is_empty() {
            return Err(TokenRefusal::None);
        }
        let token = table.by_hash.get(hash).ok_or(TokenRefusal::Unknown)?;
        match token.expires_at_ms {
            Some(end) if end <= now_ms => Err(TokenRefusal::Expired(token.name.clone())),
            _ => Ok(Arc::clone(token)),
        }
    }
}
