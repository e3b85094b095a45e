//! What ADD brings from elsewhere: files of the web, and git repositories.
//!
//! Everything lands in the temporary directory that the caller names, and is gone when the result is dropped. Errors have no
//! place in a Dockerfile yet; who has one puts it in.

pub mod git;
pub mod http;

use url::Url;

use crate::error::Error;
use crate::secret::Secret;

/// Looks up a secret of the build by its name (`GIT_AUTH_TOKEN.github.com`).
pub type Secrets<'a> = dyn Fn(&str) -> Option<Secret<String>> + Sync + 'a;

/// `Error::FetchFailed` for an address, which is shown without what may be secret.
fn failed(url: &str, reason: impl Into<String>) -> Error {
    Error::FetchFailed { location: None, url: redacted(url), reason: reason.into() }
}

/// An address without its user, its password and the values of its query: signed addresses have their keys there.
fn redacted(text: &str) -> String {
    // The short form of SSH (`git@host:path`) is no URL. It cannot hold a password.
    if !text.contains("://") {
        return text.to_owned();
    }
    let Ok(mut url) = Url::parse(text) else { return "the address".to_owned() };
    // Both fail for addresses that cannot have a user, and those have none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if url.query().is_some() {
        url.set_query(Some("..."));
    }
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_show_addresses_without_secrets() {
        let cases = [
            ("https://me:hunter2@x.test/a?X-Amz-Signature=hunter2#hunter2", "https://x.test/a?..."),
            ("https://hunter2@x.test:8443/a.git", "https://x.test:8443/a.git"),
            ("git@x.test:a/b.git", "git@x.test:a/b.git"),
            ("https://hunter2:hunter2@", "the address"),
        ];
        for (url, shown) in cases {
            assert_eq!(redacted(url), shown);
        }
        let error = failed("http://a:hunter2@x/", "no");
        assert_eq!(error.to_string(), "cannot fetch `http://x/`: no");
    }
}
