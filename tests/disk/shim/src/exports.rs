//! The functions that the C library has, too, as programs call them. What is not about the directory
//! goes on to the system.
//!
//! `open` and `openat` take their mode only if there is one. Stable Rust has no such functions; it is in
//! the same register of the processor either way, and looked at only if it means anything.

use std::{
    ffi::{CStr, c_char, c_int, c_long, c_uint, c_void},
    slice,
};

use libc::{
    MAP_SHARED, MAP_SHARED_VALIDATE, MAP_TYPE, O_CREAT, O_TRUNC, O_WRONLY, PROT_WRITE, iovec,
    mode_t, off_t, size_t, ssize_t,
};

use crate::{
    names,
    raw::{self, Answer, HERE},
    syncs, writes,
};

/// Defines functions under the names that they have in C. All of them are called by programs as C's own,
/// with arguments that are good for those.
macro_rules! exports {
    ($($($name:ident),+ ($($argument:ident: $type:ty),*) -> $result:ty { $call:expr })+) => {
        $(exports!(@each [$($name)+] ($($argument: $type),*) -> $result { $call });)+
    };
    (@each [$($name:ident)+] $arguments:tt -> $result:ty { $call:expr }) => {
        $(exports!(@one $name $arguments -> $result { $call });)+
    };
    (@one $name:ident ($($argument:ident: $type:ty),*) -> $result:ty { $call:expr }) => {
        // SAFETY: it does what the function of this name does.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            // Whatever C answers fits into what it answers.
            raw::to_c($call) as $result
        }
    };
}

/// A path, as programs pass it.
macro_rules! path {
    ($path:expr) => {
        if $path.is_null() {
            c""
        } else {
            // SAFETY: it is a text of C, as the function's contract has it.
            unsafe { CStr::from_ptr($path) }
        }
    };
}

exports! {
    // Not all of what is opened is made or cut off; `names` tells.
    open, open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        names::open(HERE, path!(path), flags, mode)
    }
    __open_2, __open64_2(path: *const c_char, flags: c_int) -> c_int {
        names::open(HERE, path!(path), flags, 0)
    }
    openat, openat64(fd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        names::open(fd, path!(path), flags, mode)
    }
    __openat_2, __openat64_2(fd: c_int, path: *const c_char, flags: c_int) -> c_int {
        names::open(fd, path!(path), flags, 0)
    }
    creat, creat64(path: *const c_char, mode: mode_t) -> c_int {
        names::open(HERE, path!(path), O_CREAT | O_WRONLY | O_TRUNC, mode)
    }

    write(fd: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
        write_one(fd, bytes, count, None)
    }
    pwrite, pwrite64(fd: c_int, bytes: *const c_void, count: size_t, at: off_t) -> ssize_t {
        write_one(fd, bytes, count, Some(at))
    }
    writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
        write_parts(fd, parts, count, None)
    }
    pwritev, pwritev64(fd: c_int, parts: *const iovec, count: c_int, at: off_t) -> ssize_t {
        write_parts(fd, parts, count, Some(at))
    }
    pwritev2, pwritev64v2(
        fd: c_int, parts: *const iovec, count: c_int, at: off_t, flags: c_int
    ) -> ssize_t {
        write_parts_with(fd, parts, count, at, flags)
    }

    ftruncate, ftruncate64(fd: c_int, size: off_t) -> c_int {
        match writes::traced(fd) {
            Some(traced) => writes::resize(traced, fd, size),
            None => raw::ftruncate(fd, size),
        }
    }
    truncate, truncate64(path: *const c_char, size: off_t) -> c_int {
        writes::truncate(path!(path), size)
    }
    fallocate, fallocate64(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
        allocate(fd, mode, offset, length)
    }
    // This one answers the error itself.
    posix_fallocate, posix_fallocate64(fd: c_int, offset: off_t, length: off_t) -> c_int {
        Ok(allocate(fd, 0, offset, length).err().unwrap_or_default().into())
    }
    // Whoever is refused copies the bytes himself.
    copy_file_range(
        from: c_int, from_at: *mut off_t, to: c_int, to_at: *mut off_t, count: size_t, flags: c_uint
    ) -> ssize_t {
        if writes::traced(to).is_some() {
            Err(libc::ENOSYS)
        } else {
            let number = libc::SYS_copy_file_range;
            // SAFETY: it is what the program asked for.
            raw::answer(unsafe { libc::syscall(number, from, from_at, to, to_at, count, flags) })
        }
    }
    sendfile, sendfile64(to: c_int, from: c_int, at: *mut off_t, count: size_t) -> ssize_t {
        if writes::traced(to).is_some() {
            Err(libc::EINVAL)
        } else {
            // SAFETY: it is what the program asked for.
            raw::answer(unsafe { libc::syscall(libc::SYS_sendfile, to, from, at, count) })
        }
    }

    fsync(fd: c_int) -> c_int { syncs::sync_any(fd, false) }
    fdatasync(fd: c_int) -> c_int { syncs::sync_any(fd, true) }

    unlink(path: *const c_char) -> c_int { names::unlink(HERE, path!(path), false) }
    rmdir(path: *const c_char) -> c_int { names::unlink(HERE, path!(path), true) }
    remove(path: *const c_char) -> c_int {
        match names::unlink(HERE, path!(path), false) {
            Err(libc::EISDIR) => names::unlink(HERE, path!(path), true),
            done => done,
        }
    }
    unlinkat(fd: c_int, path: *const c_char, flags: c_int) -> c_int {
        names::unlink(fd, path!(path), flags & libc::AT_REMOVEDIR != 0)
    }
    rename(from: *const c_char, to: *const c_char) -> c_int {
        names::rename((HERE, path!(from)), (HERE, path!(to)), 0)
    }
    renameat(from_fd: c_int, from: *const c_char, to_fd: c_int, to: *const c_char) -> c_int {
        names::rename((from_fd, path!(from)), (to_fd, path!(to)), 0)
    }
    renameat2(
        from_fd: c_int, from: *const c_char, to_fd: c_int, to: *const c_char, flags: c_uint
    ) -> c_int {
        names::rename((from_fd, path!(from)), (to_fd, path!(to)), flags)
    }
    mkdir(path: *const c_char, mode: mode_t) -> c_int {
        names::make_directory(HERE, path!(path), mode)
    }
    mkdirat(fd: c_int, path: *const c_char, mode: mode_t) -> c_int {
        names::make_directory(fd, path!(path), mode)
    }
    link(from: *const c_char, to: *const c_char) -> c_int {
        link_at((HERE, path!(from)), (HERE, path!(to)), 0)
    }
    linkat(
        from_fd: c_int, from: *const c_char, to_fd: c_int, to: *const c_char, flags: c_int
    ) -> c_int {
        link_at((from_fd, path!(from)), (to_fd, path!(to)), flags)
    }

    mmap, mmap64(
        at: *mut c_void, length: size_t, access: c_int, flags: c_int, fd: c_int, offset: off_t
    ) -> *mut c_void {
        map(at, length, access, flags, fd, offset)
    }
}

fn write_one(fd: c_int, bytes: *const c_void, count: size_t, at: Option<off_t>) -> Answer {
    if let Some(traced) = writes::traced(fd) {
        // SAFETY: so many bytes are there, as the function's contract has it.
        let bytes = unsafe { part(bytes, count) };
        return writes::write(traced, fd, bytes, at);
    }
    // SAFETY: it is what the program asked for.
    raw::answer(unsafe {
        match at {
            Some(at) => libc::syscall(libc::SYS_pwrite64, fd, bytes, count, at),
            None => libc::syscall(libc::SYS_write, fd, bytes, count),
        }
    })
}

fn write_parts(fd: c_int, parts: *const iovec, count: c_int, at: Option<off_t>) -> Answer {
    if let Some(traced) = writes::traced(fd) {
        let count = usize::try_from(count).map_err(|_| libc::EINVAL)?;
        let mut bytes = Vec::new();
        for number in 0..count {
            // SAFETY: so many parts are there, each as it says, as the function's contract has it.
            bytes.extend_from_slice(unsafe {
                let iovec { iov_base, iov_len } = *parts.add(number);
                part(iov_base, iov_len)
            });
        }
        return writes::write(traced, fd, &bytes, at);
    }
    // SAFETY: it is what the program asked for.
    raw::answer(unsafe {
        match at {
            Some(at) => libc::syscall(libc::SYS_pwritev, fd, parts, count, at, 0),
            None => libc::syscall(libc::SYS_writev, fd, parts, count),
        }
    })
}

fn write_parts_with(
    fd: c_int,
    parts: *const iovec,
    count: c_int,
    at: off_t,
    flags: c_int,
) -> Answer {
    match writes::traced(fd) {
        // Here -1 stands for where the file is.
        Some(_) if flags == 0 => write_parts(fd, parts, count, (at != -1).then_some(at)),
        Some(_) => Err(libc::EOPNOTSUPP),
        // SAFETY: it is what the program asked for.
        None => raw::answer(unsafe {
            libc::syscall(libc::SYS_pwritev2, fd, parts, count, at, 0, flags)
        }),
    }
}

/// Bytes that a program passes.
///
/// # Safety
/// So many have to be there.
unsafe fn part<'a>(bytes: *const c_void, count: size_t) -> &'a [u8] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller sees to it.
    unsafe { slice::from_raw_parts(bytes.cast(), count) }
}

fn allocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> Answer {
    match writes::traced(fd) {
        Some(traced) => writes::allocate(traced, fd, mode, offset, length),
        None => raw::fallocate(fd, mode, offset, length),
    }
}

fn link_at(from: (c_int, &CStr), to: (c_int, &CStr), flags: c_int) -> Answer {
    names::may_link(from, to)?;
    let (from_fd, from, to_fd, to) = (from.0, from.1.as_ptr(), to.0, to.1.as_ptr());
    // SAFETY: it is what the program asked for.
    raw::answer(unsafe { libc::syscall(libc::SYS_linkat, from_fd, from, to_fd, to, flags) })
}

fn map(
    at: *mut c_void,
    length: size_t,
    access: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> Answer {
    // SAFETY: it is what the program asked for.
    let answer: c_long = unsafe { raw::mmap(at, length, access, flags, fd, offset) };
    let answer = raw::answer(answer)?;
    let shared = [MAP_SHARED, MAP_SHARED_VALIDATE].contains(&(flags & MAP_TYPE));
    if shared && access & PROT_WRITE != 0 && fd >= 0 {
        writes::mapped(fd);
    }
    Ok(answer)
}
