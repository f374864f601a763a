//! Why a file could not be opened.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::{fmt, io};

/// The error of [`FileStore::open`](crate::store::FileStore::open).
///
/// Its text names the path and says what to do. A damaged file is no error: see
/// [`Recovery`](crate::store::Recovery).
#[derive(Debug)]
pub struct FileError {
    kind: FileErrorKind,
    path: PathBuf,
    source: Option<io::Error>,
}

/// The kind of a [`FileError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileErrorKind {
    /// Another store uses the file, in this process or in another one.
    InUse,
    /// The file was not written by everfresh. It is left as it is.
    Foreign,
    /// The file was written by another version of everfresh. It is left as it is.
    Version,
    /// The operating system refused an operation: [`source`](StdError::source) says why.
    Io,
}

impl FileError {
    pub(super) fn new(kind: FileErrorKind, path: impl Into<PathBuf>) -> Self {
        FileError {
            kind,
            path: path.into(),
            source: None,
        }
    }

    pub(super) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        FileError {
            source: Some(source),
            ..Self::new(FileErrorKind::Io, path)
        }
    }

    /// The kind of the error.
    pub fn kind(&self) -> FileErrorKind {
        self.kind
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.kind {
            FileErrorKind::InUse => write!(
                f,
                "another store uses the file {path}; give each process a file of its own, or end \
                 the other process first"
            ),
            FileErrorKind::Foreign => write!(
                f,
                "the file {path} was not written by everfresh and is left as it is; choose \
                 another path, or remove it"
            ),
            FileErrorKind::Version => write!(
                f,
                "the file {path} was written by another version of everfresh and is left as it \
                 is; choose another path, or remove it"
            ),
            FileErrorKind::Io => {
                write!(
                    f,
                    "{path} cannot be used; create its folder, or check the rights and the disk"
                )?;
                match &self.source {
                    Some(source) => write!(f, " ({source})"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl StdError for FileError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.source.as_ref()?;
        Some(source)
    }
}
