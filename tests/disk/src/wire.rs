//! What the test and the layer in the process share: a control file, a trace, and a gate.
//!
//! They are files in a directory of the [`Disk`](crate::Disk), which the process is told of in its
//! environment. The control file is a row of [words](Word); whoever holds its lock (`flock`) may look at
//! them, change them, and append to the trace. The gate is a file that is only locked: every sync goes
//! through it, so who holds it holds them up.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirEntryExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

/// The variable with the directory that the layer is under.
pub const DIR_VARIABLE: &str = "CODEQ_DISK_DIR";
/// The variable with the directory of the files below.
pub const STATE_VARIABLE: &str = "CODEQ_DISK_STATE";
/// The control file.
pub const CONTROL: &str = "control";
/// The trace: [events](Event), one after the other.
pub const TRACE: &str = "trace";
/// The gate.
pub const GATE: &str = "gate";

/// A word of the control file, a `u64` each.
#[derive(Clone, Copy)]
pub enum Word {
    /// How long the trace is. What is behind that was not finished.
    Length,
    /// Not 0 while the holder of the lock is at work. A process that was killed at it leaves it so, and
    /// the trace may lack what it did last.
    Busy,
    /// How many bytes the files may still grow; [`UNLIMITED`] if there is no end to them.
    Free,
    /// Not 0 if every sync fails.
    FailSyncs,
    /// Not 0 if every write fails.
    FailWrites,
}

impl Word {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// Where it is in the control file.
    pub fn offset(self) -> u64 {
        self as u64 * 8
    }
}

/// The [`Word::Free`] of a disk that does not fill up.
pub const UNLIMITED: u64 = u64::MAX;

/// Something that happened to a file under the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`. Events are in the order of their moments.
    pub moment: u64,
    /// The number of the file's inode. A file that is created may have that of one that is gone.
    pub inode: u64,
    /// The file, relative to the directory, as it was called then.
    pub path: PathBuf,
    /// What happened.
    pub what: What,
}

/// What happened to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It was made.
    Create {
        /// Whether it is a directory.
        directory: bool,
    },
    /// Bytes were written to it.
    Write {
        /// Where.
        offset: u64,
        /// As many of them as were written.
        bytes: Vec<u8>,
    },
    /// It was made shorter, or longer with zeros.
    Resize {
        /// Its new size.
        size: u64,
    },
    /// A sync of it began: it covers what happened before this.
    SyncBegin {
        /// Tells this sync from others.
        sync: u64,
        /// Whether it is a directory, whose names are synced.
        directory: bool,
    },
    /// A sync of it ended.
    SyncEnd {
        /// Which.
        sync: u64,
        /// The error that it answered; 0 for none.
        error: i32,
    },
    /// Its name was removed.
    Unlink,
    /// It got another name.
    Rename {
        /// The new name, relative to the directory.
        to: PathBuf,
    },
    /// It was mapped into memory to be written there, which the layer does not see.
    Map,
    /// What the directory held, with all that is in it. It is the first event of a trace, and comes
    /// again where a process was killed in the middle of one, so that what it did last is known.
    Found(Vec<Found>),
}

/// A file that was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The file, relative to the directory.
    pub path: PathBuf,
    /// The number of its inode.
    pub inode: u64,
    /// What is in it; nothing for a directory.
    pub content: Option<Vec<u8>>,
}

impl Event {
    /// What a directory holds now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn found(moment: u64, root: &Path) -> io::Result<Event> {
        let mut all = Vec::new();
        find(root, Path::new(""), &mut all)?;
        // Directories come before what is in them.
        all.sort_by(|one, other| one.path.cmp(&other.path));
        let inode = fs::metadata(root)?.ino();
        Ok(Event { moment, inode, path: PathBuf::new(), what: What::Found(all) })
    }

    /// Writes the event as it is in the trace.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = Vec::new();
        let mut numbers = [0; 2];
        let kind = match &self.what {
            What::Create { directory } => {
                numbers[0] = u64::from(*directory);
                1
            }
            What::Write { offset, bytes } => {
                numbers[0] = *offset;
                data.extend_from_slice(bytes);
                2
            }
            What::Resize { size } => {
                numbers[0] = *size;
                3
            }
            What::SyncBegin { sync, directory } => {
                numbers = [*sync, u64::from(*directory)];
                4
            }
            What::SyncEnd { sync, error } => {
                numbers = [*sync, u64::from(error.unsigned_abs())];
                5
            }
            What::Unlink => 6,
            What::Rename { to } => {
                data.extend_from_slice(to.as_os_str().as_bytes());
                7
            }
            What::Map => 8,
            What::Found(all) => {
                for found in all {
                    put(&mut data, &[found.inode, u64::from(found.content.is_none())]);
                    put_bytes(&mut data, found.path.as_os_str().as_bytes());
                    put_bytes(&mut data, found.content.as_deref().unwrap_or_default());
                }
                9
            }
        };
        let mut event = Vec::with_capacity(data.len() + 128);
        put(&mut event, &[kind, self.moment, self.inode]);
        put(&mut event, &numbers);
        put_bytes(&mut event, self.path.as_os_str().as_bytes());
        put_bytes(&mut event, &data);
        event
    }

    /// Reads the next event of a trace, and leaves what comes after it. Nothing if there is none, or
    /// these bytes are no trace.
    pub fn decode(trace: &mut &[u8]) -> Option<Event> {
        let [kind, moment, inode, first, second] = take(trace)?;
        let path = path(take_bytes(trace)?);
        let mut data = take_bytes(trace)?;
        let what = match kind {
            1 => What::Create { directory: first != 0 },
            2 => What::Write { offset: first, bytes: data.to_vec() },
            3 => What::Resize { size: first },
            4 => What::SyncBegin { sync: first, directory: second != 0 },
            5 => What::SyncEnd { sync: first, error: i32::try_from(second).ok()? },
            6 => What::Unlink,
            7 => What::Rename { to: self::path(data) },
            8 => What::Map,
            9 => {
                let mut all = Vec::new();
                while !data.is_empty() {
                    let [inode, directory] = take(&mut data)?;
                    let path = self::path(take_bytes(&mut data)?);
                    let content = take_bytes(&mut data)?;
                    let content = (directory == 0).then(|| content.to_vec());
                    all.push(Found { path, inode, content });
                }
                What::Found(all)
            }
            _ => return None,
        };
        Some(Event { moment, inode, path, what })
    }
}

fn find(root: &Path, at: &Path, all: &mut Vec<Found>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(at))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let path = at.join(entry.file_name());
        if kind.is_dir() {
            all.push(Found { path: path.clone(), inode: entry.ino(), content: None });
            find(root, &path, all)?;
        } else if kind.is_file() {
            let content = Some(fs::read(entry.path())?);
            all.push(Found { path, inode: entry.ino(), content });
        }
    }
    Ok(())
}

fn put(to: &mut Vec<u8>, words: &[u64]) {
    words.iter().for_each(|word| to.extend_from_slice(&word.to_le_bytes()));
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put(to, &[bytes.len() as u64]);
    to.extend_from_slice(bytes);
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u64; N]> {
    let mut words = [0; N];
    for word in &mut words {
        let (bytes, rest) = from.split_first_chunk()?;
        *word = u64::from_le_bytes(*bytes);
        *from = rest;
    }
    Some(words)
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let [length] = take(from)?;
    let (bytes, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(bytes)
}

fn path(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let found = vec![
            Found { path: "a".into(), inode: 1, content: None },
            Found { path: "a/b".into(), inode: 2, content: Some(b"text".to_vec()) },
            Found { path: "c".into(), inode: 3, content: Some(Vec::new()) },
        ];
        let all = [
            What::Create { directory: true },
            What::Create { directory: false },
            What::Write { offset: 7, bytes: b"bytes".to_vec() },
            What::Resize { size: 9 },
            What::SyncBegin { sync: 11, directory: true },
            What::SyncEnd { sync: 11, error: 5 },
            What::Unlink,
            What::Rename { to: "other".into() },
            What::Map,
            What::Found(found),
        ];
        let events = all.map(|what| Event { moment: 1, inode: 2, path: "file".into(), what });
        let trace: Vec<u8> = events.iter().flat_map(Event::encode).collect();
        let mut rest = trace.as_slice();
        for event in &events {
            assert_eq!(Event::decode(&mut rest).as_ref(), Some(event));
        }
        assert_eq!(rest, b"");
    }
}
