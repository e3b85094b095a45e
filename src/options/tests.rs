use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;
use crate::request::{CacheMode, CacheSpec, CompressionAlgorithm, Output, RegistryCache, SecretSource};

/// A value in JSON.
fn value(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

fn read(json: &str) -> Result<BuildOptions> {
    normalize(value(json))
}

fn reason(json: &str) -> String {
    match read(json) {
        Err(Error::InvalidOption { reason, .. }) => reason,
        other => panic!("{json}: {other:?}"),
    }
}

#[test]
fn the_three_vocabularies_mean_the_same() {
    let cli = read(
        r#"{"build-arg": ["A=1"], "no-cache": true, "shm-size": "64m", "network": "host", "add-host": ["a:1.2.3.4"], "force-rm": true}"#,
    );
    let py = read(
        r#"{"buildargs": {"A": "1"}, "nocache": 1, "shmsize": 67108864, "network_mode": "host", "extra_hosts": {"a": "1.2.3.4"}, "forcerm": true}"#,
    );
    let zenml = read(
        r#"{"build_args": {"A": 1}, "no_cache": "true", "shm_size": "65536k", "--network": "host", "add_host": "a=1.2.3.4", "force_rm": "t"}"#,
    );
    let [cli, py, zenml] = [cli, py, zenml].map(|options| format!("{:?}", options.unwrap()));
    assert_eq!(cli, py);
    assert_eq!(cli, zenml);
    assert!(cli.contains("shm_size: Some(67108864)"), "{cli}");
}

#[test]
fn a_typo_is_told() {
    for (given, meant) in
        [("buld-args", "build_args"), ("labesl", "label"), ("no-chace", "no-cache"), ("tagret", "target")]
    {
        match read(&format!(r#"{{"{given}": "x"}}"#)) {
            Err(Error::UnknownOption { name, suggestion }) => {
                assert_eq!((name.as_str(), suggestion.as_deref()), (given, Some(meant)));
            }
            other => panic!("{given}: {other:?}"),
        }
    }
    assert!(matches!(read(r#"{"xyzzy": 1}"#), Err(Error::UnknownOption { suggestion: None, .. })));
    assert!(matches!(
        read(r#"{"container_limits": {"memroy": 1}}"#),
        Err(Error::UnknownOption { suggestion: Some(name), .. }) if name == "memory"
    ));
}

#[test]
fn what_belongs_elsewhere_says_where() {
    assert!(reason(r#"{"tag": "x"}"#).contains("--tag"));
    assert!(reason(r#"{"push": true}"#).contains("--push"));
    assert!(reason(r#"{"isolation": "hyperv"}"#).contains("Windows"));
    assert!(reason(r#"{"progress": "plain"}"#).contains("progress"));
    assert!(read(r#"{"provenance": false}"#).is_ok());
}

#[test]
fn no_name_stands_twice() {
    let mut names = BTreeSet::new();
    let known = OPTIONS
        .iter()
        .flat_map(|known| std::iter::once(normal(known.name)).chain(known.aliases.iter().map(|name| normal(name))));
    let elsewhere = ELSEWHERE.iter().flat_map(|(names, _)| names.iter().map(|name| normal(name)));
    for name in known.chain(elsewhere) {
        assert!(names.insert(name.clone()), "{name}");
    }
    assert!(names.len() > 80, "{}", names.len());
}

#[test]
fn none_is_not_given() {
    let options = read(r#"{"target": null, "build_args": {"A": null, "B": ""}, "labels": null}"#).unwrap();
    assert_eq!(options.target, None);
    assert_eq!(
        options.build_args.into_iter().collect::<Vec<_>>(),
        [("A".into(), None), ("B".into(), Some(String::new()))]
    );
}

#[test]
fn one_option_under_two_names_is_refused() {
    assert!(reason(r#"{"buildargs": {}, "build-arg": ["A=1"]}"#).contains("buildargs"));
}

#[test]
fn sizes() {
    for (text, size) in [
        ("\"64m\"", 64 << 20),
        ("\"1g\"", 1 << 30),
        ("\"1.5g\"", 3 << 29),
        ("\"512 KiB\"", 512 << 10),
        ("\"100\"", 100),
        ("\"1TB\"", 1 << 40),
        ("7", 7),
        ("\".5k\"", 512),
    ] {
        assert_eq!(read(&format!(r#"{{"shm_size": {text}}}"#)).unwrap().shm_size, Some(size), "{text}");
    }
    for text in ["\"\"", "\"m\"", "\"-1\"", "-1", "true", "\"1x\"", "\"99999999999g\"", "1.5", "\"1.2.3m\""] {
        reason(&format!(r#"{{"shm_size": {text}}}"#));
    }
    assert_eq!(read(r#"{"memory-swap": -1, "memory": "1g"}"#).unwrap().memory_swap, Some(-1));
    assert_eq!(
        read(r#"{"container_limits": {"memory": 5, "memswap": -1, "cpushares": 2, "cpusetcpus": "0-1"}}"#)
            .unwrap()
            .cpu_shares,
        Some(2)
    );
}

#[test]
fn wrong_kinds_are_refused_without_the_value() {
    for json in [
        r#"{"build_args": {"TOKEN": true}}"#,
        r#"{"build_args": {"TOKEN": ["hunter2"]}}"#,
        r#"{"build_args": 5}"#,
        r#"{"labels": {"a": {"b": "hunter2"}}}"#,
        r#"{"no_cache": "hunter2"}"#,
        r#"{"target": ["hunter2"]}"#,
        r#"{"build_args": ["=hunter2"]}"#,
        r#"{"secret": "id=a,value=x,src=hunter2"}"#,
        r#"{"secret": "hunter2"}"#,
        r#"{"secret": [{"id": "a", "value": 5}]}"#,
        r#"{"cpu_quota": "hunter2"}"#,
        r#"{"ulimit": ["nofile=9:8"]}"#,
        r#"{"ulimit": ["nofile"]}"#,
        r#"{"add_host": ["a:hostname"]}"#,
        r#"{"platform": ["linux/amd64", "linux/amd64"]}"#,
        r#"{"build_context": ["a"]}"#,
    ] {
        assert!(!reason(json).contains("hunter2"), "{json}");
    }
    assert!(matches!(normalize(value("[1]")), Err(Error::InvalidOption { .. })));
    assert!(matches!(read(r#"{"platform": "linux"}"#), Err(Error::InvalidPlatform { .. })));
}

#[test]
fn secrets_in_every_form() {
    let options = read(
        r#"{"secrets": ["id=a,src=/etc/a", "type=env,id=b,src=B", {"id": "c", "value": "x"}, "id=PATH", "id=no_such_variable", "\"id=q,src=a,b\""]}"#,
    );
    let sources: Vec<_> = options.unwrap().secrets.into_iter().map(|secret| (secret.id, secret.source)).collect();
    assert!(matches!(&sources[0].1, SecretSource::File(path) if path.as_os_str() == "/etc/a"));
    assert!(matches!(&sources[1], (id, SecretSource::Env(name)) if id == "b" && name == "B"));
    assert!(matches!(&sources[2].1, SecretSource::Value(value) if value.expose().as_slice() == b"x"));
    assert!(matches!(&sources[3].1, SecretSource::Env(name) if name == "PATH"));
    assert!(matches!(&sources[4].1, SecretSource::File(path) if path.as_os_str() == "no_such_variable"));
    let options = read(r#"{"secret": {"a": {"env": "A"}, "b": "src=/b"}}"#).unwrap();
    assert_eq!(options.secrets.len(), 2);
}

#[test]
fn ssh_hosts_limits_and_contexts() {
    let options = read(
        r#"{"ssh": ["default", "git=/a,/b"], "extra_hosts": ["a:::1", "b=[::1]", "c:host-gateway"],
            "ulimit": ["nofile=5:10", {"Name": "nproc", "Soft": 1, "Hard": 2}], "build_context": ["base=docker-image://x"]}"#,
    )
    .unwrap();
    assert_eq!(options.ssh[0].paths, Vec::<PathBuf>::new());
    assert_eq!(options.ssh[1].paths, [PathBuf::from("/a"), PathBuf::from("/b")]);
    assert_eq!(options.add_hosts["a"], "::1");
    assert_eq!(options.add_hosts["b"], "::1");
    assert_eq!(options.ulimits, ["nofile=5:10", "nproc=1:2"]);
    assert_eq!(options.build_contexts["base"], "docker-image://x");
    assert_eq!(read(r#"{"ulimits": {"nofile": 7, "core": "-1"}}"#).unwrap().ulimits, ["nofile=7:7", "core=-1:-1"]);
}

#[test]
fn every_option_can_be_set() {
    let samples = value(
        r#"{"build-arg": ["A=1"], "label": ["a=b"], "target": "t", "platform": "linux/amd64", "no-cache": true, "pull": true,
            "rm": false, "force-rm": true, "squash": true, "shm-size": 1, "network": "none", "add-host": ["a:::1"],
            "cache-from": "x", "cache-to": ["type=inline"], "secret": "id=a", "ssh": true, "build-context": {"a": "b"},
            "ulimit": "core=1", "cgroup-parent": "x", "memory": 1, "memory-swap": 1, "cpuset-cpus": 0, "cpu-shares": 1,
            "cpu-period": 1, "cpu-quota": 1, "container-limits": {"memory": 1}, "source-date-epoch": 1,
            "no-cache-filter": "a", "compression": "zstd", "force-compression": true, "oci-mediatypes": true, "annotation": "a=b",
            "attest": "type=sbom", "allow": "network.host", "fold": false, "provenance": true, "sbom": "generator=x"}"#,
    );
    let Value::Map(pairs) = samples else { unreachable!() };
    assert_eq!(pairs.iter().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>(), names().into_keys().collect());
    let empty = format!("{:?}", BuildOptions::default());
    for (name, value) in pairs {
        let alone = normalize(Value::Map(vec![(name.clone(), value)])).unwrap();
        assert_ne!(format!("{alone:?}"), empty, "{name}");
    }
}

#[test]
fn defaults_give_way() {
    let options = value(
        r#"{"buildargs": {"A": "given"}, "no_cache": false, "secret": ["id=a,env=GIVEN"], "cache_from": ["given"]}"#,
    );
    let defaults = value(
        r#"{"build-arg": {"A": "default", "B": "default"}, "no-cache": true, "platform": "linux/arm64", "ssh": [],
            "secret": ["id=a,env=DEFAULT", "id=b,env=B"], "cache-from": ["default"], "target": null}"#,
    );
    let options = normalize_with_defaults(options, defaults).unwrap();
    assert_eq!(options.build_args["A"].as_deref(), Some("given"));
    assert_eq!(options.build_args["B"].as_deref(), Some("default"));
    assert!(!options.no_cache);
    assert_eq!(options.platform().unwrap().architecture, "arm64");
    assert_eq!(options.cache_from, [CacheSpec::Image("given".parse().unwrap())]);
    let ids: Vec<_> = options.secrets.iter().map(|secret| secret.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert!(matches!(&options.secrets[0].source, SecretSource::Env(name) if name == "GIVEN"));
}

#[test]
fn compressions() {
    let read = |text: &str| {
        let options = read(&format!(r#"{{"compression": "{text}"}}"#)).map(|options| options.compression.unwrap());
        options.map(|spec| (spec.algorithm, spec.level))
    };
    assert_eq!(read("gzip").unwrap(), (CompressionAlgorithm::Gzip, None));
    assert_eq!(read("gzip:12").unwrap(), (CompressionAlgorithm::Gzip, Some(12)));
    assert_eq!(read("zstd").unwrap(), (CompressionAlgorithm::Zstd, None));
    assert_eq!(read("zstd:22").unwrap(), (CompressionAlgorithm::Zstd, Some(22)));
    for (text, said) in [
        ("zstd:0", "1 to 22"),
        ("zstd:23", "1 to 22"),
        ("gzip:13", "1 to 12"),
        ("gzip:-1", "1 to 12"),
        ("zstd:", "1 to 22"),
        ("zstd:fast", "1 to 22"),
        ("estargz", "neither"),
        ("uncompressed", "neither"),
        ("", "empty"),
    ] {
        match read(text) {
            Err(Error::InvalidOption { name, reason }) => {
                assert_eq!(name, "compression");
                assert!(reason.contains(said), "{text}: {reason}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn stages_without_the_cache_have_names() {
    let stages = |json: &str| read(&format!(r#"{{"no-cache-filter": {json}}}"#)).map(|found| found.no_cache_filter);
    assert_eq!(stages(r#""build""#).unwrap(), ["build"]);
    assert_eq!(stages(r#"["a, b", 0]"#).unwrap(), ["a", "b", "0"]);
    assert!(stages(r#""a,,b""#).is_err());
}

#[test]
fn caches_in_every_form() {
    let caches = |json: &str| read(&format!(r#"{{"cache-to": {json}}}"#)).map(|options| options.cache_to);
    assert_eq!(caches(r#""localhost:5000/a:b""#).unwrap(), [CacheSpec::Image("localhost:5000/a:b".parse().unwrap())]);
    let text = "type=registry,mode=max,ref=example.com/a,ignore-error=true,oci-mediatypes=true";
    let expected = CacheSpec::Registry(RegistryCache {
        reference: "example.com/a".parse().unwrap(),
        mode: Some(CacheMode::Max),
        ignore_error: true,
        attributes: [("oci-mediatypes".to_owned(), "true".to_owned())].into(),
    });
    let gha = CacheSpec::Other("gha".into(), [("scope".to_owned(), "x".to_owned())].into());
    let found = caches(&format!(r#"["{text}", "type=gha,scope=x"]"#));
    assert_eq!(found.unwrap(), [expected.clone(), gha]);
    let mapping = r#"{"type": "registry", "mode": "max", "ref": "example.com/a", "ignore_error": true, "oci_mediatypes": "true"}"#;
    assert_eq!(caches(mapping).unwrap()[0], expected);
    let written = "type=registry,ignore-error=true,mode=max,oci-mediatypes=true,ref=example.com/a";
    assert_eq!(expected.to_string(), written);
    assert_eq!(caches(&format!("\"{written}\"")).unwrap(), [expected]);
    let quoted = CacheSpec::Other("s3".into(), [("name".to_owned(), "a,b".to_owned())].into());
    assert_eq!(quoted.to_string(), r#"type=s3,"name=a,b""#);
    assert_eq!(caches(&serde_json::to_string(&quoted.to_string()).unwrap()).unwrap(), [quoted]);
    for (json, said) in [
        (r#""ref=a/b""#, "`type=` is missing"),
        (r#""type=registry""#, "type=registry,ref=NAME"),
        (r#""type=registry,hunter2""#, "type=KIND,key=value"),
        (r#""type=registry,ref=a,ref=b""#, "`ref` is given twice"),
        (r#""type=registry,ref=a,mode=all""#, "min or max"),
        (r#""type=registry,ref=a,ignore-error=maybe""#, "true or false"),
        (r#""type=s3,\"secret=hunter2""#, "quotation mark"),
        (r#"{"ref": "a"}"#, "`type=` is missing"),
        (r#"{"type": "registry", "ref": ["hunter2"]}"#, "`ref` is a list"),
        ("5", "an integer"),
    ] {
        let reason = reason(&format!(r#"{{"cache-to": {json}}}"#));
        assert!(reason.contains(said) && !reason.contains("hunter2"), "{json}: {reason}");
    }
    assert!(matches!(caches(r#""type=registry,ref=A B""#), Err(Error::InvalidReference { .. })));
    assert!(matches!(caches(r#""UPPER""#), Err(Error::InvalidReference { .. })));
}

#[test]
fn outputs_in_every_form() {
    let found = outputs(value(
        r#"["type=docker", "type=docker,dest=a.tar", "type=oci,dest=b", "type=oci,dest=c,tar=true", "type=local,dest=d", "e",
            {"type": "oci", "dest": "f", "tar": false}]"#,
    ))
    .unwrap();
    assert!(!found.push);
    let expected = [
        Output::Docker { dest: None },
        Output::Docker { dest: Some("a.tar".into()) },
        Output::Oci { dest: "b".into(), tar: None },
        Output::Oci { dest: "c".into(), tar: Some(true) },
        Output::Local { dest: "d".into() },
        Output::Local { dest: "e".into() },
        Output::Oci { dest: "f".into(), tar: Some(false) },
    ];
    assert_eq!(found.outputs, expected);
    for text in ["type=registry", "type=image,push=true"] {
        assert_eq!(outputs(Value::Text(text.into())).unwrap(), Outputs { push: true, outputs: vec![] }, "{text}");
    }
    let kept = Outputs { push: false, outputs: vec![Output::Store] };
    assert_eq!(outputs(Value::Text("type=image".into())).unwrap(), kept);
    assert_eq!(outputs(Value::Null).unwrap(), Outputs::default());
}

#[test]
fn a_wrong_output_is_explained() {
    for (json, said) in [
        (r#""-""#, "stdout"),
        (r#""type=oci,dest=-""#, "stdout"),
        (r#""type=oci""#, "`type=oci,dest=PATH`"),
        (r#""type=local""#, "`type=local,dest=PATH`"),
        (r#""type=local,dest=""#, "`dest` is empty"),
        (r#""type=oci,dest=a,tar=maybe""#, "true or false"),
        (r#""type=oci,dst=a,dest=b""#, "did you mean `dest`?"),
        (r#""type=docker,dest=a,compression=zstd""#, "--compression"),
        (r#""type=registry,name=a""#, "--tag"),
        (r#""type=registry,dest=a""#, "no attribute `dest`"),
        (r#""type=tar,dest=a""#, "type=local"),
        (r#""type=orb""#, "docker, oci, local"),
        (r#""dest=a""#, "`type=` is missing"),
        (r#""""#, "type=KIND"),
        (r#"{"dest": "a"}"#, "`type=` is missing"),
        ("[5]", "an integer"),
    ] {
        match outputs(value(json)) {
            Err(Error::InvalidOption { name, reason }) => {
                assert_eq!(name, "output");
                assert!(reason.contains(said), "{json}: {reason}");
            }
            other => panic!("{json}: {other:?}"),
        }
    }
}
