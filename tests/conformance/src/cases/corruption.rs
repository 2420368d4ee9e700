//! Rule 16: records that cannot be read.

use std::process::Command;

use codeq_plugin::ErrorKind;

use super::support::*;
use crate::{
    case::{Case, cases},
    stage::Stage,
    store::Store,
};

pub(super) fn cases() -> impl Iterator<Item = Case> {
    cases![
        CorruptData:
        a_record_that_cannot_be_read_is_corrupt,
        a_record_that_cannot_be_read_does_not_stop_its_queue,
    ]
    .into_iter()
}

/// A store with three tasks, of which the first one's record was spoiled. Nothing if the kit was not
/// told how.
fn spoiled(stage: &Stage) -> Option<Store> {
    let Some(command) = stage.corrupt() else {
        stage.skip(
            "the kit was not told how to spoil a stored record; if there is a way, name the command \
             with --corrupt"
                .into(),
        );
        return None;
    };
    let store = stage.open();
    enqueue_all(&store, &["a", "b", "c"]);
    let command = command.replace("{id}", &store.stored_id("a")).replace("{dir}", &stage.dir());
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{command}` failed: {said}");
    Some(store)
}

fn a_record_that_cannot_be_read_is_corrupt(stage: &Stage) {
    let Some(store) = spoiled(stage) else {
        return;
    };
    let error = store.get("a").expect_err("a record that cannot be read");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let id = store.stored_id("a");
    assert!(error.to_string().contains(id.as_str()), "the message does not name {id}: {error}");
    assert!(store.get("b").is_ok());
}

fn a_record_that_cannot_be_read_does_not_stop_its_queue(stage: &Stage) {
    let Some(store) = spoiled(stage) else {
        return;
    };
    assert_eq!(claimed_ids(&store, claim_by("w")), ["b", "c"]);
    enqueue(&store, task("d"));
    assert_eq!(claimed_ids(&store, claim_by("w")), ["d"]);
}
