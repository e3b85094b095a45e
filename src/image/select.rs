//! Which image of an OCI layout is meant.

use super::place::{Place, Selector};
use super::source::Source;
use super::{IMAGE_NAME, REF_NAME, blob_path, full_name};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Index};
use crate::platform::Platform;
use crate::reference::Reference;

/// The descriptor of the image that a place names. Fails with `InvalidOption` where that is none or several, and with
/// `PlatformMissing` where it is not there for the platform.
pub(super) fn choose(source: &Source, index: &Index, place: &Place, platform: &Platform) -> Result<Descriptor> {
    let all: Vec<&Descriptor> = index.manifests.iter().collect();
    match &place.selector {
        Selector::Digest(digest) => {
            if let Some(found) = all.iter().find(|image| image.digest == *digest) {
                return Ok((*found).clone());
            }
            // One that is in an index, or that lost its name.
            let blob = source.find(&blob_path(digest))?;
            let blob = blob.ok_or_else(|| none(place, &names(&all)))?;
            Ok(Descriptor::new("", *digest, blob.len()))
        }
        Selector::Name(name) => {
            let found = named(&all, name);
            if found.is_empty() { Err(none(place, &names(&all))) } else { one(found, place, platform) }
        }
        Selector::Any => {
            let latest: Vec<&Descriptor> = all.iter().copied().filter(|image| tag(image) == Some("latest")).collect();
            if all.is_empty() {
                Err(none(place, &[]))
            } else {
                one(if latest.is_empty() { all } else { latest }, place, platform)
            }
        }
    }
}

/// Full names count first, as in BuildKit's `ociindex`.
fn named<'a>(all: &[&'a Descriptor], name: &str) -> Vec<&'a Descriptor> {
    let full = name.parse::<Reference>().ok().and_then(|name| full_name(&name));
    let with = |is: &dyn Fn(&Descriptor) -> bool| -> Vec<&Descriptor> {
        all.iter().copied().filter(|image| is(image)).collect()
    };
    let mut found = with(&|image| image_name(image).is_some_and(|own| own == name || Some(own) == full.as_deref()));
    if found.is_empty() {
        found = with(&|image| tag(image) == Some(name));
    }
    found
}

/// One image, which may be listed several times, or once for each platform.
fn one(found: Vec<&Descriptor>, place: &Place, platform: &Platform) -> Result<Descriptor> {
    let first = found[0];
    if found.iter().all(|image| image.digest == first.digest) {
        return Ok(first.clone());
    }
    let same_name = |image: &&&Descriptor| (image_name(image), tag(image)) == (image_name(first), tag(first));
    if found.iter().all(|image| same_name(&image) && image.platform.is_some()) {
        let index = Index::new(found.into_iter().cloned().collect());
        let selected = index.select(platform).cloned();
        return selected.ok_or_else(|| missing(place, &index, platform));
    }
    Err(several(place, &names(&found)))
}

fn image_name(image: &Descriptor) -> Option<&str> {
    image.annotations.get(IMAGE_NAME).map(String::as_str)
}

fn tag(image: &Descriptor) -> Option<&str> {
    image.annotations.get(REF_NAME).map(String::as_str)
}

/// The names of images, as they can be asked for.
fn names(images: &[&Descriptor]) -> Vec<String> {
    let name = |image: &&Descriptor| {
        let name = image_name(image).or_else(|| tag(image));
        name.map_or_else(|| image.digest.to_string(), str::to_owned)
    };
    images.iter().map(name).collect()
}

pub(super) fn missing(place: &Place, index: &Index, platform: &Platform) -> Error {
    let available = index.platforms().join(", ");
    Error::PlatformMissing { reference: place.to_string(), platform: platform.to_string(), available }
}

/// The image that a place names is not there.
pub(super) fn none(place: &Place, names: &[String]) -> Error {
    let there = if names.is_empty() { "it has none".to_owned() } else { format!("there are: {}", listed(names)) };
    refused(format!("`{place}`: there is no such image; {there}"))
}

/// There are several images, and none is named.
pub(super) fn several(place: &Place, names: &[String]) -> Error {
    refused(format!("`{place}`: there are several images; name one of them: {}", listed(names)))
}

fn refused(reason: String) -> Error {
    Error::InvalidOption { name: "build-context".into(), reason }
}

/// As many names as a line takes.
fn listed(names: &[String]) -> String {
    const MOST: usize = 20;
    let more = names.len().saturating_sub(MOST);
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    names.truncate(MOST);
    let text = names.join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}
