//! What is certain about a directory at a moment, and what is on its way.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    path::{Path, PathBuf},
};

use crate::{
    Contents, Event, What,
    fate::{Fate, PAGE, SECTOR},
    trace::EVERYTHING,
    wire::Found,
};

/// The directory, as events make it.
#[derive(Default)]
pub(crate) struct Model<'a> {
    files: Vec<File<'a>>,
    /// The file that an inode is now.
    inodes: HashMap<u64, usize>,
    /// The names that are certain.
    names: BTreeMap<PathBuf, usize>,
    /// What happened to names since, in order.
    renamed: Vec<(u64, Naming)>,
    /// The syncs that began: their orders, and whether they are of directories.
    begun: HashMap<u64, (u64, bool)>,
    any: bool,
}

/// A file, or a directory.
#[derive(Default)]
struct File<'a> {
    directory: bool,
    mapped: bool,
    certain: Vec<u8>,
    changes: Vec<Change<'a>>,
    /// Whether any of the changes is lost.
    losses: bool,
}

/// A change to a file's content that is not certain.
struct Change<'a> {
    order: u64,
    what: Changed<'a>,
    /// A sync of it failed, and no later one will take care of it.
    lost: bool,
}

enum Changed<'a> {
    /// A write within one page.
    Bytes(u64, &'a [u8]),
    Size(u64),
}

/// A change to the names. A file has one name, or none.
enum Naming {
    Made(PathBuf, usize),
    Removed(PathBuf),
    /// It has this name now, and none that it had before.
    Moved(PathBuf, usize),
}

impl<'a> Model<'a> {
    /// Lets an event happen, after all those that have a lower order.
    pub(crate) fn apply(&mut self, event: &'a Event, order: u64) {
        match &event.what {
            What::Found(found) if self.any => self.compare(found, order),
            What::Found(found) => found.iter().for_each(|found| {
                let content = found.content.clone();
                let directory = content.is_none();
                let certain = content.unwrap_or_default();
                let file = self.add(found.inode, File { directory, certain, ..File::default() });
                self.names.insert(found.path.clone(), file);
            }),
            What::Create { directory } => {
                let file = self.add(event.inode, File { directory: *directory, ..File::default() });
                self.renamed.push((order, Naming::Made(event.path.clone(), file)));
            }
            What::Write { offset, bytes } => self.file(event).write(order, *offset, bytes),
            What::Resize { size } => self.file(event).resize(order, *size),
            What::Map => self.file(event).mapped = true,
            What::SyncBegin { sync, directory } => {
                self.begun.insert(*sync, (order, *directory));
            }
            What::SyncEnd { sync, error } => {
                let begun = self.begun.remove(sync);
                let (begun, directory) = begun.expect("a sync begins before it ends");
                match (directory, error) {
                    (true, 0) => self.settle_names(&event.path, begun),
                    (true, _) => {}
                    (false, 0) => self.file(event).settle(begun),
                    (false, _) => self.file(event).lose(begun),
                }
            }
            What::Unlink => {
                self.renamed.push((order, Naming::Removed(event.path.clone())));
            }
            What::Rename { to } => {
                let file = self.inodes[&event.inode];
                let moved = Naming::Moved(to.clone(), file);
                self.renamed.push((order, moved));
            }
        }
        self.any = true;
    }

    /// The orders of all changes that are not certain.
    pub(crate) fn orders(&self) -> Vec<u64> {
        let changes = self.files.iter().flat_map(|file| &file.changes);
        let orders: BTreeSet<u64> = changes
            .map(|change| change.order)
            .chain(self.renamed.iter().map(|(order, _)| *order))
            .collect();
        orders.into_iter().collect()
    }

    /// What is left if the power is cut now.
    pub(crate) fn left(&self, fate: &Fate) -> Contents {
        let names = self.names(|order| fate.of_name(order));
        let mut left = Contents::new();
        for (path, file) in &names {
            // Directories come before what is in them.
            let inside = path.parent().is_none_or(|parent| {
                parent == Path::new("") || left.get(parent).is_some_and(Option::is_none)
            });
            let File { directory, mapped, .. } = self.files[*file];
            if inside && (!mapped || fate.of_mapped(*file)) {
                let content = (!directory).then(|| self.content(*file, fate));
                left.insert(path.clone(), content);
            }
        }
        left
    }

    /// Whether what is in a file now is known to nobody.
    pub(crate) fn is_mapped(&self, path: &Path) -> bool {
        self.names(|_| true).get(path).is_some_and(|file| self.files[*file].mapped)
    }

    fn add(&mut self, inode: u64, file: File<'a>) -> usize {
        self.files.push(file);
        self.inodes.insert(inode, self.files.len() - 1);
        self.files.len() - 1
    }

    fn file(&mut self, event: &Event) -> &mut File<'a> {
        let file = self.inodes.get(&event.inode);
        let file = file.unwrap_or_else(|| {
            panic!("{} was made in a way that the layer does not see", event.path.display())
        });
        &mut self.files[*file]
    }

    /// The names, with those changes that are chosen.
    fn names(&self, mut survives: impl FnMut(u64) -> bool) -> BTreeMap<PathBuf, usize> {
        let mut names = self.names.clone();
        for (order, naming) in &self.renamed {
            if survives(*order) {
                naming.apply(&mut names);
            }
        }
        names
    }

    /// Makes the names in a directory certain as far as a sync that began then covers them.
    fn settle_names(&mut self, directory: &Path, begun: u64) {
        let (covered, mut rest): (Vec<_>, Vec<_>) =
            mem::take(&mut self.renamed).into_iter().partition(|(order, naming)| {
                *order < begun && naming.path().parent() == Some(directory)
            });
        for (order, naming) in covered {
            naming.apply(&mut self.names);
            if let Naming::Moved(_, file) = naming {
                // It comes from another directory, in which it does not appear again.
                for (_, naming) in rest.iter_mut().filter(|(earlier, _)| *earlier < order) {
                    if naming.file() == Some(file) {
                        *naming = Naming::Removed(naming.path().to_path_buf());
                    }
                }
            }
        }
        self.renamed = rest;
    }

    /// What is in a file, with those changes that survive.
    fn content(&self, number: usize, fate: &Fate) -> Vec<u8> {
        let file = &self.files[number];
        let mut content = file.certain.clone();
        let mut size = length(&content);
        for change in &file.changes {
            let sized = fate.of_size(number, change.order);
            match change.what {
                Changed::Bytes(offset, bytes) => {
                    for (at, sector) in pieces(offset, bytes, SECTOR) {
                        if fate.of_sector(number, at, change.order) {
                            write(&mut content, at, sector);
                        }
                    }
                    if sized {
                        size = size.max(offset + length(bytes));
                    }
                }
                Changed::Size(to) => {
                    if sized {
                        resize(&mut content, to);
                        size = to;
                    }
                }
            }
        }
        if file.mapped {
            content.clear();
        }
        resize(&mut content, size);
        content
    }

    /// Takes what was found for what happened, where that is not known.
    fn compare(&mut self, found: &'a [Found], order: u64) {
        let everything = Fate::new(EVERYTHING, Vec::new());
        let mut names = self.names(|_| true);
        for now in found {
            let before = names.remove(&now.path);
            let known = self.inodes.get(&now.inode).copied();
            let file = match before {
                Some(file) if known == Some(file) => file,
                _ => {
                    // It was made, or renamed from something that is not there any more.
                    let old = names.iter().find(|(path, file)| {
                        known == Some(**file) && found.iter().all(|found| found.path != **path)
                    });
                    let old = old.map(|(path, file)| (path.clone(), *file));
                    let naming = if let Some((path, file)) = &old {
                        names.remove(path);
                        Naming::Moved(now.path.clone(), *file)
                    } else {
                        let directory = now.content.is_none();
                        let file = self.add(now.inode, File { directory, ..File::default() });
                        Naming::Made(now.path.clone(), file)
                    };
                    self.renamed.push((order, naming));
                    self.inodes[&now.inode]
                }
            };
            let Some(content) = &now.content else { continue };
            let before = self.content(file, &everything);
            let file = &mut self.files[file];
            if before.len() > content.len() {
                file.resize(order, length(content));
            }
            for (at, sector) in pieces(0, content, SECTOR) {
                let begin = usize::try_from(at).expect("a place in memory");
                if before.get(begin..begin + sector.len()) != Some(sector) {
                    file.write(order, at, sector);
                }
            }
        }
        for path in names.into_keys() {
            self.renamed.push((order, Naming::Removed(path)));
        }
    }
}

impl<'a> File<'a> {
    fn write(&mut self, order: u64, offset: u64, bytes: &'a [u8]) {
        for (at, piece) in pieces(offset, bytes, PAGE) {
            if self.losses {
                // The page is written out again, with all that is in it.
                let page = Some(at / PAGE);
                let again = self.changes.iter_mut().filter(|change| change.page() == page);
                again.for_each(|change| change.lost = false);
            }
            self.changes.push(Change { order, what: Changed::Bytes(at, piece), lost: false });
        }
    }

    fn resize(&mut self, order: u64, size: u64) {
        self.changes.push(Change { order, what: Changed::Size(size), lost: false });
    }

    /// Makes certain what a sync that began then covers.
    fn settle(&mut self, begun: u64) {
        let certain = &mut self.certain;
        let mut cuts = Vec::new();
        self.changes.retain(|change| {
            let covered = change.order < begun && !change.lost;
            match (covered, &change.what) {
                (true, Changed::Bytes(offset, bytes)) => write(certain, *offset, bytes),
                (true, Changed::Size(to)) => {
                    resize(certain, *to);
                    cuts.push((change.order, *to));
                }
                (false, _) => {}
            }
            !covered
        });
        // What was cut off after it was lost does not come back.
        for (order, size) in cuts {
            for change in self.changes.iter_mut().filter(|change| change.order < order) {
                if let Changed::Bytes(offset, bytes) = &mut change.what {
                    let left = usize::try_from(size.saturating_sub(*offset)).unwrap_or(usize::MAX);
                    *bytes = &bytes[..left.min(bytes.len())];
                }
            }
        }
        self.changes.retain(|change| !matches!(change.what, Changed::Bytes(_, [])));
        self.losses &= !self.changes.is_empty();
    }

    /// Takes what a sync that began then should have covered for written, as the system does.
    fn lose(&mut self, begun: u64) {
        for change in &mut self.changes {
            change.lost |= change.order < begun && change.page().is_some();
            self.losses |= change.lost;
        }
    }
}

impl Change<'_> {
    fn page(&self) -> Option<u64> {
        match self.what {
            Changed::Bytes(offset, _) => Some(offset / PAGE),
            Changed::Size(_) => None,
        }
    }
}

impl Naming {
    /// The name that it is about.
    fn path(&self) -> &Path {
        match self {
            Naming::Made(path, _) | Naming::Removed(path) | Naming::Moved(path, _) => path,
        }
    }

    /// The file that it gives a name.
    fn file(&self) -> Option<usize> {
        match self {
            Naming::Made(_, file) | Naming::Moved(_, file) => Some(*file),
            Naming::Removed(_) => None,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Naming::Made(path, file) => {
                names.insert(path.clone(), *file);
            }
            Naming::Removed(path) => {
                names.remove(path);
            }
            Naming::Moved(to, file) => {
                names.retain(|_, other| other != file);
                names.insert(to.clone(), *file);
            }
        }
    }
}

/// Bytes at an offset, cut where units of a size begin.
fn pieces(mut offset: u64, mut bytes: &[u8], unit: u64) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        let room = usize::try_from(unit - offset % unit).expect("a size in memory");
        let (piece, rest) = bytes.split_at(room.min(bytes.len()));
        let at = offset;
        offset += length(piece);
        bytes = rest;
        (!piece.is_empty()).then_some((at, piece))
    })
}

fn write(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let begin = usize::try_from(offset).expect("a place in memory");
    let end = begin + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[begin..end].copy_from_slice(bytes);
}

fn resize(content: &mut Vec<u8>, size: u64) {
    content.resize(usize::try_from(size).expect("a size in memory"), 0);
}

fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}
