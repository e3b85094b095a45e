//! Where a BuildKit is: the forms of `BUILDKIT_HOST`, and `docker://` for the one inside a Docker daemon.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::daemon::address::Address;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::net::program::Program;
use crate::net::ssh::Behind;
use crate::request::EngineSpec;

/// buildkitd's own port, by convention.
const PORT: u16 = 1234;

/// A BuildKit's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// For people; no credentials are in it.
    pub(super) text: String,
    pub(super) way: Way,
}

/// How to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A socket or a port.
    Socket(Address),
    /// A program that runs `buildctl dial-stdio` over there.
    Program(Program),
    /// Inside a Docker daemon: its address, or the Docker CLI's where `None`.
    Docker(Option<String>),
}

/// The addresses of a request: those that it names, `BUILDKIT_HOST` (several with commas between them), or buildkitd's own.
///
/// Fails with `DaemonConfig` for one that cannot be read, and for one that stands there twice.
pub(super) fn places(spec: &EngineSpec, environment: &Environment, timeout: Duration) -> Result<Vec<Place>> {
    let secure = spec.tls.is_some();
    let (texts, setting) = if !spec.endpoints.is_empty() {
        (spec.endpoints.clone(), "the given endpoint")
    } else if let Some(text) = environment.var("BUILDKIT_HOST") {
        (text.split(',').map(|text| text.trim().to_owned()).collect(), "BUILDKIT_HOST")
    } else {
        (vec![default_address(environment)], "the default address")
    };
    let mut places: Vec<Place> = Vec::new();
    for text in &texts {
        let place = parse(text, secure, setting, timeout)?;
        if places.iter().any(|other| other.text == place.text) {
            let reason = format!("`{}` is given twice", place.text);
            return Err(Error::DaemonConfig { setting: setting.to_owned(), reason });
        }
        places.push(place);
    }
    Ok(places)
}

/// As buildctl: the rootless socket of this user where there is one, else the system's.
fn default_address(environment: &Environment) -> String {
    let system = environment.well_known("/run/buildkit/buildkitd.sock");
    let rootless = environment.path("XDG_RUNTIME_DIR").map(|folder| folder.join("buildkit/buildkitd.sock"));
    let path: PathBuf = rootless.filter(|path| path.exists()).unwrap_or(system);
    format!("unix://{}", path.display())
}

fn parse(text: &str, secure: bool, setting: &str, timeout: Duration) -> Result<Place> {
    let invalid = |reason: &str| Error::DaemonConfig { setting: setting.to_owned(), reason: reason.to_owned() };
    let text = text.trim();
    let (scheme, rest) =
        text.split_once("://").unwrap_or(if text.starts_with('/') { ("unix", text) } else { ("", text) });
    let way = match scheme {
        "unix" => Way::Socket(Address::parse(&format!("unix://{rest}"), false, setting)?),
        "tcp" | "https" => Way::Socket(Address::parse(&with_port(scheme, rest), secure, setting)?),
        "ssh" => match Address::parse(text, false, setting)? {
            Address::Ssh(target) => Way::Program(target.program(Behind::Buildkitd, timeout)),
            _ => return Err(invalid("it is no ssh:// address")),
        },
        "docker-container" | "podman-container" | "nerdctl-container" | "kube-pod" => {
            Way::Program(in_container(scheme, text).map_err(|reason| invalid(&reason))?)
        }
        "docker" if rest.is_empty() => Way::Docker(None),
        _ if scheme.starts_with("docker+") => {
            let address = Address::parse(&text["docker+".len()..], secure, setting)?;
            Way::Docker(Some(address.to_string()))
        }
        _ => {
            return Err(invalid(
                "a BuildKit's address starts with tcp://, unix://, docker-container://, podman-container://, kube-pod:// \
                 or ssh://; docker:// is the one inside a Docker daemon",
            ));
        }
    };
    let text = match &way {
        Way::Socket(address) => address.to_string(),
        Way::Docker(Some(address)) => format!("docker+{address}"),
        Way::Docker(None) | Way::Program(_) => text.to_owned(),
    };
    Ok(Place { text, way })
}

fn with_port(scheme: &str, rest: &str) -> String {
    let rest = rest.trim_end_matches('/');
    let host_end = rest.rfind(']').map_or(0, |at| at + 1);
    let port = if rest[host_end..].contains(':') { String::new() } else { format!(":{PORT}") };
    format!("{scheme}://{rest}{port}")
}

/// `buildctl dial-stdio` in a container, as buildctl's connection helpers call it.
fn in_container(scheme: &str, text: &str) -> std::result::Result<Program, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let name = url.host_str().unwrap_or_default().to_owned();
    // These words become arguments of a program; none may be taken for an option.
    let is_name = |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains(char::is_whitespace);
    if !is_name(&name) || !url.username().is_empty() || !matches!(url.path(), "" | "/") {
        return Err(format!("write it as {scheme}://NAME"));
    }
    let (program, known): (_, &[&str]) = match scheme {
        "docker-container" => ("docker", &["context"]),
        "podman-container" => ("podman", &["connection"]),
        "nerdctl-container" => ("nerdctl", &["namespace"]),
        _ => ("kubectl", &["context", "namespace", "container"]),
    };
    let mut options = Vec::new();
    let mut container = None;
    for (key, value) in url.query_pairs() {
        if !known.contains(&key.as_ref()) {
            return Err(format!("{scheme}:// has no `{key}`; it has {}", known.join(", ")));
        }
        if !is_name(&value) {
            return Err(format!("`{key}` is no name"));
        }
        if key == "container" {
            container = Some(format!("--container={value}"));
        } else {
            options.push(format!("--{key}={value}"));
        }
    }
    let kubectl = program == "kubectl";
    options.extend(["exec".to_owned(), "-i".to_owned()]);
    options.extend(container);
    options.push(name);
    options.extend(kubectl.then(|| "--".to_owned()));
    options.extend(["buildctl".to_owned(), "dial-stdio".to_owned()]);
    Ok(Program { name: program.to_owned(), arguments: options })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(endpoints: &[&str]) -> EngineSpec {
        let endpoints = endpoints.iter().map(|text| (*text).to_owned()).collect();
        EngineSpec { endpoints, ..EngineSpec::default() }
    }

    fn read(endpoints: &[&str], variables: &[(&str, &str)]) -> Result<Vec<Place>> {
        places(&spec(endpoints), &Environment::with("/nowhere", variables.iter().copied()), Duration::from_secs(7))
    }

    fn texts(endpoints: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
        read(endpoints, variables).unwrap().into_iter().map(|place| place.text).collect()
    }

    #[test]
    fn what_is_given_comes_first_then_the_variable_then_the_default() {
        let host = [("BUILDKIT_HOST", "tcp://a, unix:///b.sock")];
        assert_eq!(texts(&["tcp://c:1"], &host), ["tcp://c:1"]);
        assert_eq!(texts(&[], &host), ["tcp://a:1234", "unix:///b.sock"]);
        assert_eq!(texts(&[], &[]), ["unix:///nowhere/run/buildkit/buildkitd.sock"]);
        assert_eq!(
            texts(&["tcp://[::1]", "docker://", "docker+unix:///d.sock"], &[]),
            ["tcp://[::1]:1234", "docker://", "docker+unix:///d.sock"]
        );
    }

    #[test]
    fn programs_are_called_as_by_buildctl() {
        let called = |text: &str| match read(&[text], &[]).unwrap().remove(0).way {
            Way::Program(Program { name, arguments }) => format!("{name} {}", arguments.join(" ")),
            other => panic!("{other:?}"),
        };
        assert_eq!(called("docker-container://bk"), "docker exec -i bk buildctl dial-stdio");
        assert_eq!(called("docker-container://bk?context=far"), "docker --context=far exec -i bk buildctl dial-stdio");
        assert_eq!(called("podman-container://bk"), "podman exec -i bk buildctl dial-stdio");
        assert_eq!(
            called("kube-pod://bk-0?namespace=ci&container=buildkitd"),
            "kubectl --namespace=ci exec -i --container=buildkitd bk-0 -- buildctl dial-stdio"
        );
        assert!(called("ssh://me@box").ends_with("-l me -- box buildctl dial-stdio"));
    }

    #[test]
    fn what_is_no_address_is_refused_and_not_quoted() {
        for text in [
            "box:1234",
            "http://box",
            "docker-container://",
            "docker-container://a/b",
            "docker-container://a?x=1",
            "docker-container://a?context=-H",
            "kube-pod://-x",
            "ssh://me:hunter2@box",
            "tcp://me:hunter2@box",
            "docker+ftp://x",
        ] {
            let error = read(&[text], &[]).unwrap_err();
            assert_eq!(error.code(), "daemon-config", "{text}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        assert!(read(&["tcp://a", "tcp://a:1234"], &[]).unwrap_err().to_string().contains("twice"));
    }
}
