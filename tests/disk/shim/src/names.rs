//! What changes the names in a directory.

use std::{
    ffi::{CStr, c_int},
    path::PathBuf,
};

use codeq_test_disk::What;
use libc::{O_CREAT, O_EXCL, O_TMPFILE, O_TRUNC, S_IFDIR, S_IFMT, mode_t, stat};

use crate::{
    layer::{Layer, Turn},
    place::{self, Place},
    raw::{self, Answer},
};

/// Opens a file, wherever it is.
pub(crate) fn open(fd: c_int, path: &CStr, flags: c_int, mode: mode_t) -> Answer {
    let nameless = flags & O_TMPFILE == O_TMPFILE;
    if flags & (O_CREAT | O_TRUNC) != 0 || nameless {
        let place = Layer::get().and_then(|layer| Some((layer, place::of_name(layer, fd, path)?)));
        match place {
            Some(_) if nameless => return Err(libc::EOPNOTSUPP),
            Some((layer, name)) => return open_traced(layer, name, fd, path, flags, mode),
            None => {}
        }
    }
    raw::openat(fd, path, flags, mode).map(Into::into)
}

fn open_traced(
    layer: &Layer,
    name: PathBuf,
    fd: c_int,
    path: &CStr,
    flags: c_int,
    mode: mode_t,
) -> Answer {
    let turn = layer.turn();
    if flags & O_CREAT != 0 {
        // Whether it is there already, nobody says otherwise.
        match raw::openat(fd, path, flags | O_EXCL, mode) {
            Ok(file) => {
                let place = at(name, &raw::stat_fd(file)?);
                turn.record(&place, What::Create { directory: false });
                return Ok(file.into());
            }
            Err(libc::EEXIST) if flags & O_EXCL == 0 => {}
            Err(error) => return Err(error),
        }
    }
    let before = raw::stat_name(fd, path).map(|stat| size(&stat)).unwrap_or_default();
    let file = raw::openat(fd, path, flags & !O_CREAT, mode)?;
    if flags & O_TRUNC != 0
        && let Some(place) = Place::of_file(layer, file)
    {
        turn.resized(before, 0);
        turn.record(&place, What::Resize { size: 0 });
    }
    Ok(file.into())
}

/// Makes a directory, wherever it is.
pub(crate) fn make_directory(fd: c_int, path: &CStr, mode: mode_t) -> Answer {
    let Some((layer, name)) = traced(fd, path) else { return raw::mkdirat(fd, path, mode) };
    let turn = layer.turn();
    let done = raw::mkdirat(fd, path, mode)?;
    let place = at(name, &raw::stat_name(fd, path)?);
    turn.record(&place, What::Create { directory: true });
    Ok(done)
}

/// Removes a name, wherever it is.
pub(crate) fn unlink(fd: c_int, path: &CStr, directory: bool) -> Answer {
    let Some((layer, name)) = traced(fd, path) else { return raw::unlinkat(fd, path, directory) };
    let turn = layer.turn();
    let stat = raw::stat_name(fd, path)?;
    let done = raw::unlinkat(fd, path, directory)?;
    gone(&turn, &stat);
    turn.record(&at(name, &stat), What::Unlink);
    Ok(done)
}

/// Renames a file, wherever it is.
pub(crate) fn rename(
    (from_fd, from): (c_int, &CStr),
    (to_fd, to): (c_int, &CStr),
    flags: u32,
) -> Answer {
    let (old, new) = match (traced(from_fd, from), traced(to_fd, to)) {
        (None, None) => return raw::renameat(from_fd, from, to_fd, to, flags),
        (Some(old), Some((_, new))) => (old, new),
        // As if it were another file system: it would bring bytes that were never written, or take them.
        _ => return Err(libc::EXDEV),
    };
    if flags & !libc::RENAME_NOREPLACE != 0 {
        return Err(libc::EINVAL);
    }
    let (layer, old) = old;
    let turn = layer.turn();
    let stat = raw::stat_name(from_fd, from)?;
    if stat.st_mode & S_IFMT == S_IFDIR {
        // Everything in it would have other names.
        return Err(libc::EXDEV);
    }
    let replaced = raw::stat_name(to_fd, to);
    let done = raw::renameat(from_fd, from, to_fd, to, flags)?;
    if let Ok(replaced) = replaced {
        if replaced.st_ino == stat.st_ino {
            // Both were the same, so nothing happened.
            return Ok(done);
        }
        gone(&turn, &replaced);
    }
    turn.record(&at(old, &stat), What::Rename { to: new });
    Ok(done)
}

/// Makes a second name for a file, unless it is one under the directory.
pub(crate) fn may_link((from_fd, from): (c_int, &CStr), (to_fd, to): (c_int, &CStr)) -> Answer<()> {
    match (traced(from_fd, from), traced(to_fd, to)) {
        (None, None) => Ok(()),
        _ => Err(libc::EPERM),
    }
}

fn traced(fd: c_int, path: &CStr) -> Option<(&'static Layer, PathBuf)> {
    let layer = Layer::get()?;
    Some((layer, place::of_name(layer, fd, path)?))
}

fn at(path: PathBuf, stat: &stat) -> Place {
    Place { path, inode: stat.st_ino, directory: stat.st_mode & S_IFMT == S_IFDIR }
}

/// A file has lost a name, and with its last one its room.
fn gone(turn: &Turn<'_>, stat: &stat) {
    if stat.st_nlink == 1 && stat.st_mode & S_IFMT != S_IFDIR {
        turn.resized(size(stat), 0);
    }
}

fn size(stat: &stat) -> u64 {
    stat.st_size as u64
}
