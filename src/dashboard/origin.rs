//! Which pages may command: only the dashboard's own. Pure.

use axum::http::{HeaderMap, header};

/// The header that every change needs. A page of another origin cannot send it without a preflight, which is
/// never answered.
pub(super) const OWN_HEADER: &str = "x-broadgate-dashboard";

/// How browsers reach the dashboard.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PageOrigins<'u> {
    /// Behind a proxy.
    pub(super) url: Option<&'u str>,
    /// It speaks TLS itself: a page that came without is of somebody else.
    pub(super) has_tls: bool,
}

/// Whether a request was made by a page of the host to which it goes.
///
/// A browser names the page's origin in every request that could change something, and in the handshake of every
/// WebSocket; a page cannot alter it.
pub(super) fn is_of_own_page(headers: &HeaderMap, of: PageOrigins<'_>) -> bool {
    let one = |name| {
        let mut all = headers.get_all(name).iter();
        all.next().filter(|_| all.next().is_none()).and_then(|value| value.to_str().ok())
    };
    let (Some(origin), Some(host)) = (one(header::ORIGIN), one(header::HOST)) else { return false };
    if host.is_empty() {
        return false;
    }
    let site = headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin");
    let is_proxied = of.url.is_some_and(|url| origin.eq_ignore_ascii_case(url.trim_end_matches('/')));
    let schemes: &[&str] = if of.has_tls { &["https://"] } else { &["http://", "https://"] };
    let is_direct = schemes
        .iter()
        .any(|scheme| origin.strip_prefix(scheme).is_some_and(|named| named.eq_ignore_ascii_case(host)));
    site && (is_proxied || is_direct)
}

/// Whether a request that changes something may be carried out: by its headers.
pub(super) fn may_change(headers: &HeaderMap, of: PageOrigins<'_>) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().map(str::trim) == Some("application/json")
        && headers.contains_key(OWN_HEADER)
        && is_of_own_page(headers, of)
}

/// The value of a cookie.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: PageOrigins<'static> = PageOrigins { url: None, has_tls: false };

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in all {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn only_the_own_page_is_of_the_own_origin() {
        let proxied = PageOrigins { url: Some("https://ops.example.com/"), has_tls: false };
        let of = |origin: &str, host: &str| {
            is_of_own_page(&headers(&[("origin", origin), ("host", host)]), proxied)
        };
        assert!(of("http://127.0.0.1:7300", "127.0.0.1:7300"));
        assert!(of("https://[::1]:7300", "[::1]:7300"));
        assert!(of("https://ops.example.com", "127.0.0.1:7300"), "behind a proxy that replaces the host");
        for (origin, host) in [
            ("http://127.0.0.1:7301", "127.0.0.1:7300"),
            ("http://localhost:7300", "127.0.0.1:7300"),
            ("http://127.0.0.1", "127.0.0.1:7300"),
            ("https://ops.example.com.evil.example", "127.0.0.1:7300"),
            ("http://ops.example.com", "127.0.0.1:7300"),
            ("null", "127.0.0.1:7300"),
            ("", "127.0.0.1:7300"),
            ("http://", ""),
            ("ftp://127.0.0.1:7300", "127.0.0.1:7300"),
        ] {
            assert!(!of(origin, host), "{origin} {host}");
        }
        assert!(!is_of_own_page(&headers(&[("host", "a:1")]), NONE), "no origin");
        assert!(!is_of_own_page(&headers(&[("origin", "http://a:1")]), NONE), "no host");
        let tls = PageOrigins { url: None, has_tls: true };
        let secured = |origin| is_of_own_page(&headers(&[("origin", origin), ("host", "a:1")]), tls);
        assert!(
            secured("https://a:1") && !secured("http://a:1"),
            "it came over a connection of somebody else"
        );
        let twice = headers(&[("origin", "http://a:1"), ("origin", "http://b:1"), ("host", "a:1")]);
        assert!(!is_of_own_page(&twice, NONE));
        let site = |site| {
            let all = [("origin", "http://a:1"), ("host", "a:1"), ("sec-fetch-site", site)];
            is_of_own_page(&headers(&all), NONE)
        };
        assert!(site("same-origin") && !site("same-site") && !site("cross-site") && !site("none"));
    }

    #[test]
    fn changes_need_json_and_the_own_header() {
        let own = [("origin", "http://a:1"), ("host", "a:1")];
        let with = |more: &[(&'static str, &str)]| may_change(&headers(&[&own[..], more].concat()), NONE);
        assert!(with(&[("content-type", "application/json"), (OWN_HEADER, "1")]));
        assert!(with(&[("content-type", "application/json; charset=utf-8"), (OWN_HEADER, "1")]));
        assert!(!with(&[("content-type", "application/json")]));
        assert!(!with(&[("content-type", "text/plain"), (OWN_HEADER, "1")]));
        assert!(!with(&[(OWN_HEADER, "1")]));
        let json = [("content-type", "application/json"), (OWN_HEADER, "1"), ("host", "a:1")];
        assert!(!may_change(&headers(&json), NONE), "no origin");
    }

    #[test]
    fn cookie_is_found_by_its_whole_name() {
        let all = headers(&[("cookie", "a=1; broadgate-7300=key"), ("cookie", "b=x=y")]);
        assert_eq!(cookie(&all, "broadgate-7300"), Some("key"));
        assert_eq!(cookie(&all, "b"), Some("x=y"));
        assert_eq!(cookie(&all, "broadgate"), None);
    }
}
