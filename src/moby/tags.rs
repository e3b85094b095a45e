//! Giving an image its names: all of them, or none.

use std::time::Duration;

use bollard::query_parameters::{RemoveImageOptionsBuilder, TagImageOptionsBuilder};

use crate::daemon::client::Api;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::request::Job;

/// How long undoing may take when the daemon has stopped answering; it is a matter of milliseconds.
const UNDO_TIMEOUT: Duration = Duration::from_secs(2);

/// Tags `image`. On an error, cancellation included, every name that moved is moved back.
pub(crate) async fn apply(api: &Api, image: &str, tags: &[Reference], job: &Job) -> Result<()> {
    let mut moved = Vec::new();
    for tag in tags {
        let step = async {
            let before = image_id(api, &name(tag)).await?;
            // The name may move even where the answer does not arrive.
            moved.push((tag, before));
            set(api, image, tag).await
        };
        if let Err(error) = job.cancel.guard(step).await {
            undo(api, &moved).await;
            return Err(error);
        }
    }
    Ok(())
}

/// The name with its tag: without one the daemon means `latest`.
pub(crate) fn name(tag: &Reference) -> String {
    format!("{}:{}", tag.name(), tag.tag_or_latest().unwrap_or("latest"))
}

async fn set(api: &Api, image: &str, tag: &Reference) -> Result<()> {
    let options =
        TagImageOptionsBuilder::default().repo(&tag.name()).tag(tag.tag_or_latest().unwrap_or("latest")).build();
    api.docker.tag_image(image, Some(options)).await.map_err(|error| api.refused(error, "to tag the image"))
}

/// The id of the image that has this name now.
async fn image_id(api: &Api, name: &str) -> Result<Option<String>> {
    match api.docker.inspect_image(name).await {
        Ok(image) => Ok(image.id),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(api.refused(error, "to look up a tag")),
    }
}

async fn undo(api: &Api, moved: &[(&Reference, Option<String>)]) {
    let work = async {
        for (tag, before) in moved.iter().rev() {
            // The build's own error is what the caller gets; nothing more can be done about a name that stays.
            let _ = match before {
                Some(id) => set(api, id, tag).await,
                None => remove(api, tag).await,
            };
        }
    };
    let _ = tokio::time::timeout(UNDO_TIMEOUT, work).await;
}

/// Takes a name away; the image itself stays.
async fn remove(api: &Api, tag: &Reference) -> Result<()> {
    let options = RemoveImageOptionsBuilder::default().noprune(true).build();
    match api.docker.remove_image(&name(tag), Some(options), None).await {
        Ok(_) => Ok(()),
        Err(error) => Err::<(), Error>(api.refused(error, "to remove a tag")),
    }
}
