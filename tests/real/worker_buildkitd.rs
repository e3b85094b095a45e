//! What needs a buildkitd of its own: `BUILDKIT_HOST` names one, `COOPER_TEST_BUILDKIT_HOST_2` another.

use cooper::request::{CacheMode, CacheSpec, RegistryCache};

use crate::buildkit_bed::unique;
use crate::docker_bed::fresh;
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

/// Whether the command's result came out of a cache.
fn ran_from_cache(ended: &Ended) -> bool {
    let steps = &ended.result.as_ref().unwrap().steps;
    steps.iter().find(|step| step.name.contains("RUN")).unwrap().cached
}
