//! What a failing call of the file system means.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::error::Error;

/// The error for an action at a path: `NoSpace` where there is no room, else `Store`. An error of ours that went through
/// an [`io::Error`] comes out as it was.
pub(super) fn failed(path: &Path, action: &str, source: io::Error) -> Error {
    let source = match source.downcast::<Error>() {
        Ok(error) => return error,
        Err(source) => source,
    };
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Error::NoSpace { message: format!("cannot {action} in the store at `{}`: {source}", path.display()) }
        }
        _ => Error::Store { path: path.to_owned(), action: action.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn there_are_several_ways_to_be_full() {
        let of = |errno: Errno| failed(Path::new("/store"), "write", errno.into());
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
            assert_eq!(of(errno).code(), "no-space");
        }
        assert!(of(Errno::NOSPC).to_string().contains("cannot write in the store at `/store`"));
        assert_eq!(
            of(Errno::ACCESS).to_string(),
            "cannot write in the store at `/store`: Permission denied (os error 13)"
        );
        assert_eq!(failed(Path::new("/"), "write", io::Error::other(Error::Interrupted)).code(), "interrupted");
    }
}
