//! What power cuts leave.

use std::{fs, ops::Range, path::Path};

use codeq_test_disk::{Disk, EVERYTHING, NOTHING, Trace};
use tempfile::TempDir;

use crate::child::{Child, all_seen, fresh, wait_for_sync};

const SEEDS: Range<u64> = 0..200;

/// What is in a file after a power cut; nothing if it is not there.
fn left(trace: &Trace, moment: u64, seed: u64, path: &str) -> Option<Vec<u8>> {
    trace.contents(moment, seed).remove(Path::new(path)).flatten()
}

/// What may be in a file after a power cut, by the seeds, as text.
fn all_left(disk: &Disk, moment: u64, path: &str) -> Vec<Option<String>> {
    let trace = disk.trace();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let mut all: Vec<_> = SEEDS.map(|seed| left(&trace, moment, seed, path).map(text)).collect();
    all.sort();
    all.dedup();
    all
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<Option<String>> {
    texts.map(|text| Some(text.to_owned())).into()
}

#[test]
fn what_was_there_before_and_what_was_synced_survives_and_the_rest_may_or_may_not() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a"), "one").unwrap();
    let disk = Disk::under(dir.path());
    let mut child = Child::start(&disk, dir.path());
    let begin = child.done("open a");
    assert_eq!(all_left(&disk, begin, "a"), texts(["one"]));
    let written = child.done("write a 0 two");
    assert_eq!(all_left(&disk, written, "a"), texts(["one", "two"]));
    let synced = child.done("sync a");
    assert_eq!(all_left(&disk, synced, "a"), texts(["two"]));
    let more = child.done("write a 0 six");
    assert_eq!(all_left(&disk, more, "a"), texts(["six", "two"]));
    // Nothing that came later changes what was.
    assert_eq!(all_left(&disk, begin, "a"), texts(["one"]));
    assert_eq!(all_left(&disk, synced, "a"), texts(["two"]));
    let trace = disk.trace();
    assert_eq!(left(&trace, more, NOTHING, "a").unwrap(), b"two");
    assert_eq!(left(&trace, more, EVERYTHING, "a").unwrap(), b"six");
}

#[test]
fn a_sync_counts_from_its_end_and_for_what_came_before_its_beginning() {
    let (dir, disk, mut child) = fresh();
    child.done("replace a one");
    child.done("sync a");
    child.done("sync .");
    child.done("write a 0 two");
    disk.stall_syncs(true);
    child.tell("sync a");
    wait_for_sync(&disk);
    let mut other = Child::start(&disk, dir.path());
    let during = other.done("write a 3 !");
    disk.stall_syncs(false);
    let (after, _) = child.answer().unwrap();
    // The size may be there without the byte.
    assert_eq!(all_left(&disk, during, "a"), texts(["one", "one\0", "two", "two\0", "two!"]));
    assert_eq!(all_left(&disk, after, "a"), texts(["two", "two\0", "two!"]));
}

#[test]
fn writes_are_torn_between_sectors_and_never_within_one() {
    let (_dir, disk, mut child) = fresh();
    child.done("fill a 0 8192 o");
    child.done("sync a");
    child.done("sync .");
    let done = child.done("fill a 100 8000 n");
    let trace = disk.trace();
    let mut torn = 0;
    for seed in SEEDS {
        let content = left(&trace, done, seed, "a").unwrap();
        assert_eq!(content.len(), 8192);
        let mut new = 0;
        for (number, sector) in content.chunks(512).enumerate() {
            let inside =
                &sector[if number == 0 { 100 } else { 0 }..if number == 15 { 420 } else { 512 }];
            assert!(inside.iter().all(|byte| *byte == inside[0]), "sector {number} by seed {seed}");
            new += usize::from(inside[0] == b'n');
        }
        torn += usize::from(new != 0 && new != 16);
    }
    assert!(torn > 50, "{torn}");
}

#[test]
fn later_writes_may_survive_without_earlier_ones_but_not_in_the_same_sector() {
    let (_dir, disk, mut child) = fresh();
    child.done("fill a 0 100000 0");
    child.done("sync a");
    child.done("sync .");
    child.done("write a 0 1");
    child.done("write a 50000 2");
    let done = child.done("write a 1 3");
    let trace = disk.trace();
    let mut seen = Vec::new();
    for seed in SEEDS {
        let content = left(&trace, done, seed, "a").unwrap();
        seen.push([content[0], content[1], content[50_000]]);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [*b"000", *b"002", *b"100", *b"102", *b"130", *b"132"]);
}

#[test]
fn sizes_survive_or_not_like_bytes() {
    let (_dir, disk, mut child) = fresh();
    child.done("replace a 123456");
    child.done("sync a");
    child.done("sync .");
    let shorter = child.done("resize a 3");
    assert_eq!(all_left(&disk, shorter, "a"), texts(["123", "123456"]));
    let longer = child.done("resize a 5");
    assert_eq!(all_left(&disk, longer, "a"), texts(["123", "123\0\0", "123456"]));
    let synced = child.done("sync-data a");
    assert_eq!(all_left(&disk, synced, "a"), texts(["123\0\0"]));
}

#[test]
fn a_name_is_certain_when_its_directory_was_synced() {
    let (_dir, disk, mut child) = fresh();
    child.done("replace a text");
    let synced = child.done("sync a");
    let both = || [vec![None], texts(["text"])].concat();
    assert_eq!(all_left(&disk, synced, "a"), both());
    let certain = child.done("sync .");
    assert_eq!(all_left(&disk, certain, "a"), texts(["text"]));
    let renamed = child.done("rename a b");
    let trace = disk.trace();
    for seed in SEEDS {
        let [old, new] = ["a", "b"].map(|path| left(&trace, renamed, seed, path).is_some());
        assert!(old != new, "it is renamed or not");
    }
    assert_eq!(all_left(&disk, renamed, "b"), both());
    child.done("sync .");
    let removed = child.done("remove b");
    assert_eq!(all_left(&disk, removed, "b"), both());
    let certain = child.done("sync .");
    assert_eq!(all_left(&disk, certain, "b"), [None]);
}

#[test]
fn a_file_that_takes_the_place_of_another_is_that_or_the_other() {
    let (_dir, disk, mut child) = fresh();
    child.done("replace a old");
    child.done("sync a");
    child.done("sync .");
    child.done("replace b new");
    let careless = child.done("rename b a");
    assert!(all_left(&disk, careless, "a").contains(&Some(String::new())), "without its content");
    child.done("replace b NEW");
    child.done("sync b");
    child.done("sync .");
    let careful = child.done("rename b a");
    let all = all_left(&disk, careful, "a");
    assert!(all.contains(&Some("NEW".into())));
    assert!(!all.contains(&None));
}

#[test]
fn what_is_in_a_directory_goes_with_it() {
    let (_dir, disk, mut child) = fresh();
    child.done("make-directory d");
    child.done("replace d/a text");
    child.done("sync d/a");
    let inside = child.done("sync d");
    assert!(all_left(&disk, inside, "d/a").contains(&None));
    let certain = child.done("sync .");
    assert_eq!(all_left(&disk, certain, "d/a"), texts(["text"]));
    let removed = child.done("remove-all d");
    assert_eq!(left(&disk.trace(), removed, NOTHING, "d/a").unwrap(), b"text");
    all_seen(&disk);
}

#[test]
fn what_a_failed_sync_covered_is_not_saved_by_a_later_one_unless_it_is_written_again() {
    let (_dir, disk, mut child) = fresh();
    child.done("fill a 0 8192 0");
    child.done("sync a");
    child.done("sync .");
    child.done("write a 0 lost");
    child.done("write a 5000 lost");
    disk.fail_syncs(true);
    child.ask("sync a").unwrap_err();
    disk.fail_syncs(false);
    // In the page of the first.
    child.done("write a 2000 anew");
    let done = child.done("sync a");
    let trace = disk.trace();
    let mut lost = 0;
    for seed in SEEDS {
        let content = left(&trace, done, seed, "a").unwrap();
        assert_eq!([&content[..4], &content[2000..2004]], [b"lost", b"anew"]);
        lost += usize::from(content[5000] == b'0');
    }
    assert!(lost > 50, "{lost}");
}

#[test]
fn what_is_written_through_is_certain() {
    let (_dir, disk, mut child) = fresh();
    child.done("open a");
    child.done("sync .");
    let done = child.done("write-through a text");
    assert_eq!(all_left(&disk, done, "a"), texts(["text"]));
}

#[test]
fn what_is_mapped_does_not_survive() {
    let (_dir, disk, mut child) = fresh();
    child.done("write a 0 1234");
    child.done("sync a");
    child.done("sync .");
    child.done("map a text");
    let done = child.done("sync a");
    assert_eq!(all_left(&disk, done, "a"), [vec![None], texts(["\0\0\0\0"])].concat());
    all_seen(&disk);
}

#[test]
fn the_moments_of_interest_are_around_the_syncs_and_between() {
    let (_dir, disk, mut child) = fresh();
    child.done("open a");
    for _ in 0..20 {
        child.done("append a text");
        child.done("sync a");
    }
    let trace = disk.trace();
    let last = trace.events().last().unwrap().moment;
    for count in [1, 10, 100] {
        let moments = trace.moments(0, count, 7);
        assert_eq!(moments, trace.moments(0, count, 7));
        assert!(moments.is_sorted() && moments.len() <= count && moments.len() >= count * 3 / 4);
        assert_eq!(*moments.last().unwrap(), last);
    }
    let mut lengths: Vec<usize> = trace
        .moments(0, 100, 7)
        .into_iter()
        .map(|moment| left(&trace, moment, NOTHING, "a").unwrap_or_default().len())
        .collect();
    lengths.dedup();
    assert!(lengths.len() <= 21);
}
