//! What a request may ask for that no BuildKit does.

use crate::error::{Error, Result};
use crate::request::{BuildRequest, BuilderChoice};

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
