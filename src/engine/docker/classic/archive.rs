//! The context as the classic builder wants it: with the Dockerfile in it, and with nothing that a second look at the
//! ignore file would change.

use std::fmt::Write as _;
use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;

use crate::context::{Context, Format, PackOptions};
use crate::daemon::Product;
use crate::engine::blocking;
use crate::engine::docker::Plan;
use crate::error::{Error, Result};
use crate::request::ExtraFile;

/// The name of a Dockerfile that is not part of the context; no context has a file of this name.
const RESERVED: &str = ".cooper.Dockerfile";
const DOCKERIGNORE: &str = ".dockerignore";
/// Buildah reads this in place of `.dockerignore`.
const CONTAINERIGNORE: &str = ".containerignore";

/// What is sent.
pub(super) struct Archive {
    /// How to pack the context.
    pub(super) options: PackOptions,
    /// Where the Dockerfile is in it.
    pub(super) dockerfile_path: String,
}

/// Finds out what must go with the context.
pub(super) async fn prepare(plan: &Plan<'_>, format: Format, product: Product) -> Result<Archive> {
    let (context, file) = (Arc::clone(&plan.context), plan.file.clone());
    blocking(move || {
        let missing = file.path_in_context.is_none().then_some(&file.text);
        let options = PackOptions { also: also(&context, missing, product)?, ..PackOptions::sending(format) };
        Ok(Archive { options, dockerfile_path: file.path_in_context.unwrap_or_else(|| RESERVED.to_owned()) })
    })
    .await
}

/// The Dockerfile if it is not in the context, and an ignore file that takes it out again, so that `COPY . .` does not
/// see it: the daemon removes the Dockerfile and the ignore file from a context where these match.
fn also(context: &Context, dockerfile: Option<&Bytes>, product: Product) -> Result<Vec<ExtraFile>> {
    let mut files = Vec::new();
    let file = |path: &str, content: Bytes| ExtraFile { path: path.to_owned(), content, mode: 0o644 };
    if let Some(text) = dockerfile {
        files.push(file(RESERVED, text.clone()));
    }
    let own = text_of(context, DOCKERIGNORE)?;
    match product {
        // Buildah would apply `.dockerignore` again, to files too that were added on purpose.
        Product::Podman
            if (own.is_some() || dockerfile.is_some()) && context.find(CONTAINERIGNORE.as_bytes()).is_none() =>
        {
            files.push(file(CONTAINERIGNORE, format!("{CONTAINERIGNORE}\n{RESERVED}\n").into()));
        }
        Product::Docker if dockerfile.is_some() => {
            let has_own = own.is_some();
            let mut patterns = own.unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = writeln!(patterns, "\n{RESERVED}");
            if !has_own {
                let _ = writeln!(patterns, "{DOCKERIGNORE}");
            }
            files.push(file(DOCKERIGNORE, patterns.into()));
        }
        _ => {}
    }
    Ok(files)
}

fn text_of(context: &Context, path: &str) -> Result<Option<String>> {
    let Some(entry) = context.find(path.as_bytes()) else { return Ok(None) };
    let mut bytes = Vec::new();
    let read = context.reader(&entry)?.read_to_end(&mut bytes);
    read.map_err(|source| Error::ContextRead { path: path.into(), source })?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
