//! `moby.buildkit.secrets.v1.Secrets`: the values of `RUN --mount=type=secret`, read when a step asks for them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::Secrets;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use tonic::{Request, Response, Status};

use super::trouble::Trouble;
use crate::error::{Error, Result};
use crate::request::{SecretSource, SecretSpec};

/// BuildKit's limit of a secret.
pub const MAX_SECRET: usize = 500 << 10;

/// Answers from the build's secrets.
pub struct SecretsService {
    sources: BTreeMap<String, SecretSource>,
    trouble: Trouble,
}

impl SecretsService {
    /// Serves `secrets`; keeps what goes wrong in `trouble`.
    pub fn new(secrets: &[SecretSpec], trouble: Trouble) -> Self {
        let sources = secrets.iter().map(|secret| (secret.id.clone(), secret.source.clone())).collect();
        Self { sources, trouble }
    }
}

#[tonic::async_trait]
impl Secrets for SecretsService {
    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let Some(source) = self.sources.get(&id).cloned() else {
            // Not ours to keep: the step may say `required=false`, and else the daemon names the step and the id.
            return Err(Status::not_found(format!("secret {id} not found")));
        };
        // A file may be on a file system that hangs; `Health` must not.
        let read = tokio::task::spawn_blocking(move || read(&id, &source)).await;
        let data = read.unwrap_or_else(|error| Err(Error::internal(error.to_string())));
        data.map(|data| Response::new(GetSecretResponse { data })).map_err(|error| self.trouble.report(error))
    }
}

/// The value of a secret. Fails with `SecretUnavailable`. Blocks.
pub fn read(id: &str, source: &SecretSource) -> Result<Vec<u8>> {
    let unavailable = |reason: String| Error::SecretUnavailable { id: id.to_owned(), reason };
    let data = match source {
        SecretSource::Value(value) => value.expose().to_vec(),
        SecretSource::Env(name) => std::env::var_os(name)
            .map(std::os::unix::ffi::OsStringExt::into_vec)
            .ok_or_else(|| unavailable(format!("the environment variable `{name}` is not set")))?,
        SecretSource::File(path) => {
            read_file(path).map_err(|error| unavailable(format!("cannot read `{}`: {error}", path.display())))?
        }
    };
    if data.len() > MAX_SECRET {
        return Err(unavailable(format!("it is larger than BuildKit's limit of {} KiB", MAX_SECRET >> 10)));
    }
    Ok(data)
}

/// Reads one byte more than allowed, not all of a file that somebody named by mistake.
fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut data = Vec::new();
    std::fs::File::open(path)?.take(MAX_SECRET as u64 + 1).read_to_end(&mut data)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_exact_and_the_error_names_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, vec![b'x'; MAX_SECRET]).unwrap();
        assert_eq!(read("t", &SecretSource::File(path.clone())).unwrap().len(), MAX_SECRET);
        std::fs::write(&path, vec![b'x'; MAX_SECRET + 1]).unwrap();
        let error = read("t", &SecretSource::File(path)).unwrap_err();
        assert_eq!(error.code(), "secret-unavailable");
        assert!(error.to_string().contains("`t`") && error.to_string().contains("500 KiB"), "{error}");
    }

    #[test]
    fn an_absent_source_is_named() {
        let error = read("t", &SecretSource::Env("COOPER_TEST_NO_SUCH_VARIABLE".into())).unwrap_err();
        assert!(error.to_string().contains("COOPER_TEST_NO_SUCH_VARIABLE"), "{error}");
    }
}
