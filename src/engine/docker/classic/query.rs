//! Build options as parameters of `POST /build`.
//!
//! Parameters without a value are left out: Podman refuses some of them, e.g. `cachefrom=[]`.

use std::collections::BTreeMap;

use serde_json::json;

use crate::daemon::Product;
use crate::daemon::query::Query;
use crate::error::{Error, Result};
use crate::request::BuildOptions;

/// The query string, without `?`.
pub(super) fn query(
    options: &BuildOptions,
    build_args: &BTreeMap<String, Option<String>>,
    dockerfile: &str,
    product: Product,
) -> Result<String> {
    let mut query = Query::default();
    query.add("dockerfile", dockerfile);
    query.flag("rm", options.rm.unwrap_or(true));
    // Without this a cancelled or failed RUN would leave its container behind.
    query.flag("forcerm", options.force_rm.unwrap_or(options.rm != Some(false)));
    query.some("target", options.target.as_ref());
    query.some("platform", options.platform());
    query.some("networkmode", options.network.as_ref());
    query.some("shmsize", options.shm_size);
    query.some("cgroupparent", options.cgroup_parent.as_ref());
    query.some("memory", options.memory);
    query.some("memswap", options.memory_swap);
    query.some("cpusetcpus", options.cpuset_cpus.as_ref());
    query.some("cpushares", options.cpu_shares);
    query.some("cpuperiod", options.cpu_period);
    query.some("cpuquota", options.cpu_quota);
    for (name, set) in [("nocache", options.no_cache), ("pull", options.pull), ("squash", options.squash)] {
        if set {
            query.flag(name, true);
        }
    }
    if !build_args.is_empty() {
        query.add("buildargs", &json!(build_args).to_string());
    }
    if !options.labels.is_empty() {
        query.add("labels", &json!(options.labels).to_string());
    }
    if !options.cache_from.is_empty() {
        let names: Vec<String> = options.cache_from.iter().map(ToString::to_string).collect();
        query.add("cachefrom", &json!(names).to_string());
    }
    if !options.ulimits.is_empty() {
        let limits: Vec<_> = options.ulimits.iter().map(|text| ulimit(text)).collect::<Result<_>>()?;
        query.add("ulimits", &json!(limits).to_string());
    }
    let hosts: Vec<String> = options.add_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect();
    match product {
        Product::Docker => hosts.iter().for_each(|host| query.add("extrahosts", host)),
        Product::Podman if hosts.is_empty() => {}
        Product::Podman => query.add("extrahosts", &json!(hosts).to_string()),
    }
    Ok(query.0)
}

/// `name=soft[:hard]`, as the Docker CLI reads it.
fn ulimit(text: &str) -> Result<serde_json::Value> {
    let invalid = || Error::InvalidOption {
        name: "ulimits".into(),
        reason: format!("`{text}` is not name=soft[:hard] with numbers, soft at most hard"),
    };
    let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard): (i64, i64) = (soft.parse().map_err(|_| invalid())?, hard.parse().map_err(|_| invalid())?);
    if name.is_empty() || (hard >= 0 && soft > hard) {
        return Err(invalid());
    }
    Ok(json!({ "Name": name, "Soft": soft, "Hard": hard }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_sent() {
        let query =
            |options: &BuildOptions| query(options, &options.build_args, "Dockerfile", Product::Docker).unwrap();
        assert_eq!(query(&BuildOptions::default()), "dockerfile=Dockerfile&rm=1&forcerm=1");
        let options = BuildOptions {
            build_args: BTreeMap::from([("A".into(), Some("1 2".into())), ("B".into(), None)]),
            ulimits: vec!["nofile=1:2".into()],
            add_hosts: BTreeMap::from([("h".into(), "1.2.3.4".into()), ("i".into(), "::1".into())]),
            memory: Some(5 << 30),
            rm: Some(false),
            ..BuildOptions::default()
        };
        assert_eq!(
            query(&options),
            "dockerfile=Dockerfile&rm=0&forcerm=0&memory=5368709120&buildargs=%7B%22A%22%3A%221%202%22%2C%22B%22%3Anull%7D\
             &ulimits=%5B%7B%22Name%22%3A%22nofile%22%2C%22Soft%22%3A1%2C%22Hard%22%3A2%7D%5D\
             &extrahosts=h%3A1.2.3.4&extrahosts=i%3A%3A%3A1"
        );
    }

    #[test]
    fn a_wrong_ulimit_is_an_error() {
        for text in ["nofile", "=1", "nofile=x", "nofile=3:2"] {
            assert_eq!(ulimit(text).unwrap_err().code(), "invalid-option", "{text}");
        }
        assert!(ulimit("nofile=5:-1").is_ok());
    }
}
