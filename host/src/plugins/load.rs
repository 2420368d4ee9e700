//! Bringing a library into the process.
//!
//! The bytes that were inspected are the bytes that are loaded: they are copied to an anonymous
//! file that nobody else can reach or change. So there is no gap between check and use, replacing or
//! truncating the plugin's file does nothing to a running host, and a new version of it really is
//! new to the loader, which hands back the old library for a path that it knows.
//!
//! A library is never unloaded: its code may be running, and its strings may be anywhere.

// Loading a library and using what it exports cannot be checked by the compiler.
#![allow(unsafe_code)]

use std::{
    cmp::Ordering,
    collections::HashMap,
    fs::File,
    io::{self, Write},
    mem,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use abi_stable::{
    abi_stability::abi_checking::check_layout_compatibility,
    library::{AbiHeaderRef, LibHeader, LibraryError, RootModule},
};
use codeq_plugin::{
    boundary::{PluginModuleRef, ROOT_SYMBOL},
    manifest::{INTERFACE_MINOR, InterfaceVersion},
};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use once_cell::sync::Lazy;

use super::{RefusalKind, inspect::Contents, layout};
use crate::causes::with_causes;

/// Loads a library, or finds the same bytes loaded already.
pub(crate) fn load(contents: &Contents) -> Result<PluginModuleRef, RefusalKind> {
    static LOADED: Lazy<Mutex<HashMap<[u8; 32], PluginModuleRef>>> = Lazy::new(Mutex::default);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = loaded.get(&contents.digest) {
        return Ok(*module);
    }
    let image = Image::write(&contents.manifest.name, &contents.bytes)
        .map_err(|error| RefusalKind::LoaderRefused(format!("cannot copy the library: {error}")))?;
    let header = open(&image.path)?;
    let module = root_module(header, contents.manifest.interface)?;
    loaded.insert(contents.digest, module);
    Ok(module)
}

fn open(path: &Path) -> Result<&'static LibHeader, RefusalKind> {
    let refused =
        |error: libloading::Error| RefusalKind::LoaderRefused(first_line(&with_causes(&error)));
    // SAFETY: this runs the library's constructors. That they do no harm is what the operator vouches
    // for by installing the plugin where only trusted users may write, which was checked.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(refused)?;
    // SAFETY: the export macro is the only one to define a symbol of this name, and it defines it as
    // a `LibHeader`, which begins with the `AbiHeader` that the reference is to.
    let header = unsafe { library.get::<AbiHeaderRef>(ROOT_SYMBOL.as_bytes()) }.map_err(refused);
    let header = header.map(|header| *header);
    // Even a library that turns out to be of no use has run its constructors, which may have left
    // threads behind. It stays.
    mem::forget(library);
    let upgraded = header?.upgrade();
    upgraded
        .map_err(|error: LibraryError| RefusalKind::LoaderRefused(first_line(&error.to_string())))
}

/// Checks that both sides lay the interface out alike, and gets the library's module.
///
/// The check of `abi_stable` is not symmetric: it lets the implementation have more fields and
/// methods than the interface, not fewer. The older side is the one with fewer.
fn root_module(
    header: &'static LibHeader,
    interface: InterfaceVersion,
) -> Result<PluginModuleRef, RefusalKind> {
    let refuse = |reason: String| RefusalKind::OtherLayout { found: interface, reason };
    let ours = PluginModuleRef::CONSTANTS.layout().into_option();
    let (Some(ours), Some(theirs)) = (ours, header.layout()) else {
        return Err(refuse("it does not tell its layout".into()));
    };
    let checked = match interface.minor.cmp(&INTERFACE_MINOR) {
        Ordering::Less => check_layout_compatibility(theirs, ours),
        Ordering::Equal | Ordering::Greater => check_layout_compatibility(ours, theirs),
    };
    checked.map_err(|errors| {
        let difference = layout::first_difference(ours, theirs);
        refuse(difference.map_or_else(|| shortened(&errors.to_string()), |it| it.to_string()))
    })?;
    // SAFETY: the layouts were compared just now.
    let module = unsafe { header.unchecked_layout::<PluginModuleRef>() };
    module.map_err(|error| RefusalKind::LoaderRefused(first_line(&error.to_string())))
}

/// A private copy of a library that the loader can open.
struct Image {
    path: PathBuf,
}

impl Image {
    #[cfg(target_os = "linux")]
    fn write(name: &str, bytes: &[u8]) -> io::Result<Image> {
        use std::{os::fd::AsRawFd, thread, time::Duration};

        use rustix::{
            fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
            io::Errno,
        };

        const SEALING_TRIES: u32 = 100;
        const SEALING_PAUSE: Duration = Duration::from_millis(10);

        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create(format!("codeq-plugin-{name}"), flags)?);
        file.write_all(bytes)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        // The system refuses for as long as it holds a page for purposes of its own, which passes.
        let mut tries = 0;
        while let Err(error) = fcntl_add_seals(&file, seals) {
            tries += 1;
            if error != Errno::BUSY || tries == SEALING_TRIES {
                return Err(error.into());
            }
            thread::sleep(SEALING_PAUSE);
        }
        let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        // The number must not come again: the loader takes a path that it knows for the same library.
        mem::forget(file);
        Ok(Image { path })
    }

    #[cfg(not(target_os = "linux"))]
    fn write(name: &str, bytes: &[u8]) -> io::Result<Image> {
        // A directory of its own, which only this user can enter. It is left behind while the library
        // is in use, which is for as long as the process lives.
        let dir = tempfile::Builder::new().prefix("codeq-plugin-").tempdir()?.keep();
        let path = dir.join(format!("{name}{}", std::env::consts::DLL_SUFFIX));
        File::create_new(&path)?.write_all(bytes)?;
        Ok(Image { path })
    }
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

/// The layout check explains itself on pages; one line of them says where it begins.
fn shortened(report: &str) -> String {
    let line = |prefix: &str| report.lines().map(str::trim).find(|line| line.starts_with(prefix));
    line("Error:").or_else(|| line("field_name")).map_or_else(|| first_line(report), str::to_owned)
}
