//! The way to the collector. Requests leave their span in a queue and go on; what the queue has no room for is dropped,
//! and counted.

use super::{endpoint::Endpoint, span::span};
use crate::{crypto_provider::provider, trace::observation::Observation};
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, trace::SpanExporter as _};
use rustls::{ClientConfig, RootCertStore};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

/// Spans that wait for a collector that is slow, or away.
const QUEUE: usize = 4096;

/// Spans in one call.
const BATCH: usize = 512;

/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_millis(500);

/// How long the collector may take for one batch, repetitions included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Problems are logged this often at most.
const QUIET: Duration = Duration::from_secs(60);

/// Why there can be no export.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    #[error("TLS to the collector can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the export to {0} (--otlp) can't be set up: {1}")]
    Setup(Endpoint, #[source] opentelemetry_otlp::ExporterBuildError),
}

/// Takes requests, as spans, to a collector. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Exporter {
    queue: mpsc::Sender<Arc<Observation>>,
    dropped: Arc<AtomicU64>,
}

impl Exporter {
    /// Works on the runtime that this is called on. `service`: the name under which the collector knows us, unless
    /// `OTEL_SERVICE_NAME` says otherwise; other variables of OpenTelemetry, such as `OTEL_EXPORTER_OTLP_HEADERS`, apply
    /// as well.
    pub fn start(endpoint: &Endpoint, service: &'static str) -> Result<Self, OtlpError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(HyperClient::new(connector, PATIENCE, None))
            .with_endpoint(endpoint.to_string())
            .with_timeout(PATIENCE)
            .build()
            .map_err(|error| OtlpError::Setup(endpoint.clone(), error))?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(service);
        }
        exporter.set_resource(&resource.build());
        let (queue, waiting) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        tokio::spawn(work(exporter, endpoint.clone(), waiting, Arc::clone(&dropped)));
        Ok(Self { queue, dropped })
    }

    /// Never waits.
    pub fn export(&self, seen: &Arc<Observation>) {
        if self.queue.try_send(Arc::clone(seen)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Until the last [`Exporter`] is gone.
async fn work(
    exporter: SpanExporter,
    endpoint: Endpoint,
    mut waiting: mpsc::Receiver<Arc<Observation>>,
    dropped: Arc<AtomicU64>,
) {
    let mut batch = Vec::new();
    let mut complained: Option<Instant> = None;
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        sleep(LINGER).await;
        while batch.len() < BATCH
            && let Ok(seen) = waiting.try_recv()
        {
            batch.push(seen);
        }
        let count = batch.len() as u64;
        let spans = batch.drain(..).map(|seen| span(&seen)).collect();
        let problem = match timeout(PATIENCE, exporter.export(spans)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it takes too long".to_owned()),
        };
        if problem.is_some() {
            dropped.fetch_add(count, Relaxed);
        }
        let is_time = complained.is_none_or(|last| last.elapsed() > QUIET);
        if is_time && dropped.load(Relaxed) > 0 {
            let count = dropped.swap(0, Relaxed);
            let reason = problem.unwrap_or_else(|| "it was too slow".to_owned());
            tracing::warn!(%endpoint, reason, "the collector did not get {count} spans");
            complained = Some(Instant::now());
        }
    }
}
