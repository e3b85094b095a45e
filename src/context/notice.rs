//! What a user should know about a context, though nothing is wrong.

use std::fmt;

use serde::Serialize;

/// Something that was left out or stands out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Notice {
    /// A socket was left out: no archive and no image can hold one.
    SocketSkipped {
        /// Its path in the context.
        path: String,
    },
    /// A special file was left out of an archive that cannot hold one.
    SpecialSkipped {
        /// Its path in the context.
        path: String,
    },
}

impl Notice {
    /// The path that it is about.
    pub fn path(&self) -> &str {
        match self {
            Self::SocketSkipped { path } | Self::SpecialSkipped { path } => path,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SocketSkipped { path } => write!(f, "the socket `{path}` was left out of the build context"),
            Self::SpecialSkipped { path } => {
                write!(f, "`{path}` was left out: this kind of archive holds no pipes and devices")
            }
        }
    }
}
