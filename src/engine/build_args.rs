//! Build arguments as the Docker CLI completes them.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::environment::Environment;

/// Names of the proxy settings in a Docker config, and of the build arguments that they become.
const PROXIES: &[(&str, &str)] = &[
    ("httpProxy", "HTTP_PROXY"),
    ("httpsProxy", "HTTPS_PROXY"),
    ("noProxy", "NO_PROXY"),
    ("ftpProxy", "FTP_PROXY"),
    ("allProxy", "ALL_PROXY"),
];

/// Arguments without a value get that of the environment; the proxies that the Docker config names for this daemon (or
/// for all) are added where the caller gave none. The builders leave proxies out of the image and its cache.
pub(super) fn complete(
    given: &BTreeMap<String, Option<String>>,
    daemon: &str,
    environment: &Environment,
) -> BTreeMap<String, Option<String>> {
    let from_environment = |(name, value): (&String, &Option<String>)| {
        let value = value.clone().or_else(|| environment.var(name).map(str::to_owned));
        (name.clone(), value)
    };
    let mut arguments: BTreeMap<String, Option<String>> = given.iter().map(from_environment).collect();
    let config = environment
        .docker_config_dir()
        .and_then(|folder| fs::read(folder.join("config.json")).ok())
        .and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let Some(proxies) = config.as_ref().and_then(|config| config.get("proxies")) else { return arguments };
    let Some(proxies) = proxies.get(daemon).or_else(|| proxies.get("default")) else { return arguments };
    for (setting, name) in PROXIES {
        let Some(value) = proxies.get(setting).and_then(Value::as_str).filter(|value| !value.is_empty()) else {
            continue;
        };
        for name in [(*name).to_owned(), name.to_lowercase()] {
            arguments.entry(name).or_insert_with(|| Some(value.to_owned()));
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_and_the_proxies_of_the_config_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let config =
            r#"{"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "x"}, "tcp://a:1": {"httpProxy": "q"}}}"#;
        fs::write(folder.path().join("config.json"), config).unwrap();
        let variables = [("DOCKER_CONFIG", folder.path().to_str().unwrap()), ("FROM_ENV", "e")];
        let environment = Environment::with("/", variables);
        let given = BTreeMap::from([
            ("FROM_ENV".to_owned(), None),
            ("UNSET".to_owned(), None),
            ("no_proxy".to_owned(), Some("mine".to_owned())),
        ]);
        let arguments = complete(&given, "unix:///var/run/docker.sock", &environment);
        let value = |name: &str| arguments.get(name).cloned();
        assert_eq!(value("FROM_ENV"), Some(Some("e".into())));
        assert_eq!(value("UNSET"), Some(None));
        assert_eq!(value("HTTP_PROXY"), Some(Some("http://p:1".into())));
        assert_eq!(value("http_proxy"), Some(Some("http://p:1".into())));
        assert_eq!(value("no_proxy"), Some(Some("mine".into())));
        assert_eq!(value("NO_PROXY"), Some(Some("x".into())));
        assert_eq!(complete(&given, "tcp://a:1", &environment)["HTTP_PROXY"], Some("q".into()));
    }
}
