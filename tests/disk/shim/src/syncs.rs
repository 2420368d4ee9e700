//! What makes changes certain.

use std::ffi::c_int;

use codeq_test_disk::What;

use crate::{
    layer::Layer,
    place::Place,
    raw::{self, Answer},
};

/// Syncs a file or a directory, wherever it is.
pub(crate) fn sync_any(fd: c_int, data_only: bool) -> Answer {
    let traced = Layer::get().and_then(|layer| Some((layer, Place::of(layer, fd)?)));
    match traced {
        Some(traced) => sync(traced, fd, data_only),
        None => raw::sync(fd, data_only),
    }
}

/// Syncs what is under the directory.
pub(crate) fn sync((layer, place): (&Layer, Place), fd: c_int, data_only: bool) -> Answer {
    let turn = layer.turn();
    let sync = turn.next_sync();
    turn.record(&place, What::SyncBegin { sync, directory: place.directory });
    // Others go on while it takes its time.
    drop(turn);
    layer.pass_gate();
    let fails = layer.turn().syncs_fail();
    let answer = if fails { Err(libc::EIO) } else { raw::sync(fd, data_only) };
    let error = answer.err().unwrap_or_default();
    layer.turn().record(&place, What::SyncEnd { sync, error });
    answer
}
