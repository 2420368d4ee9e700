//! What changes what is in a file.

use std::ffi::{CStr, c_int};

use codeq_test_disk::What;
use libc::{O_APPEND, O_CLOEXEC, O_DSYNC, O_WRONLY, off_t};

use crate::{
    layer::Layer,
    place::Place,
    raw::{self, Answer},
    syncs,
};

/// Where a file that is written to is, if it is under the directory.
pub(crate) fn traced(fd: c_int) -> Option<(&'static Layer, Place)> {
    let layer = Layer::get()?;
    Some((layer, Place::of_file(layer, fd)?))
}

/// Writes to a file under the directory, at an offset or where the file stands.
pub(crate) fn write(
    (layer, place): (&Layer, Place),
    fd: c_int,
    bytes: &[u8],
    at: Option<off_t>,
) -> Answer {
    let flags = raw::flags(fd)?;
    let turn = layer.turn();
    turn.may_write()?;
    let size = size(fd)?;
    let start = match at {
        _ if flags & O_APPEND != 0 => size,
        Some(at) => u64::try_from(at).map_err(|_| libc::EINVAL)?,
        None => raw::position(fd)? as u64,
    };
    // What fits is written, as file systems do.
    let end = turn.room(size, start.saturating_add(bytes.len() as u64))?;
    let fits = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
    if fits == 0 && !bytes.is_empty() {
        return Err(libc::ENOSPC);
    }
    let bytes = &bytes[..fits.min(bytes.len())];
    let written = match at {
        Some(at) => raw::pwrite(fd, bytes, at),
        None => raw::write(fd, bytes),
    }?;
    let bytes = &bytes[..written as usize];
    if !bytes.is_empty() {
        turn.resized(size, size.max(start + bytes.len() as u64));
        turn.record(&place, What::Write { offset: start, bytes: bytes.to_vec() });
    }
    drop(turn);
    // So it is with O_SYNC, which has this bit as well.
    if flags & O_DSYNC != 0 {
        syncs::sync((layer, place), fd, true)?;
    }
    Ok(written)
}

/// Makes a file under the directory shorter or longer.
pub(crate) fn resize((layer, place): (&Layer, Place), fd: c_int, to: off_t) -> Answer {
    let turn = layer.turn();
    turn.may_write()?;
    let before = size(fd)?;
    let after = u64::try_from(to).map_err(|_| libc::EINVAL)?;
    if turn.room(before, after)? < after {
        return Err(libc::ENOSPC);
    }
    let done = raw::ftruncate(fd, to)?;
    turn.resized(before, after);
    turn.record(&place, What::Resize { size: after });
    Ok(done)
}

/// Makes a file longer so that there is room for so much.
pub(crate) fn allocate(
    (layer, place): (&Layer, Place),
    fd: c_int,
    mode: c_int,
    offset: off_t,
    length: off_t,
) -> Answer {
    // The others move or remove what is there.
    if mode != 0 {
        return Err(libc::EOPNOTSUPP);
    }
    let turn = layer.turn();
    turn.may_write()?;
    let before = size(fd)?;
    let end = offset.checked_add(length).ok_or(libc::EFBIG)?;
    let after = before.max(u64::try_from(end).map_err(|_| libc::EINVAL)?);
    if turn.room(before, after)? < after {
        return Err(libc::ENOSPC);
    }
    let done = raw::fallocate(fd, mode, offset, length)?;
    if after > before {
        turn.resized(before, after);
        turn.record(&place, What::Resize { size: after });
    }
    Ok(done)
}

/// Makes the file of a name shorter or longer, wherever it is.
pub(crate) fn truncate(path: &CStr, to: off_t) -> Answer {
    let fd = raw::openat(raw::HERE, path, O_WRONLY | O_CLOEXEC, 0)?;
    let answer = match traced(fd) {
        Some(traced) => resize(traced, fd, to),
        None => raw::ftruncate(fd, to),
    };
    raw::close(fd);
    answer
}

/// A file was mapped in a way that it can be written through memory.
pub(crate) fn mapped(fd: c_int) {
    if let Some((layer, place)) = traced(fd) {
        layer.turn().record(&place, What::Map);
    }
}

fn size(fd: c_int) -> Answer<u64> {
    Ok(raw::stat_fd(fd)?.st_size as u64)
}
