//! Items that are about leases, as scripts want them: in groups that share a tenant, a worker and more,
//! so that little is said twice.

use codeq_plugin::{Complete, Extend, Lease, Nack};

use crate::{call::Call, record};

/// An item that is about a lease.
pub(crate) trait Leased {
    fn lease(&self) -> &Lease;

    /// Whether two items of one tenant and worker also have in common what [`Leased::shared`] adds.
    fn shares_with(&self, _other: &Self) -> bool {
        true
    }

    /// Adds what the items of a group share.
    fn shared(&self, call: Call) -> Call {
        call
    }

    /// Adds what an item has for itself.
    fn own(&self, call: Call) -> Call {
        call
    }
}

impl Call {
    /// Adds items, which [`codeq_plugin::rules::fence`] is to be asked about.
    pub(crate) fn leases<'a, L: Leased + 'a>(self, items: impl IntoIterator<Item = &'a L>) -> Call {
        let mut call = self;
        let mut before: Option<&L> = None;
        for item in items {
            let lease = item.lease();
            let goes_on = before.is_some_and(|before| {
                let group = before.lease();
                group.tenant_id == lease.tenant_id
                    && group.worker_id == lease.worker_id
                    && item.shares_with(before)
            });
            if !goes_on {
                call = item.shared(call.text("=").text(&lease.tenant_id).text(&lease.worker_id));
            }
            call = item.own(call.number(lease.attempt).text(&lease.task_id));
            before = Some(item);
        }
        call
    }
}

impl Leased for Lease {
    fn lease(&self) -> &Lease {
        self
    }
}

impl Leased for Extend {
    fn lease(&self) -> &Lease {
        &self.lease
    }

    fn shares_with(&self, other: &Extend) -> bool {
        self.by == other.by
    }

    fn shared(&self, call: Call) -> Call {
        call.text(&record::json(self.lease.worker_id.as_str())).millis(self.by)
    }
}

impl Leased for Nack {
    fn lease(&self) -> &Lease {
        &self.lease
    }

    fn shares_with(&self, other: &Nack) -> bool {
        self.delay == other.delay && self.reason == other.reason
    }

    fn shared(&self, call: Call) -> Call {
        let call = match self.delay.into_option() {
            Some(delay) => call.millis(delay),
            None => call.text(""),
        };
        call.text(&record::json(self.reason.as_str()))
    }
}

/// A completion, and its result's record.
impl Leased for (&Complete, &String) {
    fn lease(&self) -> &Lease {
        &self.0.lease
    }

    fn shares_with(&self, (other, _): &Self) -> bool {
        self.0.result.status == other.result.status && self.0.result.error == other.result.error
    }

    fn shared(&self, call: Call) -> Call {
        let result = &self.0.result;
        call.text(result.status.as_str()).text(&record::json(result.error.as_str()))
    }

    fn own(&self, call: Call) -> Call {
        call.text(self.1)
    }
}
