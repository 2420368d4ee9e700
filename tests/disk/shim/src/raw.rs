//! The system calls themselves, past the functions that this library stands before.

use std::{
    ffi::{CStr, CString},
    io,
    mem::MaybeUninit,
};

use libc::{
    AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_NOFOLLOW, O_CLOEXEC, O_DIRECTORY, O_PATH, SEEK_CUR, c_int,
    c_long, c_void, mode_t, off_t, stat, syscall,
};

/// What a system call answers: a number, or why it failed.
pub(crate) type Answer<T = c_long> = Result<T, c_int>;

/// The current directory, for paths that begin there.
pub(crate) const HERE: c_int = AT_FDCWD;

/// Why the last call failed.
pub(crate) fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// The answer of a call in C.
pub(crate) fn answer(result: c_long) -> Answer {
    if result == -1 { Err(errno()) } else { Ok(result) }
}

/// The answer as C wants it.
pub(crate) fn to_c(answer: Answer) -> c_long {
    answer.unwrap_or_else(|error| {
        // SAFETY: it is the thread's own.
        unsafe { *libc::__errno_location() = error };
        -1
    })
}

fn to_fd(answer: Answer) -> Answer<c_int> {
    // What the system answers for a descriptor is one.
    answer.map(|fd| c_int::try_from(fd).unwrap_or(-1))
}

pub(crate) fn openat(fd: c_int, path: &CStr, flags: c_int, mode: mode_t) -> Answer<c_int> {
    // SAFETY: the path is a text of C.
    to_fd(answer(unsafe { syscall(libc::SYS_openat, fd, path.as_ptr(), flags, mode) }))
}

pub(crate) fn close(fd: c_int) {
    // SAFETY: nobody else has the descriptors that we close.
    let _ = unsafe { syscall(libc::SYS_close, fd) };
}

pub(crate) fn write(fd: c_int, bytes: &[u8]) -> Answer {
    // SAFETY: the bytes are there.
    answer(unsafe { syscall(libc::SYS_write, fd, bytes.as_ptr(), bytes.len()) })
}

pub(crate) fn pwrite(fd: c_int, bytes: &[u8], offset: off_t) -> Answer {
    // SAFETY: the bytes are there.
    answer(unsafe { syscall(libc::SYS_pwrite64, fd, bytes.as_ptr(), bytes.len(), offset) })
}

pub(crate) fn ftruncate(fd: c_int, size: off_t) -> Answer {
    // SAFETY: it touches no memory of ours.
    answer(unsafe { syscall(libc::SYS_ftruncate, fd, size) })
}

pub(crate) fn fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> Answer {
    // SAFETY: it touches no memory of ours.
    answer(unsafe { syscall(libc::SYS_fallocate, fd, mode, offset, length) })
}

pub(crate) fn sync(fd: c_int, data_only: bool) -> Answer {
    let number = if data_only { libc::SYS_fdatasync } else { libc::SYS_fsync };
    // SAFETY: it touches no memory of ours.
    answer(unsafe { syscall(number, fd) })
}

pub(crate) fn unlinkat(fd: c_int, path: &CStr, directory: bool) -> Answer {
    let flags = if directory { AT_REMOVEDIR } else { 0 };
    // SAFETY: the path is a text of C.
    answer(unsafe { syscall(libc::SYS_unlinkat, fd, path.as_ptr(), flags) })
}

pub(crate) fn renameat(from_fd: c_int, from: &CStr, to_fd: c_int, to: &CStr, flags: u32) -> Answer {
    let number = libc::SYS_renameat2;
    // SAFETY: the paths are texts of C.
    answer(unsafe { syscall(number, from_fd, from.as_ptr(), to_fd, to.as_ptr(), flags) })
}

pub(crate) fn mkdirat(fd: c_int, path: &CStr, mode: mode_t) -> Answer {
    // SAFETY: the path is a text of C.
    answer(unsafe { syscall(libc::SYS_mkdirat, fd, path.as_ptr(), mode) })
}

/// Locks a file, however many signals come between, or unlocks it.
pub(crate) fn flock(fd: c_int, operation: c_int) -> Answer {
    loop {
        // SAFETY: it touches no memory of ours.
        match answer(unsafe { syscall(libc::SYS_flock, fd, operation) }) {
            Err(libc::EINTR) => {}
            done => return done,
        }
    }
}

/// What the system knows about an open file.
pub(crate) fn stat_fd(fd: c_int) -> Answer<stat> {
    let mut stat = MaybeUninit::uninit();
    // SAFETY: there is room for it.
    answer(unsafe { libc::fstat(fd, stat.as_mut_ptr()) }.into())?;
    // SAFETY: the call that fills it succeeded.
    Ok(unsafe { stat.assume_init() })
}

/// What the system knows about a name.
pub(crate) fn stat_name(fd: c_int, path: &CStr) -> Answer<stat> {
    let mut stat = MaybeUninit::uninit();
    let flags = AT_SYMLINK_NOFOLLOW;
    // SAFETY: the path is a text of C, and there is room for the answer.
    answer(unsafe { libc::fstatat(fd, path.as_ptr(), stat.as_mut_ptr(), flags) }.into())?;
    // SAFETY: the call that fills it succeeded.
    Ok(unsafe { stat.assume_init() })
}

/// The flags with which a file is open.
pub(crate) fn flags(fd: c_int) -> Answer<c_int> {
    // SAFETY: it touches no memory of ours.
    to_fd(answer(unsafe { libc::fcntl(fd, libc::F_GETFL) }.into()))
}

/// Where the next write goes that does not say where.
pub(crate) fn position(fd: c_int) -> Answer<off_t> {
    // SAFETY: it touches no memory of ours.
    answer(unsafe { libc::lseek(fd, 0, SEEK_CUR) })
}

/// The whole path of an open file, as it is called now.
pub(crate) fn path_of(fd: c_int) -> Option<Vec<u8>> {
    let link = CString::new(format!("/proc/self/fd/{fd}")).ok()?;
    let mut path = vec![0_u8; 4096];
    let room = path.as_mut_ptr().cast();
    // SAFETY: the link is a text of C, and there is so much room.
    let length = answer(unsafe { libc::readlink(link.as_ptr(), room, path.len()) } as c_long);
    path.truncate(usize::try_from(length.ok()?).ok()?);
    Some(path)
}

/// The whole path of a directory, past all links.
pub(crate) fn path_of_directory(fd: c_int, path: &CStr) -> Option<Vec<u8>> {
    let directory = openat(fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0).ok()?;
    let path = path_of(directory);
    close(directory);
    path
}

/// Maps a file, as `mmap` does.
///
/// # Safety
/// As for `mmap`.
pub(crate) unsafe fn mmap(
    at: *mut c_void,
    length: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> c_long {
    // SAFETY: the caller sees to it.
    unsafe { syscall(libc::SYS_mmap, at, length, protection, flags, fd, offset) }
}
