//! Docker and Podman, over their API.
