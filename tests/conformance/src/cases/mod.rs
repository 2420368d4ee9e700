//! The cases, a module for each rule or part of the contract.
//!
//! The backend has a clock of its own. So a case that is about time asks over and over until the
//! moment has come, and what must not happen meanwhile gets a day rather than a guess.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a case that cannot go on fails, and its report says where"
)]

mod attempts;
mod backoff;
mod claiming;
mod completion;
mod corruption;
mod cost;
mod delay;
mod fencing;
mod idempotency;
mod leases;
mod life;
mod listing;
mod moved;
mod order;
mod records;
mod retention;
mod sharing;
mod stats;
mod subscriptions;
mod support;
mod tenants;
mod threads;

use crate::case::Case;

/// Every case that one process plays by itself, in the order of the contract.
pub(super) fn all() -> Vec<Case> {
    let mut all: Vec<Case> = attempts::cases()
        .chain(backoff::cases())
        .chain(claiming::cases())
        .chain(completion::cases())
        .chain(records::cases())
        .chain(corruption::cases())
        .chain(cost::cases())
        .chain(delay::cases())
        .chain(fencing::cases())
        .chain(idempotency::cases())
        .chain(leases::cases())
        .chain(life::cases())
        .chain(listing::cases())
        .chain(moved::cases())
        .chain(order::cases())
        .chain(retention::cases())
        .chain(sharing::cases())
        .chain(stats::cases())
        .chain(subscriptions::cases())
        .chain(tenants::cases())
        .chain(threads::cases())
        .collect();
    all.sort_by_key(|case| case.rule);
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_case_is_there_once() {
        let names: Vec<_> = super::all().iter().map(|case| (case.rule, case.name)).collect();
        assert_eq!(BTreeSet::from_iter(&names).len(), names.len(), "{names:?}");
    }
}
