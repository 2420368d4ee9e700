//! The file: whose it is, what is wrong with it, what it shows, and how large it gets.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod support;

use std::fs;

use codeq_plugin::{AsyncPersistence, AsyncTaskStorage, ErrorKind, ListTasks, Task};
use codeq_sqlite::Config;
use support::{Place, claim, clean, complete, enqueue, fill, get, open, stats, task};

#[tokio::test]
async fn what_is_in_the_file_is_there_when_it_is_opened_again() {
    let place = Place::new();
    let store = place.open().await;
    let rich = Task {
        payload: "{\"ünï\": \"\u{0}😀\"}".into(),
        webhook: "https://example.org/hook".into(),
        trace_parent: "00-1-2-01".into(),
        trace_state: "a=b".into(),
        priority: 7,
        max_attempts: 3,
        ..task("rich")
    };
    let kept = enqueue(&store, rich).await.unwrap().task;
    store.close().await.unwrap();
    let store = place.open().await;
    assert_eq!(get(&store, "rich").await.unwrap(), kept);
    assert_eq!(stats(&store).await.ready, 1);
}

#[tokio::test]
async fn a_second_host_is_refused_with_the_name_of_the_first_and_has_the_file_once_that_is_gone() {
    let place = Place::new();
    let first = place.open().await;
    let refusal = place.refusal().await;
    assert_eq!(refusal.kind(), ErrorKind::Unavailable);
    let holder = format!("is in use by process {}", std::process::id());
    assert!(refusal.to_string().contains(&holder), "{refusal}");
    // One that may wait takes over when the first one ends.
    let patient = Config { open_timeout_ms: 20_000, ..place.config() };
    let (second, closed) = tokio::join!(open(patient), first.close());
    closed.unwrap();
    enqueue(&second.unwrap(), task("a")).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_refused_and_left_as_it_is() {
    let place = Place::new();
    fs::write(place.file(), "a letter to a friend, long enough to be no empty file".repeat(99))
        .unwrap();
    let letter = fs::read(place.file()).unwrap();
    let refusal = place.refusal().await;
    assert_eq!(refusal.kind(), ErrorKind::Corrupt);
    assert!(refusal.to_string().contains("is not an SQLite database"), "{refusal}");
    assert_eq!(fs::read(place.file()).unwrap(), letter);

    let place = Place::new();
    place.shell("CREATE TABLE bookmarks (url TEXT); INSERT INTO bookmarks VALUES ('x')");
    let bookmarks = fs::read(place.file()).unwrap();
    let refusal = place.refusal().await;
    assert_eq!(refusal.kind(), ErrorKind::InvalidConfig);
    assert!(refusal.to_string().contains("of another program"), "{refusal}");
    assert_eq!(fs::read(place.file()).unwrap(), bookmarks);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused() {
    let place = Place::new();
    place.open().await.close().await.unwrap();
    place.shell("PRAGMA user_version = 99");
    let refusal = place.refusal().await;
    assert_eq!(refusal.kind(), ErrorKind::InvalidConfig);
    let said = refusal.to_string();
    assert!(said.contains("newer version of this plugin (layout 99"), "{said}");
}

#[tokio::test]
async fn an_empty_file_is_a_new_one() {
    let place = Place::new();
    fs::write(place.file(), "").unwrap();
    let store = place.open().await;
    enqueue(&store, task("a")).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_an_error_that_says_so() {
    // Nobody can make a file here, whoever runs the test.
    let config = Config { path: "/proc/codeq.db".into(), ..Config::default() };
    let refusal = open(config).await.err().expect("a refusal");
    let said = refusal.to_string();
    assert!(said.contains("/proc/codeq.db-host") && said.contains("write permission"), "{said}");
}

#[tokio::test]
async fn a_damaged_page_is_an_error_and_the_rest_still_answers() {
    let place = Place::new();
    let store = place.open().await;
    // Long ones, so that each has pages of its own.
    for id in ["a", "b"] {
        let payload = format!("\"{}\"", id.repeat(20_000)).as_str().into();
        enqueue(&store, Task { payload, ..task(id) }).await.unwrap();
    }
    store.close().await.unwrap();
    let mut bytes = fs::read(place.file()).unwrap();
    // A page in the middle of the long text says that the next one is where there is none.
    let is_inside = |page: &&mut [u8]| page[4..].iter().all(|byte| *byte == b'a');
    bytes.chunks_mut(4096).find(is_inside).unwrap()[..4].fill(0xee);
    fs::write(place.file(), bytes).unwrap();

    let store = place.open().await;
    let error = get(&store, "a").await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("restore a backup"), "{error}");
    assert!(get(&store, "b").await.is_ok());
    enqueue(&store, task("c")).await.unwrap();
    assert!(get(&store, "c").await.is_ok());
    // The damaged one was the first of the queue; it is set aside.
    assert_eq!(claim(&store, 3).await, ["b", "c"]);
    let aside = place.shell("SELECT count(*) FROM codeq_tasks WHERE place = 'unreadable'");
    assert_eq!(aside, "1");
}

#[tokio::test]
async fn a_page_of_a_list_is_full_although_some_of_its_tasks_cannot_be_read() {
    let place = Place::new();
    let store = place.open().await;
    for id in ["a", "b", "c", "d", "e"] {
        enqueue(&store, task(id)).await.unwrap();
    }
    place.shell(
        "UPDATE bodies SET payload = CAST(x'ff' AS TEXT) WHERE seq IN \
         (SELECT seq FROM tasks WHERE id IN ('a', 'c'))",
    );
    let mut found = Vec::new();
    let mut cursor = codeq_plugin::Text::new();
    loop {
        let page = store.list(ListTasks { limit: 2, cursor, ..ListTasks::default() });
        let page = page.await.unwrap();
        found.push(page.tasks.iter().map(|placed| placed.task.id.to_string()).collect::<Vec<_>>());
        cursor = page.cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(found, [vec!["b", "d"], vec!["e"]]);
}

#[tokio::test]
async fn a_shell_in_a_transaction_makes_writes_fail_in_time_and_reads_go_on() {
    let place = Place::new();
    let config = Config { operation_timeout_ms: 400, ..place.config() };
    let store = open(config).await.unwrap();
    enqueue(&store, task("a")).await.unwrap();
    let other = rusqlite::Connection::open(place.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = enqueue(&store, task("b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("another program has locked"), "{error}");
    assert!(get(&store, "a").await.is_ok());
    assert!(store.health().await.is_err());
    other.execute_batch("ROLLBACK").unwrap();
    enqueue(&store, task("b")).await.unwrap();
    store.health().await.unwrap();
    assert_eq!(claim(&store, 9).await, ["a", "b"]);
}

#[tokio::test]
async fn a_file_that_was_removed_while_it_is_open_is_noticed() {
    let place = Place::new();
    let store = place.open().await;
    enqueue(&store, task("a")).await.unwrap();
    get(&store, "a").await.unwrap();
    store.health().await.unwrap();
    fs::rename(place.file(), place.path().join("elsewhere")).unwrap();
    let error = store.health().await.unwrap_err();
    assert!(error.to_string().contains("cannot be found any more"), "{error}");
    fs::rename(place.path().join("elsewhere"), place.file()).unwrap();
    store.health().await.unwrap();
}

#[tokio::test]
async fn what_an_operator_changes_by_hand_is_noticed() {
    let place = Place::new();
    let store = place.open().await;
    for id in ["a", "b", "c"] {
        enqueue(&store, task(id)).await.unwrap();
    }
    place.shell("DELETE FROM tasks WHERE id = 'a'");
    assert_eq!(claim(&store, 9).await, ["b", "c"]);
    let counts = stats(&store).await;
    assert_eq!((counts.ready, counts.in_progress), (0, 2));
}

#[tokio::test]
async fn the_shell_shows_queues_and_tasks_in_words() {
    let place = Place::new();
    let store = place.open().await;
    enqueue(&store, Task { payload: "{\"page\":7}".into(), priority: 3, ..task("a") })
        .await
        .unwrap();
    enqueue(&store, task("b")).await.unwrap();
    assert_eq!(claim(&store, 1).await, ["a"]);
    let queues = place.shell("SELECT tenant, command, ready, in_progress FROM codeq_queues");
    assert_eq!(queues, "acme|render|1|1");
    let tasks =
        place.shell("SELECT id, place, priority, attempts, worker, payload FROM codeq_tasks");
    assert_eq!(tasks, "a|leased|3|1|w|{\"page\":7}\nb|ready|0|0||{}");
    complete(&store, "a").await.unwrap();
    let results = place.shell("SELECT place, result FROM codeq_tasks WHERE id = 'a'");
    assert_eq!(results, "completed|{\"pages\":7}");
}

#[tokio::test]
async fn the_file_shrinks_when_its_tasks_are_gone() {
    let place = Place::new();
    let store = place.open().await;
    fill(&store, &"long-id-".repeat(50), 30_000).await;
    let pages: u64 = place.shell("PRAGMA page_count").parse().unwrap();
    let full = pages * 4096;
    while clean(&store, 10_000).await > 0 {}
    assert_eq!(stats(&store).await.ready, 0);
    let mut size = allocated(&place);
    // It is given back in small steps, while nothing else is asked.
    for _ in 0..200 {
        if size < full / 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        size = allocated(&place);
    }
    assert!(size < full / 3, "{full} bytes became {size}");
    enqueue(&store, task("a")).await.unwrap();
    assert_eq!(claim(&store, 1).await, ["a"]);
}

#[tokio::test]
async fn an_id_is_found_wherever_it_is_written() {
    let place = Place::new();
    let store = place.open().await;
    // More than are written to the table of ids at once.
    fill(&store, "t", 40_000).await;
    for id in ["t0", "t16383", "t16384", "t39999"] {
        assert_eq!(get(&store, id).await.unwrap().id, id);
        let taken = enqueue(&store, task(id)).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
        store.delete(vec![id.into()]).await.unwrap().pop().unwrap().unwrap();
        assert_eq!(get(&store, id).await.unwrap_err().kind(), ErrorKind::NotFound);
        enqueue(&store, task(id)).await.unwrap();
        assert_eq!(get(&store, id).await.unwrap().id, id);
    }
    store.close().await.unwrap();
    let store = place.open().await;
    // Right away, and once more is known about the table of ids.
    for _ in 0..10 {
        for id in ["t1", "t39999"] {
            assert_eq!(get(&store, id).await.unwrap().id, id);
            let taken = enqueue(&store, task(id)).await.unwrap_err();
            assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(stats(&store).await.ready, 40_000);
    let written = place.shell("SELECT count(*) FROM ids JOIN tasks USING (seq)");
    assert_eq!(written, "40000");
}

/// How many bytes the file takes on the disk.
fn allocated(place: &Place) -> u64 {
    fs::metadata(place.file()).map_or(0, |metadata| metadata.len())
}
