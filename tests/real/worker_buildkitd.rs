//! What needs a buildkitd of its own: `BUILDKIT_HOST` names one, `COOPER_TEST_BUILDKIT_HOST_2` another, and
//! `COOPER_TEST_BUILDKIT_ARM64` one that builds for that platform first.

use cooper::digest::Digest;
use cooper::event::Event;
use cooper::oci::{Document, Index};
use cooper::reference::Reference;
use cooper::registry::client::Client;
use cooper::request::{CacheMode, CacheSpec, DockerfileSpec, RegistryCache};

use crate::buildkit_bed::unique;
use crate::docker_bed::{busybox, fresh};
use crate::registry_bed::client;
use crate::worker_bed::{Backend, Case, Ended};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pushed_under_all_its_names() {
    let Some(worker) = Backend::buildkitd("BUILDKIT_HOST") else { return };
    let mut case = Case::new(0.0).on(&[&worker.endpoint]);
    case.request.tags.push(fresh("again").parse().unwrap());
    let ended = case.run().await;
    case.is_right(&ended).await;
    case.request.tags.reverse();
    case.is_right(&ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_worker_keeps_in_a_registry_another_uses() {
    let Some(one) = Backend::buildkitd("BUILDKIT_HOST") else { return };
    let Some(other) = Backend::buildkitd("COOPER_TEST_BUILDKIT_HOST_2") else { return };
    let place = RegistryCache::at(fresh("cache").parse().unwrap());
    let mut case = Case::new(0.5).on(&[&one.endpoint]);
    case.request.options.cache_to =
        vec![CacheSpec::Registry(RegistryCache { mode: Some(CacheMode::Max), ..place.clone() })];
    let ended = case.run().await;
    case.is_right(&ended).await;
    assert!(!ran_from_cache(&ended), "{}", ended.told());
    case.request.options.cache_to.clear();
    case.request.options.cache_from = vec![CacheSpec::Registry(place)];
    let mut case = case.on(&[&other.endpoint]);
    case.request.tags = vec![fresh(&unique()).parse().unwrap()];
    let ended = case.run().await;
    case.is_right(&ended).await;
    assert!(ran_from_cache(&ended), "{}", ended.told());
}

/// The generator is ours: it lists what is in the root of the image.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_an_image_and_how_it_was_made_is_attested() {
    let Some(worker) = Backend::buildkitd("BUILDKIT_HOST") else { return };
    let (generator, tag): (Reference, Reference) =
        (fresh("generator").parse().unwrap(), fresh("attested").parse().unwrap());
    let mut case = Case::new(0.0).on(&[&worker.endpoint]);
    case.request.tags = vec![generator.clone()];
    let statement = r#"{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document", "predicate": {"name": "%s"}}"#;
    let script =
        format!(r#"printf '{statement}' "$(ls $BUILDKIT_SCAN_SOURCE)" > $BUILDKIT_SCAN_DESTINATION/list.spdx.json"#);
    let entrypoint = serde_json::to_string(&["sh", "-c", &script]).unwrap();
    case.request.dockerfile = DockerfileSpec::Text(format!("FROM {}\nENTRYPOINT {entrypoint}\n", busybox()));
    case.run().await.result.unwrap();

    case.request.tags = vec![tag.clone()];
    case.request.dockerfile = DockerfileSpec::Text("FROM scratch\nCOPY content /listed\n".into());
    case.request.options.attestations =
        [("sbom".to_owned(), format!("generator={generator}")), ("provenance".to_owned(), "mode=max".to_owned())]
            .into();
    let ended = case.run().await;
    ended.result.as_ref().unwrap_or_else(|error| panic!("{error}\n{}", ended.told()));
    let home = tempfile::tempdir().unwrap();
    let client = client(home.path(), None);
    let (_, index) = index_of(&client, &tag).await;
    let attested = client.manifest(&tag.with_digest(index.manifests[1].digest)).await.unwrap().unwrap();
    let Document::Manifest(manifest) = Document::parse(&attested.descriptor.media_type, &attested.bytes).unwrap()
    else {
        panic!("no attestations")
    };
    let mut kinds = Vec::new();
    for layer in &manifest.layers {
        let bytes = client.blob_bytes(&tag, layer, 1 << 20).await.unwrap();
        let statement: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(statement["subject"][0]["digest"]["sha256"], index.manifests[0].digest.hex());
        kinds.push(statement["predicateType"].as_str().unwrap().to_owned());
        if kinds.last().unwrap().contains("spdx") {
            assert_eq!(statement["predicate"]["name"], "listed");
        }
    }
    assert!(kinds.len() == 2 && kinds.iter().any(|kind| kind.contains("slsa.dev/provenance")), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_share_platforms_keep_each_others_caches() {
    let Some(one) = Backend::buildkitd("BUILDKIT_HOST") else { return };
    let Some(other) = Backend::buildkitd("COOPER_TEST_BUILDKIT_ARM64") else { return };
    let (tag, cache): (Reference, Reference) = (fresh("many").parse().unwrap(), fresh("cache").parse().unwrap());
    let place = CacheSpec::Registry(RegistryCache::at(cache.clone()));
    let mut case = Case::new(0.0).on(&[&one.endpoint, &other.endpoint]);
    case.request.tags = vec![tag.clone()];
    // No command, which would need an emulator.
    case.request.dockerfile = DockerfileSpec::Text("FROM scratch\nCOPY content /\n".into());
    case.request.options.platforms = ["linux/amd64", "linux/arm64"].map(|platform| platform.parse().unwrap()).into();
    case.request.options.cache_to = vec![place.clone()];
    case.request.options.cache_from = vec![place];
    let ended = case.run().await;
    assert_eq!(ended.chosen().len(), 2, "{}", ended.told());
    let outcome = ended.result.as_ref().unwrap();
    let home = tempfile::tempdir().unwrap();
    let client = client(home.path(), None);
    let (digest, index) = index_of(&client, &tag).await;
    assert_eq!(outcome.digest, Some(digest));
    let platforms = index.manifests.iter().map(|each| each.platform.as_ref().unwrap().architecture.as_str());
    assert_eq!(platforms.collect::<Vec<_>>(), ["amd64", "arm64"]);
    let own = |platform: &str| format!("{cache}-linux-{platform}");
    assert!(client.manifest(&cache).await.unwrap().is_none());
    for platform in ["amd64", "arm64"] {
        assert!(client.manifest(&own(platform).parse().unwrap()).await.unwrap().is_some(), "{platform}");
    }
    let again = case.run().await;
    for platform in ["amd64", "arm64"] {
        let read = format!("importing cache manifest from {}", own(platform));
        let is_read =
            |event: &Event| matches!(event, Event::StepDone { name, error: None, .. } if name.ends_with(&read));
        assert!(again.events.iter().any(is_read), "{read}: {}", again.told());
    }
}

async fn index_of(client: &Client, tag: &Reference) -> (Digest, Index) {
    let fetched = client.manifest(tag).await.unwrap().unwrap();
    match Document::parse(&fetched.descriptor.media_type, &fetched.bytes).unwrap() {
        Document::Index(index) => (fetched.descriptor.digest, index),
        Document::Manifest(_) => panic!("{tag} is no index"),
    }
}

/// Whether the command's result came out of a cache.
fn ran_from_cache(ended: &Ended) -> bool {
    let steps = &ended.result.as_ref().unwrap().steps;
    steps.iter().find(|step| step.name.contains("RUN")).unwrap().cached
}
