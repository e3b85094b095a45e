//! Making trees and opening contexts.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use cooper::cancel::Cancel;
use cooper::context::Context;
use cooper::request::{ContextSpec, DockerfileSpec, ExtraFile};

pub(crate) fn spec(root: &Path) -> ContextSpec {
    ContextSpec { root: Some(root.to_owned()), ..ContextSpec::default() }
}

pub(crate) fn open(spec: &ContextSpec) -> Context {
    Context::open(spec, &DockerfileSpec::default(), &Cancel::new()).unwrap()
}

pub(crate) fn open_dir(root: &Path) -> Context {
    open(&spec(root))
}

pub(crate) fn paths(context: &Context) -> Vec<String> {
    context.entries().iter().map(|entry| entry.display_path().into_owned()).collect()
}

/// Writes a file and makes its parents.
pub(crate) fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

pub(crate) fn extra(path: &str, content: &str) -> ExtraFile {
    ExtraFile { path: path.into(), content: Bytes::copy_from_slice(content.as_bytes()), mode: 0o755 }
}
