//! What a request may ask for that no builder of a daemon does.

use crate::error::{Error, Result};
use crate::options::only_buildkit_engine;
use crate::request::{BuildRequest, Output};

/// Fails with `Unsupported` for what only the native engine can do; nothing is asked for in vain.
pub(super) fn check(request: &BuildRequest) -> Result<()> {
    let elsewhere = request.outputs.iter().find_map(|output| match output {
        // Where the image is anyway.
        Output::Docker { dest: None } | Output::Store => None,
        Output::Docker { dest: Some(_) } => Some("write a `docker load` archive"),
        Output::Oci { .. } => Some("write an OCI layout"),
        Output::Local { .. } => Some("write the image's files to a directory"),
    });
    if let Some((_, feature)) = only_buildkit_engine(&request.options) {
        return Err(Error::Unsupported {
            engine: "the docker engine".into(),
            feature: feature.into(),
            reason: "`--engine buildkit` can".into(),
        });
    }
    let refused = [
        elsewhere.map(|feature| (feature, "its images stay with the daemon")),
        request.options.compression.map(|_| ("choose how layers are compressed", "the daemon does, when it pushes")),
        // Not to fold is what it does anyway.
        request.options.fold.filter(|fold| *fold).map(|_| ("fold RUN into COPY", "it runs every RUN")),
    ];
    match refused.into_iter().flatten().next() {
        None => Ok(()),
        Some((feature, reason)) => Err(Error::Unsupported {
            engine: "the docker engine".into(),
            feature: feature.into(),
            reason: format!("{reason}; `--engine native` can"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Value, normalize, outputs};

    fn said(option: &str, output: Option<&str>) -> Option<String> {
        let options = normalize(serde_json::from_str::<Value>(option).unwrap()).unwrap();
        let output = output.map_or(Value::Null, |text| Value::Text(text.into()));
        let request = BuildRequest { options, outputs: outputs(output).unwrap().outputs, ..BuildRequest::default() };
        match check(&request) {
            Ok(()) => None,
            Err(error @ Error::Unsupported { .. }) => Some(error.to_string()),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_only_the_native_engine_can_do_is_refused() {
        for (option, output, expected) in [
            (r#"{"compression": "gzip"}"#, None, "compressed"),
            (r#"{"fold": true}"#, None, "fold RUN"),
            ("{}", Some("type=docker,dest=x.tar"), "`docker load`"),
            ("{}", Some("type=oci,dest=x"), "OCI layout"),
            ("{}", Some("x"), "files to a directory"),
        ] {
            let said = said(option, output).unwrap();
            assert!(said.contains(expected) && said.contains("--engine native"), "{option} {output:?}: {said}");
        }
        let several = said(r#"{"platform": "linux/amd64,linux/arm64"}"#, None).unwrap();
        assert!(several.contains("--engine buildkit"), "{several}");
        for (option, output) in [("{}", None), (r#"{"fold": false}"#, None), ("{}", Some("type=docker"))] {
            assert_eq!(said(option, output), None);
        }
    }
}
