//! The OTLP collector that spans are sent to.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use opentelemetry_otlp::{
    Protocol, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter as Export},
};
use tokio::runtime::Handle;

use super::TraceError;
use crate::config::{OtlpProtocol, Tracing};

/// Sends spans, and says once that it cannot.
#[derive(Debug)]
pub(super) struct Collector {
    endpoint: String,
    exporter: Arc<SpanExporter>,
    /// The exporter needs one, and is called from a thread that has none.
    runtime: Handle,
    is_failing: AtomicBool,
}

impl Collector {
    pub(super) fn new(config: &Tracing) -> Result<Collector, TraceError> {
        let endpoint = config.endpoint();
        let fail = |problem: String| TraceError { endpoint: endpoint.clone(), problem };
        let exporter = match config.otlp_protocol {
            OtlpProtocol::Grpc => {
                let builder = SpanExporter::builder().with_tonic().with_endpoint(&endpoint);
                let builder = if endpoint.starts_with("https://") {
                    builder.with_tls_config(ClientTlsConfig::new().with_native_roots())
                } else {
                    builder
                };
                builder.build()
            }
            OtlpProtocol::Http => {
                // Whoever was first chose the same one.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let mut client = reqwest::Client::builder();
                if endpoint.starts_with("http://") {
                    // So that a machine without authorities will do.
                    client = client.tls_certs_only([]);
                }
                let client = client.build().map_err(|error| fail(error.to_string()))?;
                SpanExporter::builder()
                    .with_http()
                    .with_protocol(Protocol::HttpBinary)
                    .with_http_client(client)
                    .with_endpoint(&endpoint)
                    .build()
            }
        };
        let exporter = exporter.map_err(|error| fail(error.to_string()))?;
        Ok(Collector {
            exporter: Arc::new(exporter),
            runtime: Handle::current(),
            is_failing: AtomicBool::new(false),
            endpoint,
        })
    }

    fn tell(&self, result: &OTelSdkResult) {
        let fails = result.is_err();
        let failed = self.is_failing.swap(fails, Ordering::Relaxed);
        match result {
            Err(error) if !failed => {
                let endpoint = &self.endpoint;
                tracing::warn!(endpoint, %error, "traces are lost: the collector does not take them");
            }
            Ok(()) if failed => {
                tracing::info!(endpoint = self.endpoint, "the collector takes traces again");
            }
            _ => {}
        }
    }
}

impl Export for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exporter = Arc::clone(&self.exporter);
        let sent = self.runtime.spawn(async move { exporter.export(batch).await }).await;
        let result = sent.unwrap_or_else(|error| {
            Err(OTelSdkError::InternalFailure(format!("it was not sent: {error}")))
        });
        self.tell(&result);
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}
