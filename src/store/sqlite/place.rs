//! Whether the file that is open is still the one that its path leads to.
//!
//! A file that was deleted, moved or replaced stays open, and takes commits that nobody will find again. SQLite itself
//! does not look. So the writer does, before each group: one `stat`, far cheaper than the flush that follows.

use std::path::{Path, PathBuf};

/// A path, and the file that it led to at first.
pub(super) struct Place {
    path: PathBuf,
    /// None where there is no file (a database in memory), or no way to tell files apart.
    file: Option<FileId>,
}

/// Device and inode.
type FileId = (u64, u64);

impl Place {
    /// The place of the file that `path` leads to now.
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), file: file_id(path) }
    }

    /// Whether the path still leads to that file.
    pub(super) fn holds(&self) -> bool {
        self.file.is_none() || file_id(&self.path) == self.file
    }
}

#[cfg(unix)]
fn file_id(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn file_id(_: &Path) -> Option<FileId> {
    None
}
