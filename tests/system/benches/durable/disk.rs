//! The disk under the files: where they are written, what a sync costs there, and how large they are.
//!
//! The directory is `CODEQ_BENCH_DIR`, or cargo's for the temporary files of benchmarks. It has to be
//! on a disk: in memory a sync costs nothing, and there is nothing to measure.

use std::{
    env,
    fs::{self, File},
    io::{Seek, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub(crate) struct Disk {
    dir: PathBuf,
    filesystem: String,
}

/// How many small records can be synced in a second, one after another.
#[derive(Clone, Copy)]
pub(crate) struct SyncRate {
    /// Each at the end of a file, which grows.
    pub(crate) appended: f64,
    /// Each over bytes that are there, as in a log that is used again.
    pub(crate) over: f64,
}

/// About as long as a task with its payload.
const RECORD: [u8; 300] = [b'x'; 300];

/// What is written over, again and again.
const SPACE: usize = 1 << 20;

impl Disk {
    pub(crate) fn choose() -> Disk {
        let dir = env::var_os("CODEQ_BENCH_DIR");
        let dir = dir.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
        fs::create_dir_all(&dir).unwrap();
        let dir = dir.canonicalize().unwrap();
        let filesystem = filesystem(&dir).unwrap_or_else(|| "unknown".into());
        if ["tmpfs", "ramfs"].contains(&filesystem.as_str()) {
            println!("WARNING: files are written to {filesystem}, so nothing here is durable;");
            println!("         name a directory on a disk in CODEQ_BENCH_DIR");
        }
        Disk { dir, filesystem }
    }

    /// A directory for one store, which goes away.
    pub(crate) fn fresh(&self) -> TempDir {
        TempDir::with_prefix_in("durable-", &self.dir).unwrap()
    }

    pub(crate) fn describe(&self) -> String {
        let SyncRate { appended, over } = self.sync_rate(Duration::from_secs(1));
        format!(
            "file system {}, fdatasync {:.2} ms after a small append, {:.2} ms after a write in place",
            self.filesystem,
            1e3 / appended,
            1e3 / over
        )
    }

    pub(crate) fn sync_rate(&self, time: Duration) -> SyncRate {
        let dir = self.fresh();
        let mut file = File::create(dir.path().join("appended")).unwrap();
        let appended = rate(time, || {
            file.write_all(&RECORD).unwrap();
            file.sync_data().unwrap();
        });
        let mut file = File::create(dir.path().join("over")).unwrap();
        file.write_all(&[0; SPACE]).unwrap();
        file.sync_all().unwrap();
        let over = rate(time, || {
            if file.stream_position().unwrap() + RECORD.len() as u64 > SPACE as u64 {
                file.rewind().unwrap();
            }
            file.write_all(&RECORD).unwrap();
            file.sync_data().unwrap();
        });
        SyncRate { appended, over }
    }
}

fn rate(time: Duration, mut run: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut times = 0;
    while begin.elapsed() < time {
        run();
        times += 1;
    }
    f64::from(times) / begin.elapsed().as_secs_f64()
}

/// The files of a store, but for the memory that its processes share: that is made anew.
fn files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| !file.to_string_lossy().ends_with("-shm")).collect()
}

/// How many bytes the files of a store have.
pub(crate) fn size(dir: &Path) -> u64 {
    files(dir).iter().map(|file| file.metadata().unwrap().len()).sum()
}

/// Copies the files of a store as they are now, and waits until the copy is on disk, so that no
/// write of it is left to be waited for by whoever opens it.
pub(crate) fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let copy = to.join(file.file_name().unwrap());
        fs::copy(&file, &copy).unwrap();
        File::open(copy).unwrap().sync_all().unwrap();
    }
}

/// The kind of file system that a directory is on, where the system lists them.
fn filesystem(dir: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let around = mounts.filter(|(point, _)| dir.starts_with(point));
    // Of two on the same point, the later one hides the earlier.
    let (_, kind) = around.max_by_key(|(point, _)| point.len())?;
    Some(kind.into())
}
