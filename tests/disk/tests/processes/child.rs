//! A process on the disk that does what it is told. It is this program itself, told in its environment to
//! run nothing but [`program`].

use std::{
    collections::HashMap,
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader, IoSlice, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
    process::{self, ChildStdin, ChildStdout, Command, Stdio},
    ptr, thread,
    time::Duration,
};

use codeq_test_disk::{Disk, What, moment};
use tempfile::TempDir;

use crate::{sqlite, storm};

const VARIABLE: &str = "CODEQ_DISK_TEST";
/// Answers begin like this, wherever in a line that is: the harness writes there, too.
const ANSWER: &str = "<answer> ";

/// What the process answered: the moment and a text, or the number of an error.
pub(crate) type Answer = Result<(u64, String), i32>;

/// A process in the directory of a disk, killed at its end.
pub(crate) struct Child {
    process: process::Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Child {
    /// Starts a process on a disk.
    pub(crate) fn start(disk: &Disk, dir: &Path) -> Child {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["child::program", "--exact", "--nocapture"])
            .env(VARIABLE, "")
            .envs(disk.env())
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Child { process, orders, answers }
    }

    /// Tells the process to do something, without waiting for it.
    pub(crate) fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// Waits for the process's next answer.
    pub(crate) fn answer(&mut self) -> Answer {
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the process ended");
            let Some((_, answer)) = line.trim_end_matches('\n').split_once(ANSWER) else {
                continue;
            };
            let mut words = answer.splitn(3, ' ');
            let [moment, what, text] = [(); 3].map(|()| words.next().unwrap());
            return match what {
                "ok" => Ok((moment.parse().unwrap(), text.to_owned())),
                _ => Err(text.parse().unwrap()),
            };
        }
    }

    /// Tells the process to do something, and waits until it is done or failed.
    pub(crate) fn ask(&mut self, order: &str) -> Answer {
        self.tell(order);
        self.answer()
    }

    /// Has the process do something that must not fail. Answers the moment when it was done.
    #[track_caller]
    pub(crate) fn done(&mut self, order: &str) -> u64 {
        match self.ask(order) {
            Ok((moment, _)) => moment,
            Err(error) => panic!("{order}: {}", io::Error::from_raw_os_error(error)),
        }
    }

    /// Kills the process.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An empty directory with a disk under it, and a process on that.
pub(crate) fn fresh() -> (TempDir, Disk, Child) {
    let dir = TempDir::new().unwrap();
    let disk = Disk::under(dir.path());
    let child = Child::start(&disk, dir.path());
    (dir, disk, child)
}

/// Whether the layer saw all that was done to the files.
#[track_caller]
pub(crate) fn all_seen(disk: &Disk) {
    let unseen = disk.unseen();
    assert!(unseen.is_empty(), "{unseen:?}");
}

/// Whether the last that happened is that a sync began.
pub(crate) fn is_syncing(disk: &Disk) -> bool {
    matches!(disk.events().pop().unwrap().what, What::SyncBegin { .. })
}

/// Waits until a sync has begun that the disk holds up.
pub(crate) fn wait_for_sync(disk: &Disk) {
    while !is_syncing(disk) {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Not a test: the process, when this program is that.
#[test]
fn program() {
    if env::var_os(VARIABLE).is_none() {
        return;
    }
    let mut files = HashMap::new();
    let mut database = None;
    for order in io::stdin().lines() {
        let order = order.unwrap();
        let words: Vec<&str> = order.split(' ').collect();
        match words[..] {
            ["storm", seed] => storm::rage(seed.parse().unwrap(), || say(Ok(String::new()))),
            ["database", ..] | ["commit", _] => say(sqlite::obey(&mut database, &words)),
            _ => say(obey(&mut files, &words)),
        }
    }
}

fn say(result: io::Result<String>) {
    let moment = moment();
    // At once: a line that is written in parts may be seen in parts.
    let line = match result {
        Ok(text) => format!("{ANSWER}{moment} ok {text}\n"),
        Err(error) => format!("{ANSWER}{moment} failed {}\n", error.raw_os_error().unwrap_or(-1)),
    };
    io::stdout().write_all(line.as_bytes()).unwrap();
    io::stdout().flush().unwrap();
}

fn obey(files: &mut HashMap<String, File>, words: &[&str]) -> io::Result<String> {
    let open = |files: &mut HashMap<String, File>, name: &str| {
        if !files.contains_key(name) {
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(false).open(name)?;
            files.insert(name.to_owned(), file);
        }
        files[name].try_clone()
    };
    let number = |text: &str| text.parse::<u64>().unwrap();
    match *words {
        ["open", name] => open(files, name).map(drop)?,
        ["close", name] => drop(files.remove(name)),
        ["write", name, offset, text] => {
            let written = open(files, name)?.write_at(text.as_bytes(), number(offset))?;
            return Ok(written.to_string());
        }
        // Many bytes, all the same.
        ["fill", name, offset, count, byte] => {
            let bytes = vec![byte.as_bytes()[0]; usize::try_from(number(count)).unwrap()];
            return Ok(open(files, name)?.write_at(&bytes, number(offset))?.to_string());
        }
        ["add", name, text] => open(files, name)?.write_all(text.as_bytes())?,
        ["add-parts", name, one, other] => {
            let parts = [one, other].map(|part| IoSlice::new(part.as_bytes()));
            return Ok(open(files, name)?.write_vectored(&parts)?.to_string());
        }
        ["append", name, text] => {
            File::options().append(true).open(name)?.write_all(text.as_bytes())?;
        }
        ["replace", name, text] => fs::write(name, text)?,
        ["write-through", name, text] => {
            let mut options = File::options();
            let flags = libc::O_DSYNC;
            options.write(true).custom_flags(flags).open(name)?.write_all(text.as_bytes())?;
        }
        ["sync", name] => File::open(name)?.sync_all()?,
        ["sync-data", name] => File::open(name)?.sync_data()?,
        ["resize", name, size] => open(files, name)?.set_len(number(size))?,
        ["allocate", name, size] => {
            let fd = open(files, name)?;
            let size = i64::try_from(number(size)).unwrap();
            #[allow(unsafe_code, reason = "there is no other way")]
            // SAFETY: it touches no memory of ours.
            let error = unsafe { libc::posix_fallocate(fd.as_raw_fd(), 0, size) };
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
        }
        ["map", name, text] => {
            let fd = open(files, name)?;
            let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            #[allow(unsafe_code, reason = "there is no other way")]
            // SAFETY: the file is longer than the text, and nobody else uses the memory.
            unsafe {
                let at = libc::mmap(ptr::null_mut(), text.len(), access, flags, fd.as_raw_fd(), 0);
                assert_ne!(at, libc::MAP_FAILED);
                ptr::copy_nonoverlapping(text.as_ptr(), at.cast(), text.len());
                libc::msync(at, text.len(), libc::MS_SYNC);
            }
        }
        ["remove", name] => fs::remove_file(name)?,
        ["remove-directory", name] => fs::remove_dir(name)?,
        ["remove-all", name] => fs::remove_dir_all(name)?,
        ["rename", from, to] => fs::rename(from, to)?,
        ["make-directory", name] => fs::create_dir(name)?,
        ["copy", from, to] => return Ok(fs::copy(from, to)?.to_string()),
        ["link", from, to] => fs::hard_link(from, to)?,
        ["run", program] => return Ok(Command::new(program).status()?.to_string()),
        _ => panic!("{words:?}"),
    }
    Ok(String::new())
}
