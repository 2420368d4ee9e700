//! The manifest: what a plugin says about itself before any of its code runs.
//!
//! It is JSON behind a short header, in a section of the library of its own, so that the host reads
//! it from the file like any other bytes. The export macro writes it; [`Manifest::parse`] reads it.

use serde::{Deserialize, Serialize};

/// The interface's major version. A host loads plugins of its own major version only.
pub const INTERFACE_MAJOR: u32 = 1;
/// The interface's minor version. Any minor version works with any other of the same major one.
pub const INTERFACE_MINOR: u32 = 1;

/// The target triple that this crate was built for.
pub const TARGET: &str = env!("CODEQ_TARGET");

/// The first bytes of a manifest, so that a section of that name by chance is not taken for one.
pub const MAGIC: [u8; 16] = *b"codeq-manifest\0\x01";

/// The name of the section that holds the manifest, in ELF libraries.
pub const ELF_SECTION: &str = ".codeq_plugin";
/// The name of the section that holds the manifest, in Mach-O libraries; its segment is `__DATA`.
pub const MACHO_SECTION: &str = "__codeq_plugin";

/// What a plugin says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The name by which it is selected: `persistenceProvider`.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// One line for people.
    pub description: String,
    /// The interface it was built against.
    pub interface: InterfaceVersion,
    /// The target triple it was built for.
    pub target: String,
    /// The compiler that built it.
    pub rustc: String,
    /// What a panic does in it: `unwind` or `abort`.
    pub panic: String,
    /// What its writes survive once they are answered, with the default settings.
    pub durability: Durability,
    /// What it can do beyond the core of the storage contract.
    pub capabilities: Vec<Capability>,
    /// The JSON schema of its configuration.
    pub config_schema: serde_json::Value,
}

/// A version of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceVersion {
    /// Versions of different major numbers do not work together.
    pub major: u32,
    /// Versions of the same major number do.
    pub minor: u32,
}

/// What a store's writes survive once they are answered.
///
/// A store may offer several by setting: the manifest declares that of its defaults, and an open store
/// tells its own if it is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Nothing: they are gone with the process.
    Volatile,
    /// The host being killed.
    Process,
    /// Power loss of the machine.
    Disk,
    /// Loss of one node.
    Replicated,
}

impl Durability {
    const ALL: [Durability; 4] =
        [Durability::Volatile, Durability::Process, Durability::Disk, Durability::Replicated];

    /// The level that manifests call so.
    pub fn parse(name: &str) -> Option<Durability> {
        Durability::ALL.into_iter().find(|level| level.as_str() == name)
    }

    /// The name that manifests use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Durability::Volatile => "volatile",
            Durability::Process => "process",
            Durability::Disk => "disk",
            Durability::Replicated => "replicated",
        }
    }
}

/// What a store can do beyond the core of the storage contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Keeps subscriptions.
    Subscriptions,
    /// Lists and redrives tasks.
    Listing,
    /// Several hosts may use one backend at the same time.
    Shared,
    /// Reports what other hosts do in the backend.
    Events,
    /// Copies all that a store keeps while hosts use it.
    Backup,
    /// One that only a newer interface knows.
    #[serde(other)]
    Unknown,
}

impl Capability {
    /// The name that manifests use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Capability::Subscriptions => "subscriptions",
            Capability::Listing => "listing",
            Capability::Shared => "shared",
            Capability::Events => "events",
            Capability::Backup => "backup",
            Capability::Unknown => "unknown",
        }
    }
}

impl Manifest {
    /// Reads the contents of a manifest section.
    ///
    /// # Errors
    ///
    /// What is wrong with them, in a few words.
    pub fn parse(section: &[u8]) -> Result<Manifest, String> {
        let rest = section.strip_prefix(&MAGIC).ok_or("it does not begin with the magic bytes")?;
        let (len, rest) = rest.split_first_chunk::<4>().ok_or("its length is missing")?;
        let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| "it is too long")?;
        let json = rest.get(..len).ok_or("it is shorter than it says")?;
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }

    /// Whether the plugin can do `capability`.
    pub fn has(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }
}

/// Builds the JSON of a manifest at compile time. Used by the export macro only.
///
/// The texts that it is given stand in JSON as they are; what would need escaping does not compile.
#[doc(hidden)]
pub struct Source {
    pub name: &'static str,
    pub version: &'static str,
    pub description: &'static str,
    pub panic: &'static str,
    pub durability: Durability,
    pub capabilities: &'static [Capability],
    pub config_schema: &'static str,
}

impl Source {
    /// How many bytes the section has.
    #[doc(hidden)]
    pub const fn size(&self) -> usize {
        self.write::<0>(&mut [], false)
    }

    /// The section's bytes.
    #[doc(hidden)]
    pub const fn bytes<const LEN: usize>(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        self.write(&mut bytes, true);
        bytes
    }

    const fn write<const LEN: usize>(&self, out: &mut [u8; LEN], store: bool) -> usize {
        assert!(is_plain(self.name), "the plugin's name must not need escaping in JSON");
        assert!(
            is_plain(self.description),
            "the plugin's description must not need escaping in JSON"
        );
        let mut at = MAGIC.len() + 4;
        macro_rules! put {
            ($($text:expr),* $(,)?) => { $( at = copy($text.as_bytes(), out, at, store); )* };
        }
        put!("{\"name\":\"", self.name, "\",\"version\":\"", self.version);
        put!("\",\"description\":\"", self.description);
        put!("\",\"interface\":{\"major\":");
        at = digits(INTERFACE_MAJOR, out, at, store);
        put!(",\"minor\":");
        at = digits(INTERFACE_MINOR, out, at, store);
        put!("},\"target\":\"", env!("CODEQ_TARGET"), "\",\"rustc\":\"", env!("CODEQ_RUSTC"));
        put!("\",\"panic\":\"", self.panic, "\",\"durability\":\"", self.durability.as_str());
        put!("\",\"capabilities\":[");
        let mut next = 0;
        while next < self.capabilities.len() {
            put!(if next == 0 { "\"" } else { ",\"" }, self.capabilities[next].as_str(), "\"");
            next += 1;
        }
        put!("],\"configSchema\":", self.config_schema, "}");
        if store {
            copy(&MAGIC, out, 0, true);
            #[expect(clippy::cast_possible_truncation, reason = "no manifest has 4 GiB")]
            let json = (at - MAGIC.len() - 4) as u32;
            copy(&json.to_le_bytes(), out, MAGIC.len(), true);
        }
        at
    }
}

const fn copy(bytes: &[u8], out: &mut [u8], at: usize, store: bool) -> usize {
    let mut next = 0;
    while store && next < bytes.len() {
        out[at + next] = bytes[next];
        next += 1;
    }
    at + bytes.len()
}

const fn digits(number: u32, out: &mut [u8], at: usize, store: bool) -> usize {
    let at = if number >= 10 { digits(number / 10, out, at, store) } else { at };
    copy(&[b'0' + (number % 10) as u8], out, at, store)
}

const fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut next = 0;
    while next < bytes.len() {
        if bytes[next] < b' ' || bytes[next] == b'"' || bytes[next] == b'\\' {
            return false;
        }
        next += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source = Source {
        name: "memory",
        version: "1.2.3",
        description: "keeps tasks – in memory",
        panic: "unwind",
        durability: Durability::Volatile,
        capabilities: &[Capability::Listing, Capability::Subscriptions],
        config_schema: r#"{"type":"object"}"#,
    };

    #[test]
    fn what_the_macro_writes_the_host_reads() {
        let bytes = SOURCE.bytes::<{ SOURCE.size() }>();
        let manifest = Manifest::parse(&bytes).unwrap();
        assert_eq!(manifest.name, "memory");
        assert_eq!(manifest.description, "keeps tasks – in memory");
        assert_eq!(manifest.interface.major, INTERFACE_MAJOR);
        assert!(manifest.has(Capability::Listing) && !manifest.has(Capability::Shared));
        assert_eq!(manifest.config_schema["type"], "object");
        assert!(manifest.target.contains('-') && !manifest.rustc.is_empty());
    }

    #[test]
    fn a_section_cut_off_anywhere_is_refused_and_bytes_behind_it_are_not_read() {
        let mut bytes = SOURCE.bytes::<{ SOURCE.size() }>().to_vec();
        for len in 0..bytes.len() {
            assert!(Manifest::parse(&bytes[..len]).is_err(), "{len} bytes");
        }
        bytes.extend([0; 16]);
        assert!(Manifest::parse(&bytes).is_ok());
    }

    #[test]
    fn every_durability_is_known_by_its_name() {
        for level in Durability::ALL {
            assert_eq!(Durability::parse(level.as_str()), Some(level));
        }
        assert_eq!(Durability::parse("eternal"), None);
    }

    #[test]
    fn a_capability_of_a_newer_interface_is_no_error() {
        let read: Vec<Capability> = serde_json::from_str(r#"["listing","teleport"]"#).unwrap();
        assert_eq!(read, [Capability::Listing, Capability::Unknown]);
    }
}
