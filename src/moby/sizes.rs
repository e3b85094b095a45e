//! Bytes of layers that a daemon pushed without telling how many.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::environment::Environment;
use crate::oci::Document;
use crate::reference::Reference;
use crate::registry::client::Client;
use crate::request::Job;

/// The number is worth one quick question. The registry may be one that only the daemon reaches.
const PATIENCE: Duration = Duration::from_secs(2);

/// The bytes of those layers of a pushed image whose digests begin so, as far as its registry tells.
pub(super) async fn of(image: &Reference, layers: &BTreeSet<String>, environment: &Environment, job: &Job) -> u64 {
    if layers.is_empty() {
        return 0;
    }
    let ask = Box::pin(ask(image, layers, environment, job));
    tokio::time::timeout(PATIENCE, ask).await.ok().flatten().unwrap_or_default()
}

async fn ask(image: &Reference, layers: &BTreeSet<String>, environment: &Environment, job: &Job) -> Option<u64> {
    let client = Client::new(environment, Arc::clone(&job.credentials), Cancel::new()).ok()?;
    let fetched = client.manifest(image).await.ok()??;
    let Document::Manifest(manifest) = Document::parse(&fetched.descriptor.media_type, &fetched.bytes).ok()? else {
        return None;
    };
    let pushed = manifest.layers.iter().chain([&manifest.config]).filter(|blob| {
        let digest = blob.digest.hex();
        layers.iter().any(|layer| !layer.is_empty() && digest.starts_with(layer.as_str()))
    });
    Some(pushed.map(|blob| blob.size).sum())
}
