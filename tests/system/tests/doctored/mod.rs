//! Libraries that somebody changed by hand.

#![allow(dead_code, reason = "each test uses its part")]

use std::{fs, ops::Range, os::unix::fs::PermissionsExt, path::Path};

use codeq_plugin::manifest::ELF_SECTION;
use codeq_system_tests::plugin;
use object::{Object, ObjectSection};

/// The bytes of a plugin.
pub(crate) fn bytes_of(name: &str) -> Vec<u8> {
    fs::read(plugin(name)).unwrap()
}

/// The bytes of a plugin with another text in its manifest, which may be shorter than the one that
/// it replaces: spaces make up for it, so it must end where JSON may have them.
pub(crate) fn with_manifest(name: &str, from: &str, to: &str) -> Vec<u8> {
    let bytes = bytes_of(name);
    let manifest = manifest_of(&bytes);
    replaced(bytes, manifest, from.as_bytes(), format!("{to:0$}", from.len()).as_bytes())
}

/// Where the manifest is in a plugin's bytes.
pub(crate) fn manifest_of(bytes: &[u8]) -> Range<usize> {
    let library = object::File::parse(bytes).unwrap();
    let (from, len) = library.section_by_name(ELF_SECTION).unwrap().file_range().unwrap();
    usize::try_from(from).unwrap()..usize::try_from(from + len).unwrap()
}

/// The bytes with every occurrence of `from` within `range` replaced.
pub(crate) fn replaced(mut bytes: Vec<u8>, range: Range<usize>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "a library keeps its length");
    let places: Vec<usize> =
        range.filter(|place| bytes.get(*place..*place + from.len()) == Some(from)).collect();
    assert!(!places.is_empty(), "{} is not there", from.escape_ascii());
    for place in places {
        bytes[place..place + to.len()].copy_from_slice(to);
    }
    bytes
}

/// Writes a file that only its owner may write, as a plugin should be.
pub(crate) fn install(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}
