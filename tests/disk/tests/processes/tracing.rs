//! What the layer sees, and what it leaves alone.

use std::{fs, path::Path};

use codeq_test_disk::{Disk, Event, What, moment};
use tempfile::TempDir;

use crate::child::{Child, all_seen, fresh};

/// What happened after the beginning, with the names.
fn events(disk: &Disk) -> Vec<(String, What)> {
    let events = disk.events().into_iter().skip(1);
    events.map(|Event { path, what, .. }| (path.display().to_string(), what)).collect()
}

fn write(offset: u64, text: &str) -> What {
    What::Write { offset, bytes: text.into() }
}

#[test]
fn writes_are_seen_with_their_places_and_bytes() {
    let (_dir, disk, mut child) = fresh();
    child.done("write a 100 positioned");
    child.done("add a first");
    child.done("add a second");
    child.done("add-parts a third fourth");
    child.done("append a last");
    child.done("resize a 7");
    child.done("allocate a 5000");
    child.done("allocate a 5");
    child.done("replace a new");
    let expected = [
        What::Create { directory: false },
        write(100, "positioned"),
        write(0, "first"),
        write(5, "second"),
        write(11, "thirdfourth"),
        write(110, "last"),
        What::Resize { size: 7 },
        What::Resize { size: 5000 },
        What::Resize { size: 0 },
        write(0, "new"),
    ];
    assert_eq!(events(&disk), expected.map(|what| ("a".to_owned(), what)));
    all_seen(&disk);
}

#[test]
fn names_are_seen() {
    let (_dir, disk, mut child) = fresh();
    child.done("make-directory d");
    child.done("open d/a");
    child.done("open d/a");
    child.done("rename d/a b");
    child.done("remove b");
    child.done("remove-directory d");
    let events = events(&disk);
    let expected = [
        ("d", What::Create { directory: true }),
        ("d/a", What::Create { directory: false }),
        ("d/a", What::Rename { to: "b".into() }),
        ("b", What::Unlink),
        ("d", What::Unlink),
    ];
    assert_eq!(events, expected.map(|(path, what)| (path.to_owned(), what)));
    all_seen(&disk);
}

#[test]
fn syncs_are_seen_from_their_beginning_to_their_end_by_the_clock_of_all_processes() {
    let (_dir, disk, mut child) = fresh();
    child.done("open a");
    for (order, path, directory) in
        [("sync a", "a", false), ("sync-data a", "a", false), ("sync .", "", true)]
    {
        let before = moment();
        let done = child.done(order);
        assert!(done <= moment());
        let events = disk.events();
        let [begin, end] = &events[events.len() - 2..] else { panic!("{events:#?}") };
        let What::SyncBegin { sync, directory: is_directory } = begin.what else {
            panic!("{begin:?}")
        };
        assert_eq!(is_directory, directory);
        assert_eq!(end.what, What::SyncEnd { sync, error: 0 });
        assert_eq!([begin, end].map(|event| event.path.as_path()), [Path::new(path); 2]);
        assert!(before <= begin.moment && begin.moment <= end.moment && end.moment <= done);
    }
}

#[test]
fn other_files_are_left_alone() {
    let (dir, disk, mut child) = fresh();
    let other = TempDir::new().unwrap();
    // One that is called almost the same.
    let beside = format!("{}x", dir.path().display());
    fs::create_dir(&beside).unwrap();
    disk.fail_writes(true);
    disk.fail_syncs(true);
    for directory in [other.path().to_str().unwrap(), &beside] {
        child.done(&format!("write {directory}/a 0 text"));
        child.done(&format!("append {directory}/a more"));
        child.done(&format!("sync {directory}/a"));
        child.done(&format!("link {directory}/a {directory}/b"));
        child.done(&format!("remove {directory}/a"));
    }
    fs::remove_dir_all(beside).unwrap();
    assert_eq!(events(&disk), []);
}

#[test]
fn a_file_is_seen_however_it_is_called() {
    let (dir, disk, mut child) = fresh();
    let other = TempDir::new().unwrap();
    let link = other.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    child.done("make-directory d");
    child.done(&format!("write {}/a 0 1", link.display()));
    child.done("write d/../b 0 2");
    child.done(&format!("write {}/c 0 3", dir.path().display()));
    child.done(&format!("rename {}/c d/c", link.display()));
    child.done("append d/c 4");
    let events = events(&disk);
    let written = events.iter().filter(|(_, what)| matches!(what, What::Write { .. }));
    let written: Vec<&str> = written.map(|(path, _)| path.as_str()).collect();
    assert_eq!(written, ["a", "b", "c", "d/c"]);
    all_seen(&disk);
}

#[test]
fn what_cannot_be_seen_is_refused_and_done_in_another_way_if_there_is_one() {
    let (dir, disk, mut child) = fresh();
    let other = TempDir::new().unwrap();
    child.done("fill a 0 100000 x");
    assert_eq!(child.ask("copy a b").unwrap().1, "100000");
    assert_eq!(child.ask("link a c").unwrap_err(), libc::EPERM);
    child.done("make-directory d");
    assert_eq!(child.ask("rename d e").unwrap_err(), libc::EXDEV);
    fs::write(other.path().join("a"), "text").unwrap();
    let outside = other.path().join("a").display().to_string();
    for order in [format!("rename a {outside}"), format!("rename {outside} a")] {
        assert_eq!(child.ask(&order).unwrap_err(), libc::EXDEV);
    }
    assert_eq!(fs::read(dir.path().join("b")).unwrap(), [b'x'; 100_000]);
    all_seen(&disk);
}

#[test]
fn what_is_changed_by_somebody_else_is_noticed() {
    let (dir, disk, mut child) = fresh();
    child.done("replace a text");
    child.done("replace b text");
    child.done("replace c text");
    all_seen(&disk);
    fs::write(dir.path().join("a"), "test").unwrap();
    fs::write(dir.path().join("d"), "text").unwrap();
    fs::remove_file(dir.path().join("c")).unwrap();
    assert_eq!(disk.unseen(), ["a", "d", "c"].map(Path::new));
}

#[test]
fn several_processes_may_be_on_a_disk_and_start_others() {
    let (dir, disk, mut child) = fresh();
    let mut other = Child::start(&disk, dir.path());
    child.done("open a");
    for _ in 0..10 {
        child.done("append a 1");
        other.done("append a 2");
        assert!(child.ask("run true").unwrap().1.contains('0'));
    }
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"12".repeat(10));
    all_seen(&disk);
}
