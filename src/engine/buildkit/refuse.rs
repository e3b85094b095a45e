//! What a request may ask for that no BuildKit does.

use crate::error::{Error, Result};
use crate::options::only_buildkit_engine;
use crate::request::{BuildOptions, BuildRequest, BuilderChoice};

/// Fails with `Unsupported` for what would be without an effect.
pub(super) fn check(request: &BuildRequest) -> Result<()> {
    let engine = &request.engine;
    let refused = [
        (engine.builder == BuilderChoice::Classic).then_some(("use the classic builder", "`--engine docker` can")),
        engine.docker_context.as_ref().map(|_| ("use a Docker context", "name the worker with `--endpoint`")),
        engine
            .sandbox
            .as_ref()
            .or(engine.runtime.as_ref())
            .map(|_| ("choose how commands are isolated", "the worker's configuration (`buildkitd.toml`) does")),
        // Not to fold is what it does anyway.
        request.options.fold.filter(|fold| *fold).map(|_| ("fold RUN into COPY", "it runs every RUN")),
    ];
    match refused.into_iter().flatten().next() {
        None => Ok(()),
        Some((feature, reason)) => Err(Error::Unsupported {
            engine: "the BuildKit engine".into(),
            feature: feature.into(),
            reason: reason.into(),
        }),
    }
}

/// Fails with `Unsupported` for what the daemon around a `BuildKit` does not hand on to it. `part` says that others build other
/// platforms of the same image.
pub(super) fn inside_docker(options: &BuildOptions, part: bool) -> Result<()> {
    // What a build may do is between it and its frontend.
    let asked = BuildOptions { entitlements: [].into(), ..options.clone() };
    let feature = only_buildkit_engine(&asked)
        .map(|(_, feature)| feature)
        .or_else(|| options.compression.map(|_| "choose how layers are compressed"))
        .or_else(|| part.then_some("build one platform of several"));
    match feature {
        None => Ok(()),
        Some(feature) => Err(Error::Unsupported {
            engine: "BuildKit inside a Docker daemon".into(),
            feature: feature.into(),
            reason: "the daemon makes images of its own; a buildkitd can".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Value, normalize};

    #[test]
    fn what_a_daemon_would_drop_is_refused() {
        let said = |json: &str| {
            let options = normalize(serde_json::from_str::<Value>(json).unwrap()).unwrap();
            inside_docker(&options, false).err().map(|error| error.to_string())
        };
        for json in [
            r#"{"platform": "linux/amd64,linux/arm64"}"#,
            r#"{"compression": "zstd"}"#,
            r#"{"annotation": "a=b"}"#,
            r#"{"provenance": "mode=max"}"#,
            r#"{"oci-mediatypes": true}"#,
            r#"{"force-compression": true}"#,
        ] {
            assert!(said(json).is_some_and(|said| said.contains("a buildkitd can")), "{json}");
        }
        assert_eq!(said(r#"{"allow": "network.host", "platform": "linux/amd64"}"#), None);
        assert!(inside_docker(&BuildOptions::default(), true).is_err());
    }

    #[test]
    fn what_only_other_engines_have_is_refused() {
        let mut request = BuildRequest::default();
        assert!(check(&request).is_ok());
        request.options.fold = Some(true);
        assert_eq!(check(&request).unwrap_err().code(), "unsupported");
        request.options.fold = Some(false);
        request.engine.sandbox = Some("root".into());
        assert!(check(&request).unwrap_err().to_string().contains("buildkitd.toml"));
    }
}
