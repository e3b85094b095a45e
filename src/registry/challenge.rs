//! `WWW-Authenticate` of a registry (RFC 9110, 11.6.1; distribution spec, "token authentication").

use std::collections::BTreeMap;

/// How a registry wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from `realm`.
    Bearer {
        /// URL of the token service.
        realm: String,
        /// What the token is for, as the registry calls itself.
        service: Option<String>,
        /// What a token has to allow, separated by spaces.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The first scheme of a header that we know.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut parameters = parameters(rest);
        Some(Self::Bearer {
            realm: parameters.remove("realm")?,
            service: parameters.remove("service"),
            scope: parameters.remove("scope"),
        })
    }
}

/// `key="value", key=value`; a backslash quotes within quotes.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text.trim();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => after.split_once(',').map_or((after.trim().to_owned(), ""), |(v, r)| (v.trim().to_owned(), r)),
        };
        found.insert(key.trim().to_ascii_lowercase(), value);
        rest = after.trim_start_matches([',', ' ']);
    }
    found
}

/// The text up to the closing quote, and what follows.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, quoted)| quoted)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_real_registries() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: Some("registry.docker.io".into()),
            scope: None,
        };
        assert_eq!(Challenge::parse(hub), Some(expected));
        assert_eq!(Challenge::parse("Basic realm=\"Registry Realm\""), Some(Challenge::Basic));
        let commas = r#"bearer service=x, realm="https://a/?q=\"1,2\"",scope="repository:a:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://a/?q=\"1,2\"".into(),
            service: Some("x".into()),
            scope: Some("repository:a:pull,push".into()),
        };
        assert_eq!(Challenge::parse(commas), Some(expected));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=x"), None);
    }

    proptest::proptest! {
        #[test]
        fn quoted_values_come_back(realm in "\\PC{1,40}", scope in "[ -~]{0,40}", junk in ".*") {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer scope=\"{}\" , realm=\"{}\",{junk}", quoted(&scope), quoted(&realm));
            let found = Challenge::parse(&header);
            let Some(Challenge::Bearer { realm: r, scope: s, .. }) = found else { panic!("{found:?} of {header}") };
            // What follows may name them again.
            proptest::prop_assert!(junk.contains('=') || (r == realm && s == Some(scope)));
        }
    }
}
