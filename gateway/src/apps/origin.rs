//! Which pages may connect: patterns for the Origin header.

use std::fmt;

use serde::Deserialize;

/// One entry of an app's `origins`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AllowedOrigin {
    text: String,
    rule: Rule,
}

#[derive(Clone, PartialEq, Eq)]
enum Rule {
    /// `*`: everybody, also clients that send no Origin.
    Any,
    /// `null`, which browsers send for pages without an origin.
    Null,
    /// With a scheme: that origin. Without one: a host, whatever its scheme and, if none is given, port.
    Host { scheme: Option<String>, host: String, port: OriginPort },
}

#[derive(Clone, PartialEq, Eq)]
enum OriginPort {
    Any,
    Default,
    Is(u16),
}

impl AllowedOrigin {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Is a page of this origin meant? `origin` is the header's value, "" if there is none.
    #[must_use]
    pub fn fits(&self, origin: &str) -> bool {
        let (scheme, host, port) = match &self.rule {
            Rule::Any => return true,
            Rule::Null => return origin == "null",
            Rule::Host { scheme, host, port } => (scheme, host, port),
        };
        let origin = origin.to_ascii_lowercase();
        let Some((its_scheme, rest)) = origin.split_once("://") else { return false };
        let Some((its_host, its_port)) = split_host(rest) else { return false };
        let its_port = match its_port {
            None => OriginPort::Default,
            Some(text) => match text.parse() {
                Ok(number) => port_of(its_scheme, number),
                Err(_) => return false,
            },
        };
        scheme.as_deref().is_none_or(|scheme| scheme == its_scheme)
            && (*port == OriginPort::Any || *port == its_port)
            && matches(host.as_bytes(), its_host.as_bytes())
    }
}

impl fmt::Debug for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl TryFrom<String> for AllowedOrigin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if !text.is_ascii() {
            return Err(format!(
                "{text:?} is not an origin as browsers send it: write its host in ASCII (Punycode), such as \
                 \"https://xn--bcher-kva.example\" for \"https://bücher.example\""
            ));
        }
        let rule = match text.as_str() {
            "*" => Rule::Any,
            "null" => Rule::Null,
            _ => host_rule(&text.to_ascii_lowercase()).ok_or_else(|| {
                format!(
                    "{text:?} is not an origin: write \"https://www.example.com\" (no path, no slash at the end), \
                     \"https://*.example.com\", a host such as \"*.example.com\", or \"*\" for all"
                )
            })?,
        };
        Ok(Self { text, rule })
    }
}

fn host_rule(text: &str) -> Option<Rule> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if scheme.is_some_and(|scheme| scheme.is_empty() || !scheme.bytes().all(good)) {
        return None;
    }
    let (host, port) = split_host(rest)?;
    let port = match (port, scheme) {
        (Some("*"), _) | (None, None) => OriginPort::Any,
        (None, Some(_)) => OriginPort::Default,
        (Some(port), scheme) => port_of(scheme.unwrap_or_default(), port.parse().ok()?),
    };
    Some(Rule::Host { scheme: scheme.map(str::to_owned), host: host.to_owned(), port })
}

/// Browsers leave the scheme's own port out.
fn port_of(scheme: &str, number: u16) -> OriginPort {
    match (scheme, number) {
        ("http" | "ws", 80) | ("https" | "wss", 443) => OriginPort::Default,
        _ => OriginPort::Is(number),
    }
}

/// `host`, `host:port`, `[v6]:port`; none if it is more than that.
fn split_host(text: &str) -> Option<(&str, Option<&str>)> {
    let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
    let (host, rest) = text.split_at(end);
    let port = match rest {
        "" => None,
        _ => Some(rest.strip_prefix(':')?),
    };
    let foreign = |c: char| c.is_whitespace() || c.is_control() || "/?#@\\".contains(c);
    (!host.is_empty() && !host.contains(foreign)).then_some((host, port))
}

/// Does the text fit the pattern, whose `*` stands for any characters or none? Takes time that is
/// the product of both lengths at worst: it goes back to the last `*` only.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            last_star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star, from)) = last_star {
            last_star = Some((star, from + 1));
            p = star + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, origin: &str) -> bool {
        AllowedOrigin::try_from(pattern.to_owned()).unwrap().fits(origin)
    }

    #[test]
    fn an_origin_is_itself() {
        assert!(fits("https://www.example.com", "https://www.example.com"));
        assert!(fits("https://WWW.example.com:443", "https://www.example.com"));
        assert!(fits("http://localhost:3000", "http://localhost:3000"));
        assert!(fits("http://[::1]:3000", "http://[::1]:3000"));
        assert!(fits("capacitor://localhost", "capacitor://localhost"));
        assert!(fits("null", "null") && !fits("null", ""));
        for other in
            ["http://www.example.com", "https://www.example.com:8443", "https://example.com", "", "x"]
        {
            assert!(!fits("https://www.example.com", other), "{other}");
        }
    }

    #[test]
    fn a_star_stands_for_any_characters_of_the_host() {
        assert!(fits("https://*.example.com", "https://a.b.example.com"));
        assert!(fits("*.example.com", "http://a.example.com:8080"));
        assert!(fits("localhost", "http://localhost:5173"));
        assert!(fits("localhost:5173", "http://localhost:5173"));
        assert!(fits("http://localhost:*", "http://localhost:5173"));
        assert!(fits("*", "") && fits("*", "https://anywhere.example"));
        assert!(fits("a*b*c", "https://a--b-b-c"));
        for (pattern, origin) in [
            ("https://*.example.com", "https://example.com"),
            ("https://*.example.com", "https://a.example.com.evil.example"),
            ("https://*.example.com", "https://evil.example/.example.com"),
            ("https://*.example.com", "https://evil.example#.example.com"),
            ("https://*.example.com", "https://x@evil.example:1@.example.com"),
            ("*.example.com", "https://notexample.com"),
            ("*.example.com", "null"),
            ("localhost:80", "http://localhost:81"),
            ("a*b*c", "https://a--b-b-d"),
        ] {
            assert!(!fits(pattern, origin), "{pattern} {origin}");
        }
    }

    #[test]
    fn invalid_origins_are_explained() {
        for wrong in
            ["", "https://", "https://x.example/", "https://x.example/path", "a b", "://x", "x:y", "[::1"]
        {
            let error = AllowedOrigin::try_from(wrong.to_owned()).unwrap_err();
            assert!(error.contains("is not an origin") && error.contains("https://"), "{error}");
        }
        for wrong in ["https://bücher.example", "*.例え.jp"] {
            let error = AllowedOrigin::try_from(wrong.to_owned()).unwrap_err();
            assert!(error.contains("xn--"), "browsers send Punycode, so it would fit nobody: {error}");
        }
        assert!(fits("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"));
    }
}
