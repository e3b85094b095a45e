//! BuildKit's client side: the session that a daemon calls back into, solving, and status. Used by every engine that
//! talks to a BuildKit; knows nothing of Docker.
