//! What a dashboard shows, and who may see it.

use std::sync::{Mutex, PoisonError};

use broadgate_business::{Credentials, Secret};
use broadgate_tls::PagesTls;
use subtle::ConstantTimeEq as _;

use crate::{failure::Failure, operate::ChosenCluster};

/// Links that were printed and not used yet.
const LINKS_MAX: usize = 8;

/// How one logs in.
pub(crate) enum Login {
    /// By a link that works once; the cluster is asked with the credentials of the one who started the dashboard.
    Link(Links),
    /// By a token, with which the cluster is asked: the cluster decides whether it is right.
    Token,
    /// By nothing: the cluster has no secret, and only this machine reaches the port.
    Open,
}

/// What a dashboard shows, and to whom.
pub(crate) struct DashboardSettings {
    /// The cluster, with the credentials of visitors that show none of their own.
    pub(crate) chosen: ChosenCluster,
    pub(crate) login: Login,
    /// How browsers reach it, if not by its own address: `https://ops.example.com`.
    pub(crate) url: Option<String>,
    /// It speaks TLS itself.
    pub(crate) tls: Option<PagesTls>,
}

/// What a visitor shows to log in.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LoginForm {
    link: String,
    token: String,
}

/// The keys of links that were printed and not used yet; the newest last.
#[derive(Default)]
pub(crate) struct Links(Mutex<Vec<String>>);

impl Links {
    /// The key of a new link.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub(crate) fn new_key(&self) -> Result<String, Failure> {
        let key = random_key()?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= LINKS_MAX {
            all.remove(0);
        }
        all.push(key.clone());
        Ok(key)
    }

    /// Whether the key opens, which it does once.
    fn take(&self, key: &str) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.len();
        all.retain(|one| !bool::from(one.as_bytes().ct_eq(key.as_bytes())));
        all.len() < before
    }
}

impl Login {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Link(_) => "link",
            Self::Token => "token",
            Self::Open => "open",
        }
    }
}

impl DashboardSettings {
    /// The cluster as the visitor may ask it; the cluster has not been asked yet.
    ///
    /// # Errors
    /// If what was shown is no way in.
    pub(super) fn admit(&self, shown: &LoginForm) -> Result<ChosenCluster, String> {
        match &self.login {
            Login::Open => Ok(self.chosen.clone()),
            Login::Link(links) if links.take(&shown.link) => Ok(self.chosen.clone()),
            Login::Link(_) => Err(
                "this link was used, or is not of this dashboard: press Enter where `broadgate dashboard` \
                     runs, for a new one"
                    .to_owned(),
            ),
            Login::Token => {
                // An operator's token, or the shared secret.
                let token = Secret::of_token(&shown.token).or_else(|_| Secret::parse(&shown.token));
                let secret = token.map_err(|_| wrong_token())?;
                if secret.is_none() {
                    return Err(wrong_token());
                }
                let tls = self.chosen.credentials.tls.clone();
                let mut chosen = self.chosen.clone();
                chosen.credentials = Credentials { secret, tls };
                Ok(chosen)
            }
        }
    }

    /// The names by which it may be called: the host of its URL, and those of its certificates.
    pub(super) fn hosts(&self) -> Vec<String> {
        let url: Option<axum::http::Uri> = self.url.as_ref().and_then(|url| url.parse().ok());
        let of_url = url.and_then(|url| url.host().map(str::to_owned));
        of_url.into_iter().chain(self.tls.iter().flat_map(PagesTls::names)).collect()
    }

    /// Whether browsers come to it by TLS.
    pub(super) fn is_https(&self) -> bool {
        self.tls.is_some() || self.url.as_ref().is_some_and(|url| url.starts_with("https://"))
    }
}

pub(super) fn wrong_token() -> String {
    "the cluster does not accept this token".to_owned()
}

/// 256 random bits as text.
pub(super) fn random_key() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Failed(format!("the system has no random numbers: {error}")))?;
    Ok(data_encoding::BASE64URL_NOPAD.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(login: Login) -> DashboardSettings {
        let mut chosen = ChosenCluster::of_gateway("a:1".into(), Credentials::default());
        chosen.name = Some("prod".into());
        DashboardSettings { chosen, login, url: Some("https://ops.example.com:8443/".into()), tls: None }
    }

    fn link(key: &str) -> LoginForm {
        LoginForm { link: key.to_owned(), token: String::new() }
    }

    #[test]
    fn link_opens_once() {
        let settings = settings(Login::Link(Links::default()));
        let Login::Link(links) = &settings.login else { unreachable!() };
        let (first, second) = (links.new_key().unwrap(), links.new_key().unwrap());
        assert_ne!(first, second);
        assert_eq!(first.len(), 43, "256 bits");
        settings.admit(&link("")).unwrap_err();
        settings.admit(&link(&first[1..])).unwrap_err();
        settings.admit(&link(&first)).unwrap();
        settings.admit(&link(&first)).unwrap_err();
        for _ in 0..LINKS_MAX {
            links.new_key().unwrap();
        }
        settings.admit(&link(&second)).unwrap_err();
    }

    #[test]
    fn token_is_what_the_cluster_is_asked_with() {
        let settings = settings(Login::Token);
        let with = |token: &str| settings.admit(&LoginForm { token: token.to_owned(), link: String::new() });
        for wrong in ["", "short", " ", &"x y z ".repeat(20)] {
            assert_eq!(with(wrong).unwrap_err(), wrong_token(), "{wrong}");
        }
        let chosen = with("0123456789abcdefghijklmnopqrstuv").unwrap();
        assert!(!chosen.credentials.secret.is_none() && chosen.name.as_deref() == Some("prod"));
        let chosen = with(&format!("bgt_{}", "x".repeat(43))).unwrap();
        assert!(chosen.credentials.secret.is_token());
    }

    #[test]
    fn its_url_says_its_host() {
        let settings = settings(Login::Open);
        assert_eq!((&*settings.hosts(), settings.is_https()), (&["ops.example.com".to_owned()][..], true));
        settings.admit(&LoginForm::default()).unwrap();
    }
}
