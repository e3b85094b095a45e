//! Where a registry may send us, and where its credentials go.

use http::{HeaderMap, header};
use url::Url;

use super::host::Host;
use super::refusal::shown;

impl Host {
    /// Whether a URL is one of the registry itself: only there do its credentials go.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        let base = self.base.get().unwrap_or(&self.root);
        url.origin() == base.origin()
    }

    /// Whether the registry itself is spoken to without TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.base.get().is_some_and(|base| base.scheme() == "http")
    }

    /// Its host and port.
    pub(super) fn authority(&self) -> String {
        authority(&self.root)
    }
}

/// Where an answer to `from` sends us. The error is a reason, and holds no more than the host: addresses are signed.
pub(super) fn redirect(from: &Url, headers: &HeaderMap) -> Result<Url, String> {
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let mut url = from.join(location.ok_or("it redirects to nowhere")?).map_err(|_| "its redirect is no URL")?;
    // What a URL carries in front of its host would become a header.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if from.scheme() == "https" && url.scheme() == "http" {
        // A registry behind a proxy that does TLS for it may not know that there is TLS.
        if url.host_str() != from.host_str() || url.port().is_some_and(|port| Some(port) != from.port()) {
            return Err(format!("it redirects to {} without TLS", shown(url.host_str().unwrap_or_default())));
        }
        let _ = url.set_scheme("https");
        let _ = url.set_port(from.port());
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err("it redirects to something other than HTTP".into());
    }
    Ok(url)
}

/// Host and, unless it is the scheme's own, port.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::environment::Environment;
    use crate::registry::client::auth::Auth;
    use crate::registry::client::certs::Tls;
    use crate::registry::client::host::Schemes;
    use crate::registry::client::retry::Limits;
    use crate::registry::credentials::Anonymous;

    fn host() -> Host {
        let environment = Environment::with("/nonexistent", [("A", "b")]);
        let tls = Tls::new("r.example:5000", &environment, false);
        let root = "https://r.example:5000/".parse().unwrap();
        Host::new("r.example:5000", root, Schemes::Tls, tls, Auth::new(Arc::new(Anonymous)), Limits::default())
    }

    fn to(location: &str) -> Result<String, String> {
        let from: Url = "https://r.example:5000/v2/a/blobs/uploads/".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, location.parse().unwrap());
        redirect(&from, &headers).map(String::from)
    }

    #[test]
    fn locations_are_resolved() {
        assert_eq!(
            to("/v2/a/blobs/uploads/1?_state=a%2Fb%3D").unwrap(),
            "https://r.example:5000/v2/a/blobs/uploads/1?_state=a%2Fb%3D"
        );
        assert_eq!(to("1").unwrap(), "https://r.example:5000/v2/a/blobs/uploads/1");
        assert_eq!(to("https://s.example/x").unwrap(), "https://s.example/x");
        assert_eq!(to("https://me:pw@s.example/x").unwrap(), "https://s.example/x");
        assert_eq!(to("//s.example/x").unwrap(), "https://s.example/x");
    }

    #[test]
    fn tls_is_kept() {
        // A proxy does TLS for this registry.
        assert_eq!(to("http://r.example/v2/x").unwrap(), "https://r.example:5000/v2/x");
        assert_eq!(to("http://r.example:5000/v2/x").unwrap(), "https://r.example:5000/v2/x");
        for location in
            ["http://s.example/?sig=hunter2", "http://r.example:81/", "ftp://s.example/", "file:///x", "https://"]
        {
            let reason = to(location).unwrap_err();
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }

    #[test]
    fn credentials_stay_with_scheme_host_and_port() {
        let host = host();
        let own = |url: &str| host.is_own(&url.parse().unwrap());
        assert!(own("https://r.example:5000/x") && own("https://R.example:5000/"));
        for other in [
            "https://r.example/",
            "http://r.example:5000/",
            "https://r.example.evil:5000/",
            "https://r.example:5000@evil/",
        ] {
            assert!(!own(other), "{other}");
        }
    }
}
