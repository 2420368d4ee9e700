//! Reading what a library says about itself, from its bytes alone.
//!
//! Opening a library runs its constructors, and opening one that is cut off kills the process with
//! SIGBUS. So everything that can be known is found out first, by reading the file like any other.

use std::{
    fs::{File, Metadata},
    io::Read,
    path::{Path, PathBuf},
};

use codeq_plugin::manifest::{ELF_SECTION, INTERFACE_MAJOR, MACHO_SECTION, Manifest, TARGET};
use object::{
    Architecture, FileKind, Object, ObjectKind, ObjectSection, ObjectSegment, ReadCache, ReadRef,
};
use rustix::process::{getegid, geteuid};
use sha2::{Digest, Sha256};

use super::{Refusal, RefusalKind};

/// A library that is fit to be loaded.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Where it is.
    pub path: PathBuf,
    /// What it says about itself.
    pub manifest: Manifest,
    /// How many bytes it has.
    pub size: u64,
}

/// Reads a library's manifest without running any of its code, and without reading all of it.
///
/// # Errors
///
/// Why it is not fit to be loaded.
pub fn inspect(path: &Path) -> Result<Inspected, Refusal> {
    let refuse = |kind| Refusal::new(path, kind);
    let (file, metadata) = open(path).map_err(refuse)?;
    let size = metadata.len();
    let manifest = read_manifest(&ReadCache::new(file), size).map_err(refuse)?;
    Ok(Inspected { path: path.to_owned(), manifest, size })
}

/// All the bytes of a library that were found fit to be loaded, with their SHA-256.
pub(crate) struct Contents {
    pub(crate) manifest: Manifest,
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: [u8; 32],
}

/// Reads a library once and inspects what was read, so that what is loaded later is what was
/// inspected now, whatever happens to the file meanwhile.
pub(crate) fn read(path: &Path) -> Result<Contents, Refusal> {
    let refuse = |kind| Refusal::new(path, kind);
    let (mut file, metadata) = open(path).map_err(refuse)?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.read_to_end(&mut bytes).map_err(|error| refuse(RefusalKind::Unreadable(error)))?;
    let manifest = read_manifest(bytes.as_slice(), bytes.len() as u64).map_err(refuse)?;
    let digest = Sha256::digest(&bytes).into();
    Ok(Contents { manifest, bytes, digest })
}

/// Refuses a directory in which anybody but its owner could put a plugin.
pub(crate) fn check_dir(path: &Path) -> Result<(), Refusal> {
    let refuse = |kind| Refusal::new(path, kind);
    let metadata = path.metadata().map_err(|error| refuse(RefusalKind::Unreadable(error)))?;
    check_writers("the directory", path, &metadata).map_err(refuse)
}

fn open(path: &Path) -> Result<(File, Metadata), RefusalKind> {
    let unreadable = RefusalKind::Unreadable;
    // A named pipe would make `open` wait for a writer, so look before opening.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err(RefusalKind::NotALibrary("it is not a regular file"));
    }
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    check_writers("the file", path, &metadata)?;
    Ok((file, metadata))
}

/// Others are all but root, the user that the host runs as, and that user's own group.
fn check_writers(what: &'static str, path: &Path, metadata: &Metadata) -> Result<(), RefusalKind> {
    use std::os::unix::fs::MetadataExt;
    let refuse = |why, remedy: String| RefusalKind::WritableByOthers { what, why, remedy };
    let shown = path.display();
    let mode = metadata.mode() & 0o7777;
    if mode & 0o002 != 0 {
        return Err(refuse(format!("its mode is {mode:04o}"), format!("run `chmod o-w {shown}`")));
    }
    let own_group = metadata.gid() == getegid().as_raw() || metadata.gid() == 0;
    if mode & 0o020 != 0 && !own_group {
        let why = format!("its mode is {mode:04o} and its group is {}", metadata.gid());
        return Err(refuse(why, format!("run `chmod g-w {shown}`")));
    }
    let user = geteuid().as_raw();
    if metadata.uid() != user && metadata.uid() != 0 {
        let why = format!("it belongs to user {}", metadata.uid());
        return Err(refuse(why, format!("run `chown {user} {shown}`")));
    }
    Ok(())
}

fn read_manifest<'data, R: ReadRef<'data>>(data: R, size: u64) -> Result<Manifest, RefusalKind> {
    if size == 0 {
        return Err(RefusalKind::Empty);
    }
    let kind = kind_of(data, size)?;
    let damaged = |error: object::Error| RefusalKind::Truncated(error.to_string());
    let library = object::File::parse(data).map_err(damaged)?;
    if matches!(kind, FileKind::Elf32 | FileKind::Elf64) != cfg!(not(target_vendor = "apple"))
        || library.architecture() != ARCHITECTURE
        || library.is_little_endian() != cfg!(target_endian = "little")
    {
        let format =
            if matches!(kind, FileKind::Elf32 | FileKind::Elf64) { "ELF" } else { "Mach-O" };
        let found = format!("{:?} ({format})", library.architecture());
        return Err(RefusalKind::OtherTarget { found, needed: TARGET.into() });
    }
    if library.kind() != ObjectKind::Dynamic {
        return Err(RefusalKind::NotALibrary("it is a program or an object file"));
    }
    check_complete(&library, size)?;
    let section = [ELF_SECTION, MACHO_SECTION]
        .into_iter()
        .find_map(|name| library.section_by_name(name))
        .ok_or(RefusalKind::NoManifest)?;
    let manifest =
        Manifest::parse(section.data().map_err(damaged)?).map_err(RefusalKind::BadManifest)?;
    check_manifest(manifest)
}

fn kind_of<'data, R: ReadRef<'data>>(data: R, size: u64) -> Result<FileKind, RefusalKind> {
    const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
    match FileKind::parse(data) {
        Ok(kind @ (FileKind::Elf32 | FileKind::Elf64 | FileKind::MachO32 | FileKind::MachO64)) => {
            Ok(kind)
        }
        Ok(_) => Err(RefusalKind::NotALibrary("it has another format")),
        // Too short to be told apart, but it begins as a library does.
        Err(_)
            if data.read_bytes_at(0, size.min(4)).is_ok_and(|head| ELF_MAGIC.starts_with(head)) =>
        {
            Err(RefusalKind::Truncated(format!("it has only {size} bytes")))
        }
        Err(_) => Err(RefusalKind::NotALibrary("its first bytes are those of no known format")),
    }
}

/// Every byte that the library's headers promise must be there.
fn check_complete<'data, R: ReadRef<'data>>(
    library: &object::File<'data, R>,
    size: u64,
) -> Result<(), RefusalKind> {
    let segments = library.segments().map(|segment| segment.file_range());
    let sections = library.sections().filter_map(|section| section.file_range());
    let end = segments.chain(sections).map(|(from, len)| from.saturating_add(len)).max();
    match end {
        Some(end) if end > size => {
            Err(RefusalKind::Truncated(format!("it has {size} bytes, its headers tell of {end}")))
        }
        _ => Ok(()),
    }
}

/// Whether a plugin may be called so.
pub(crate) fn is_label(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= 63
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn check_manifest(manifest: Manifest) -> Result<Manifest, RefusalKind> {
    if !is_label(&manifest.name) {
        return Err(RefusalKind::BadManifest(format!(
            "its name `{}` is not made of a-z, 0-9 and `-`, beginning with a letter",
            manifest.name.escape_debug()
        )));
    }
    if manifest.interface.major != INTERFACE_MAJOR {
        return Err(RefusalKind::OtherInterface { found: manifest.interface });
    }
    if manifest.target != TARGET {
        return Err(RefusalKind::OtherTarget { found: manifest.target, needed: TARGET.into() });
    }
    if manifest.panic != "unwind" {
        return Err(RefusalKind::PanicAborts(manifest.panic));
    }
    Ok(manifest)
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Architecture = Architecture::X86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Architecture = Architecture::Aarch64;
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: Architecture = Architecture::Riscv64;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
compile_error!("name this architecture in `host/src/plugins/inspect.rs`");
