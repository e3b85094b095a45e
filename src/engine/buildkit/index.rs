//! One index of the images that several workers pushed, each for its platforms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::attempt::Made;
use crate::buildkit::Solved;
use crate::digest::Digest;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::oci::{Descriptor, Document, Index, PlatformSpec, media};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::client::{Client, Fetched};
use crate::request::{BuildRequest, Job};

/// What one worker made.
pub(super) struct Part {
    pub(super) made: Made,
    pub(super) platforms: Vec<Platform>,
}

/// Reads what was pushed, and pushes an index of it under every tag.
///
/// Fails as reading and pushing manifests does; the images themselves are in the registry by then, without tags.
pub(super) async fn push(
    parts: Vec<Part>,
    request: &BuildRequest,
    environment: &Arc<Environment>,
    job: &Job,
) -> Result<Made> {
    let started = Instant::now();
    let Some(first) = request.tags.first() else { return Err(Error::internal("an index without a name")) };
    let client = Client::new(environment, Arc::clone(&job.credentials), job.cancel.clone())?;
    let mut manifests = Vec::new();
    for part in &parts {
        let Some(digest) = part.made.digest else {
            let reason = "it did not name what it pushed".to_owned();
            return Err(Error::DaemonProtocol { action: "the build".into(), reason });
        };
        let reference = first.with_digest(digest);
        let fetched = client.manifest(&reference).await?;
        let fetched = fetched.ok_or_else(|| missing(&reference))?;
        manifests.extend(images(fetched, &part.platforms)?);
    }
    let bytes = Bytes::from(write(manifests, &request.options.annotations)?);
    let media_type = media_type(&bytes)?;
    let digest = Digest::of(&bytes);
    for tag in &request.tags {
        let began = Instant::now();
        client.push_manifest(tag, &media_type, bytes.clone()).await?;
        let seconds = began.elapsed().as_secs_f64();
        let event = Event::Pushed { reference: tag.to_string(), digest: digest.to_string(), seconds };
        job.events.send(event).await;
    }
    Ok(Made {
        image: digest.to_string(),
        digest: Some(digest),
        // There is one for each platform.
        config_digest: None,
        push_seconds: started.elapsed().as_secs_f64(),
        pushed_bytes: 0,
        solved: together(parts),
    })
}

fn missing(reference: &Reference) -> Error {
    let message = "the worker says that it pushed this image, and the registry does not have it".to_owned();
    Error::PushFailed { reference: reference.to_string(), message }
}

/// The images behind a manifest or an index, with their platforms; attestations as well.
fn images(fetched: Fetched, platforms: &[Platform]) -> Result<Vec<Descriptor>> {
    let Fetched { mut descriptor, bytes } = fetched;
    match Document::parse(&descriptor.media_type, &bytes)? {
        Document::Index(index) => Ok(index.manifests),
        Document::Manifest(manifest) => {
            descriptor.media_type = manifest.media_type;
            descriptor.platform = platforms.first().map(spec);
            Ok(vec![descriptor])
        }
    }
}

fn spec(platform: &Platform) -> PlatformSpec {
    PlatformSpec {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..PlatformSpec::default()
    }
}

/// The index. Where all images are Docker's it is a manifest list: what takes no OCI image takes no OCI index either.
fn write(mut manifests: Vec<Descriptor>, annotations: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    for manifest in &mut manifests {
        manifest.annotations.extend(of(annotations, "annotation-manifest-descriptor.").map(owned));
    }
    let docker = manifests.iter().all(|manifest| manifest.media_type == media::DOCKER_MANIFEST);
    let mut index = Index::new(manifests);
    index.annotations.extend(of(annotations, "annotation-index.").map(owned));
    if docker && index.annotations.is_empty() {
        media::DOCKER_INDEX.clone_into(&mut index.media_type);
    }
    serde_json::to_vec(&index).map_err(|error| Error::internal(error.to_string()))
}

fn media_type(bytes: &[u8]) -> Result<String> {
    match Document::parse("", bytes)? {
        Document::Index(index) => Ok(index.media_type),
        Document::Manifest(_) => Err(Error::internal("an index that is none")),
    }
}

/// The annotations that the worker of these platforms writes: of its own manifests, not of the index, which it does not make.
pub(super) fn annotations_of(all: &BTreeMap<String, String>, platforms: &[Platform]) -> BTreeMap<String, String> {
    let own = |key: &str| match key.strip_prefix("annotation-manifest") {
        Some(rest) if rest.starts_with('.') => true,
        Some(rest) => rest
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]."))
            .and_then(|(platform, _)| platform.parse().ok())
            .is_some_and(|platform: Platform| platforms.contains(&platform)),
        None => false,
    };
    all.iter().filter(|(key, _)| own(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The annotations of one place: each worker writes those of its manifests itself.
fn of<'a>(annotations: &'a BTreeMap<String, String>, place: &'a str) -> impl Iterator<Item = (&'a str, &'a String)> {
    annotations.iter().filter_map(move |(key, value)| Some((key.strip_prefix(place)?, value)))
}

fn owned((key, value): (&str, &String)) -> (String, String) {
    (key.to_owned(), value.clone())
}

/// What several builds did, which ran at the same time.
fn together(parts: Vec<Part>) -> Solved {
    let mut sum = Solved::default();
    let mut names = BTreeSet::new();
    for Part { made: Made { solved, .. }, .. } in parts {
        sum.seconds = sum.seconds.max(solved.seconds);
        sum.sent_files += solved.sent_files;
        sum.sent_bytes += solved.sent_bytes;
        sum.cached_steps += solved.cached_steps;
        sum.total_steps += solved.total_steps;
        sum.steps.extend(solved.steps.into_iter().filter(|step| names.insert(step.name.clone())));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str, text: &str) -> Descriptor {
        Descriptor::of(media_type, text.as_bytes())
    }

    #[test]
    fn an_index_is_of_the_family_of_its_images() {
        let read = |bytes: Vec<u8>| match Document::parse("", &bytes).unwrap() {
            Document::Index(index) => index,
            Document::Manifest(_) => panic!("no index"),
        };
        let docker = || vec![descriptor(media::DOCKER_MANIFEST, "a"), descriptor(media::DOCKER_MANIFEST, "b")];
        assert_eq!(read(write(docker(), &BTreeMap::new()).unwrap()).media_type, media::DOCKER_INDEX);
        let mixed = vec![descriptor(media::OCI_MANIFEST, "a"), descriptor(media::DOCKER_MANIFEST, "b")];
        assert_eq!(read(write(mixed, &BTreeMap::new()).unwrap()).media_type, media::OCI_INDEX);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let annotations = BTreeMap::from([
            pair("annotation-index.a", "1"),
            pair("annotation-manifest-descriptor.b", "2"),
            pair("annotation-manifest.c", "3"),
        ]);
        let index = read(write(docker(), &annotations).unwrap());
        assert_eq!(
            (index.media_type.as_str(), &index.annotations),
            (media::OCI_INDEX, &BTreeMap::from([pair("a", "1")]))
        );
        let amd64 = ["linux/amd64".parse().unwrap()];
        let keys = [
            "annotation-index.a",
            "annotation-manifest-descriptor.b",
            "annotation-manifest.c",
            "annotation-manifest[linux/amd64].d",
            "annotation-manifest[linux/arm64].e",
        ];
        let all = keys.map(|key| pair(key, "")).into();
        let own: Vec<String> = annotations_of(&all, &amd64).into_keys().collect();
        assert_eq!(own, ["annotation-manifest.c", "annotation-manifest[linux/amd64].d"]);
        assert!(index.manifests.iter().all(|manifest| manifest.annotations == BTreeMap::from([pair("b", "2")])));
    }
}
