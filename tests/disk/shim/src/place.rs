//! Whether a file is under the directory.
//!
//! Nothing is remembered about descriptors: they are closed, copied and used again in more ways than
//! could be watched. Whoever writes to sockets and pipes pays one `fstat`.

use std::{
    ffi::{CStr, CString, OsStr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use libc::{S_IFDIR, S_IFMT, S_IFREG, c_int};

use crate::{layer::Layer, raw};

/// A file or a directory under the directory, or that itself.
pub(crate) struct Place {
    /// Relative to the directory.
    pub(crate) path: PathBuf,
    /// The number of its inode.
    pub(crate) inode: u64,
    /// Whether it is a directory.
    pub(crate) directory: bool,
}

impl Place {
    /// Where an open file is, if it is under the directory.
    pub(crate) fn of(layer: &Layer, fd: c_int) -> Option<Place> {
        let stat = raw::stat_fd(fd).ok()?;
        let kind = stat.st_mode & S_IFMT;
        // What has no name any more is of no use after a power cut.
        if !(kind == S_IFREG || kind == S_IFDIR) || stat.st_nlink == 0 {
            return None;
        }
        let path = relative(layer, &raw::path_of(fd)?)?;
        Some(Place { path, inode: stat.st_ino, directory: kind == S_IFDIR })
    }

    /// The file of a descriptor, if it is under the directory and is no directory.
    pub(crate) fn of_file(layer: &Layer, fd: c_int) -> Option<Place> {
        Place::of(layer, fd).filter(|place| !place.directory)
    }
}

/// Where a name is, or would be, relative to the directory. Links are followed on the way to it, but
/// not at its end.
pub(crate) fn of_name(layer: &Layer, fd: c_int, path: &CStr) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let name = path.file_name()?;
    let parent = match path.parent()?.as_os_str().as_bytes() {
        b"" => b".",
        parent => parent,
    };
    let parent = CString::new(parent).ok()?;
    Some(relative(layer, &raw::path_of_directory(fd, &parent)?)?.join(name))
}

fn relative(layer: &Layer, path: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(path));
    path.strip_prefix(&layer.root).ok().map(Path::to_path_buf)
}
