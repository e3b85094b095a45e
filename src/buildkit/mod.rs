//! BuildKit's client side: the session that a daemon calls back into, solving, and status. Used by every engine that
//! talks to a BuildKit; knows nothing of Docker.
//!
//! A build opens two HTTP/2 connections through a [`Transport`](transport::Transport); a buildkitd has the second inside the
//! first. On the first, we are the client of
//! BuildKit's Control service: [`solve`] asks for the build and [`status`] turns what it tells into events. On the second,
//! [`session`], we are the server: the daemon asks for files ([`filesync`]), registries' tokens and credentials ([`auth`]), secrets ([`secrets`]),
//! SSH agents ([`ssh`]) and blobs of layouts ([`content`]) when it needs them, and hands over what exporters made
//! ([`filesend`]). What goes wrong becomes an error with a place in [`failure`].

pub mod agents;
pub mod attrs;
pub mod auth;
mod base_failure;
pub mod connection;
pub mod content;
pub mod content_messages;
pub mod content_store;
mod content_write;
pub mod context_dir;
mod details;
pub mod dockerfile;
pub mod failure;
pub mod filesend;
pub mod filesync;
pub mod filter;
pub mod followpaths;
mod health;
pub mod incoming;
mod landing;
pub mod output;
pub mod packet;
pub mod receive;
pub mod remote;
pub mod secrets;
mod seeds;
mod sender;
pub mod session;
pub mod solve;
pub mod source;
pub mod ssh;
mod ssh_keys;
pub mod status;
mod tokens;
pub mod transport;
pub mod trouble;
pub mod upgrade;
mod watched;

pub use connection::Connection;
pub use remote::Remote;
pub use solve::{Build, Exporter, Solved, build};
pub use transport::{BoxedStream, ByteStream, SessionHello, Transport};
pub use upgrade::{Dial, Hijack};
