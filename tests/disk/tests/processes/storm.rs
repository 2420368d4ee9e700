//! A process that does anything to its files, with many threads, until it is killed.

use std::{
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    thread,
    time::Duration,
};

use codeq_test_disk::{EVERYTHING, What};
use tempfile::TempDir;

use crate::child::{Child, all_seen, fresh};

const THREADS: u64 = 4;

/// Says that it is in full swing, and goes on until the process is killed.
pub(crate) fn rage(seed: u64, say: impl Fn() + Sync) {
    let say = &say;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed * THREADS + thread);
                for turn in 0.. {
                    if turn == 100 && thread == 0 {
                        say();
                    }
                    // Names are fought for, so much of it fails.
                    let _ = anything(&mut rng);
                }
            });
        }
    });
}

fn anything(rng: &mut fastrand::Rng) -> io::Result<()> {
    let directory = format!("d{}", rng.u8(0..2));
    let name = |rng: &mut fastrand::Rng| match rng.u8(0..3) {
        0 => format!("{directory}/f{}", rng.u8(0..3)),
        _ => format!("f{}", rng.u8(0..4)),
    };
    let file = name(rng);
    let mut bytes = vec![0; rng.usize(0..6000)];
    rng.fill(&mut bytes);
    let offset = rng.u64(0..20_000);
    match rng.u8(0..20) {
        0 => fs::remove_file(file),
        1 => fs::rename(file, name(rng)),
        2 => fs::create_dir(directory),
        3 => fs::remove_dir(directory),
        4 => fs::write(file, bytes),
        5 => fs::copy(file, name(rng)).map(drop),
        6 => File::options().append(true).open(file)?.write_all(&bytes),
        7 => File::create_new(file)?.write_all(&bytes),
        8 => File::options().write(true).open(file)?.set_len(offset),
        9 => File::open(file)?.sync_data(),
        10 => File::open(".")?.sync_all(),
        11 => {
            // Where the file stands.
            let mut file = File::options().write(true).open(file)?;
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(&bytes)
        }
        _ => File::options().write(true).open(file)?.write_all_at(&bytes, offset),
    }
}

#[test]
fn everything_that_many_threads_do_is_seen_in_order_even_if_they_are_killed_in_the_middle_of_it() {
    let (dir, disk, mut child) = fresh();
    for round in 0..25 {
        child.done(&format!("storm {round}"));
        thread::sleep(Duration::from_micros(round * 300));
        child.kill();
        if round % 2 == 0 {
            // Else it is the next process that finds out.
            all_seen(&disk);
        }
        child = Child::start(&disk, dir.path());
    }
    child.done("replace last text");
    all_seen(&disk);
    let events = disk.events();
    assert!(events.is_sorted_by_key(|event| event.moment));
    assert!(events.len() > 1000, "{}", events.len());
    let found = events.iter().filter(|event| matches!(event.what, What::Found(_)));
    assert!(found.count() > 1, "no process was killed in the middle");
    let left = TempDir::new().unwrap();
    disk.power_cut(u64::MAX, EVERYTHING, left.path());
    assert_eq!(fs::read(left.path().join("last")).unwrap(), b"text");
}

#[test]
fn every_state_of_a_storm_can_be_built() {
    let (_dir, disk, mut child) = fresh();
    child.done("storm 99");
    child.kill();
    let trace = disk.trace();
    for cut in trace.moments(0, 30, 3) {
        for seed in 0..8 {
            let contents = trace.contents(cut, seed);
            assert_eq!(contents, trace.contents(cut, seed), "chosen by the seed");
            trace.power_cut(cut, seed, TempDir::new().unwrap().path());
        }
    }
}
