//! Byte streams: what a daemon or a registry is reached over.

mod connect;
mod exchange;
pub mod program;
pub mod proxy;
pub mod ssh;
pub mod tls;

pub use connect::{Connector, Hop};
pub(crate) use exchange::{Driver, exchange};

use tokio::io::{AsyncRead, AsyncWrite};

/// Anything that carries bytes both ways.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A connected stream, whatever is below it. Dropping it closes it.
pub type BoxedStream = Box<dyn ByteStream>;
