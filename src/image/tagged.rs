//! The list of an OCI layout by tags: caches that BuildKit keeps in one have nothing else.

use std::path::Path;

use super::layout::Layout;
use super::open::layout_index;
use super::source::Source;
use super::{IMAGE_NAME, REF_NAME};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::Result;
use crate::image::{Place, Scheme, Selector};
use crate::oci::Descriptor;
use crate::platform::Platform;

/// What has a name or a tag in a layout, names first; `None` where there is no such thing, or no layout yet.
///
/// Fails with `ImageInvalid` where the directory is no layout, or a damaged one.
pub fn tagged(directory: &Path, tag: &str, cancel: &Cancel) -> Result<Option<Digest>> {
    if !directory.join(super::INDEX_FILE).exists() {
        return Ok(None);
    }
    let place = Place { scheme: Scheme::OciLayout, path: directory.to_owned(), selector: Selector::Any };
    let index = layout_index(&Source::open(&place, cancel)?)?;
    let with = |annotation: &str| {
        let mut found = index.manifests.iter();
        found.find(|entry| entry.annotations.get(annotation).is_some_and(|value| value == tag))
    };
    Ok(with(IMAGE_NAME).or_else(|| with(REF_NAME)).map(|entry| entry.digest))
}

/// Gives a tag to a blob of a layout, and takes it from what had it. The blob has to be there.
///
/// Fails with `OutputFailed`, `ImageInvalid` and `Interrupted`.
pub fn tag(directory: &Path, mut descriptor: Descriptor, tag: &str, cancel: &Cancel) -> Result<()> {
    descriptor.annotations.insert(REF_NAME.into(), tag.into());
    let mut layout = Layout::lock(directory, cancel)?;
    layout.check()?;
    layout.list(&[descriptor], cancel)?;
    layout.keep();
    Ok(())
}

/// The digest of the manifest or the index that a place in a layout names: what [`open`](super::open()) would begin with.
///
/// Fails with `BaseMissing`, `InvalidOption`, `PlatformMissing`, `ImageInvalid` and `Interrupted`.
pub fn named(place: &Place, platform: &Platform, cancel: &Cancel) -> Result<Digest> {
    cancel.check()?;
    let source = Source::open(place, cancel)?;
    let index = layout_index(&source)?;
    Ok(super::select::choose(&source, &index, place, platform)?.digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media;

    #[test]
    fn a_tag_moves_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (root, cancel) = (folder.path().join("new"), Cancel::new());
        let entry = |text: &str| Descriptor::of(media::OCI_MANIFEST, text.as_bytes());
        assert_eq!(tagged(&root, "latest", &cancel).unwrap(), None);
        for (text, name) in [("a", "latest"), ("b", "other"), ("c", "latest")] {
            tag(&root, entry(text), name, &cancel).unwrap();
        }
        assert_eq!(tagged(&root, "latest", &cancel).unwrap(), Some(entry("c").digest));
        assert_eq!(tagged(&root, "other", &cancel).unwrap(), Some(entry("b").digest));
        let index = std::fs::read_to_string(root.join("index.json")).unwrap();
        assert!(!index.contains(&entry("a").digest.to_string()), "{index}");
        assert!(root.join("oci-layout").exists() && !root.join("index.json.lock").exists());
    }
}
