//! A disk that is full, broken, or slow, and gets well again.

use std::{fs, path::Path, thread, time::Duration};

use codeq_test_disk::{EVERYTHING, What};
use libc::{EIO, ENOSPC};

use crate::child::{Child, all_seen, fresh, is_syncing, wait_for_sync};

#[test]
fn a_full_disk_takes_what_fits_and_then_says_that_it_is_full() {
    let (dir, disk, mut child) = fresh();
    child.done("write a 0 0123456789");
    disk.set_capacity(Some(5));
    // What is there already can be written again.
    child.done("write a 0 9876543210");
    assert_eq!(child.ask("write a 8 abcdefghijkl").unwrap().1, "7", "two more, and five that grow");
    assert_eq!(child.ask("write a 15 m").unwrap_err(), ENOSPC);
    assert_eq!(child.ask("append a m").unwrap_err(), ENOSPC);
    assert_eq!(child.ask("add-parts b m n").unwrap_err(), ENOSPC);
    assert_eq!(child.ask("resize a 16").unwrap_err(), ENOSPC);
    assert_eq!(child.ask("allocate a 16").unwrap_err(), ENOSPC);
    child.done("write a 0 0");
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"08765432abcdefg");
    all_seen(&disk);
    disk.set_capacity(None);
    child.done("write a 15 m");
    child.done("resize a 1000");
}

#[test]
fn a_full_disk_has_room_again_when_something_is_removed() {
    let (_dir, disk, mut child) = fresh();
    child.done("fill a 0 100 x");
    child.done("fill b 0 100 x");
    disk.set_capacity(Some(0));
    assert_eq!(child.ask("write c 0 text").unwrap_err(), ENOSPC);
    child.done("resize a 50");
    assert_eq!(child.ask("fill c 0 100 x").unwrap().1, "50");
    child.done("close b");
    child.done("remove b");
    assert_eq!(child.ask("fill c 50 200 x").unwrap().1, "100");
    // A file that takes the place of another.
    child.done("rename c a");
    child.done("close a");
    child.done("fill d 0 50 x");
    child.done("replace d new");
    assert_eq!(child.ask("fill e 0 100 x").unwrap().1, "47");
    all_seen(&disk);
}

#[test]
fn writes_fail_until_they_do_not() {
    let (_dir, disk, mut child) = fresh();
    child.done("write a 0 text");
    disk.fail_writes(true);
    for order in ["write a 0 more", "add a more", "append a more", "resize a 1", "allocate a 100"] {
        assert_eq!(child.ask(order).unwrap_err(), EIO, "{order}");
    }
    disk.fail_writes(false);
    child.done("write a 0 more");
    all_seen(&disk);
}

#[test]
fn syncs_fail_until_they_do_not() {
    let (_dir, disk, mut child) = fresh();
    child.done("write a 0 text");
    disk.fail_syncs(true);
    for order in ["sync a", "sync-data a", "sync ."] {
        assert_eq!(child.ask(order).unwrap_err(), EIO, "{order}");
    }
    let failed = |what: &What| matches!(what, What::SyncEnd { error: EIO, .. });
    assert_eq!(disk.events().iter().filter(|event| failed(&event.what)).count(), 3);
    disk.fail_syncs(false);
    child.done("sync a");
}

#[test]
fn a_sync_waits_while_the_disk_stalls_and_other_work_goes_on() {
    let (dir, disk, mut child) = fresh();
    child.done("replace a text");
    for fails in [false, true] {
        disk.stall_syncs(true);
        child.tell("sync a");
        wait_for_sync(&disk);
        thread::sleep(Duration::from_millis(50));
        assert!(is_syncing(&disk), "it has not ended");
        let mut other = Child::start(&disk, dir.path());
        other.done("append a more");
        // What is true when it is released counts.
        disk.fail_syncs(fails);
        disk.stall_syncs(false);
        assert_eq!(child.answer().is_err(), fails);
    }
    disk.fail_syncs(false);
    let left = disk.trace().contents(u64::MAX, EVERYTHING);
    assert_eq!(left[Path::new("a")].as_deref(), Some(b"textmoremore".as_slice()));
}
