//! What comes in over HTTP.

use std::time::Instant as Clock;

use prometheus::{HistogramVec, IntCounterVec, IntGauge};

use super::Register;

/// In seconds: from answers out of memory to the longest poll.
const BUCKETS: [f64; 16] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// The status of a request whose caller went away before it was answered.
const CALLER_GONE: &str = "gone";

#[derive(Debug)]
pub(super) struct Requests {
    answered: IntCounterVec,
    duration: HistogramVec,
    in_flight: IntGauge,
    connections: IntGauge,
}

impl Requests {
    pub(super) fn new(register: &Register) -> Result<Requests, prometheus::Error> {
        Ok(Requests {
            answered: register.counters(
                "codeq_http_requests_total",
                "Requests, by the status of the answer.",
                &["method", "route", "status"],
            )?,
            duration: register.histograms(
                "codeq_http_request_duration_seconds",
                "How long requests took, long polls with their waits.",
                &["method", "route"],
                &BUCKETS,
            )?,
            in_flight: register
                .gauge("codeq_http_requests_in_flight", "Requests that are not answered yet.")?,
            connections: register.gauge("codeq_http_connections_open", "Open connections.")?,
        })
    }

    pub(super) fn connection(&self) -> Gauged {
        Gauged::one(self.connections.clone())
    }

    pub(super) fn begin<'a>(&'a self, method: &'static str, route: &'a str) -> RequestInFlight<'a> {
        let in_flight = Gauged::one(self.in_flight.clone());
        RequestInFlight {
            requests: self,
            method,
            route,
            begun: Clock::now(),
            status: None,
            in_flight,
        }
    }
}

/// A request that is not answered yet. It counts when it is dropped.
pub(crate) struct RequestInFlight<'a> {
    requests: &'a Requests,
    method: &'static str,
    route: &'a str,
    begun: Clock,
    status: Option<u16>,
    #[expect(dead_code, reason = "it counts for as long as it is there")]
    in_flight: Gauged,
}

impl RequestInFlight<'_> {
    /// The request is answered.
    pub(crate) fn answered(mut self, status: u16) {
        self.status = Some(status);
    }
}

impl Drop for RequestInFlight<'_> {
    fn drop(&mut self) {
        let status = self.status.map_or_else(|| CALLER_GONE.to_owned(), |code| code.to_string());
        let requests = self.requests;
        requests.answered.with_label_values(&[self.method, self.route, &status]).inc();
        requests
            .duration
            .with_label_values(&[self.method, self.route])
            .observe(self.begun.elapsed().as_secs_f64());
    }
}

/// Counts as one for as long as it is there.
#[derive(Debug)]
pub struct Gauged(IntGauge);

impl Gauged {
    pub(super) fn one(gauge: IntGauge) -> Gauged {
        gauge.inc();
        Gauged(gauge)
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.dec();
    }
}
