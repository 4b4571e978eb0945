//! The way to the collector. Requests leave their span in a queue and go on; what the queue has no room for is dropped,
//! and counted.

use super::{endpoint::Endpoint, span::span};
use crate::{crypto_provider::provider, trace::observation::Observation};
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry::Key;
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
    sync::{mpsc, oneshot},
    time::{timeout, timeout_at},
};

/// Spans that wait for a collector that is slow, or away.
const QUEUE: usize = 4096;

/// Spans in one call.
const BATCH: usize = 512;

/// How long the first span of a batch that is not full waits for others.
const LINGER: Duration = Duration::from_millis(500);

/// How long the collector may take for one batch, repetitions included.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the end of the program waits for what is in the queue.
const FLUSH: Duration = Duration::from_secs(2);

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
    queue: mpsc::Sender<Queued>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Queued {
    Seen(Arc<Observation>),
    /// Whoever waits for all before it to be exported.
    Flush(oneshot::Sender<()>),
}

impl Exporter {
    /// Works on the runtime that this is called on. `service`: the name under which the collector knows us, unless
    /// `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` says otherwise; other variables of OpenTelemetry, such as
    /// `OTEL_EXPORTER_OTLP_HEADERS`, apply as well.
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
        // With what the variables say.
        let mut resource = Resource::builder().build();
        if !is_named(&resource) {
            resource = Resource::builder().with_service_name(service).build();
        }
        exporter.set_resource(&resource);
        let (queue, waiting) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        tokio::spawn(work(exporter, endpoint.clone(), waiting, Arc::clone(&dropped)));
        Ok(Self { queue, dropped })
    }

    /// Never waits.
    pub fn export(&self, seen: &Arc<Observation>) {
        if self.queue.try_send(Queued::Seen(Arc::clone(seen))).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// What is in the queue goes to the collector, unless that takes longer than [`FLUSH`].
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let flush = async {
            if self.queue.send(Queued::Flush(done)).await.is_ok() {
                let _ = flushed.await;
            }
        };
        if timeout(FLUSH, flush).await.is_err() {
            tracing::warn!("the collector did not get the last spans: it takes too long");
        }
    }
}

/// Did somebody say what the service is called?
fn is_named(resource: &Resource) -> bool {
    let name = resource.get(&Key::from_static_str("service.name"));
    name.is_some_and(|name| !name.as_str().starts_with("unknown_service"))
}

/// Until the last [`Exporter`] is gone.
async fn work(
    exporter: SpanExporter,
    endpoint: Endpoint,
    mut waiting: mpsc::Receiver<Queued>,
    dropped: Arc<AtomicU64>,
) {
    let mut complained: Option<Instant> = None;
    // Who waits for the batch hears of it when this is dropped, at the end of the loop.
    while let Some((batch, _flush)) = next_batch(&mut waiting).await {
        if batch.is_empty() {
            continue;
        }
        let count = batch.len() as u64;
        let spans = batch.iter().map(|seen| span(seen)).collect();
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

/// What is to go in one call, and who waits for that. Comes when the batch is full, when somebody waits, or [`LINGER`]
/// after its first span. `None`: the last [`Exporter`] is gone, and all has been exported.
async fn next_batch(
    waiting: &mut mpsc::Receiver<Queued>,
) -> Option<(Vec<Arc<Observation>>, Option<oneshot::Sender<()>>)> {
    let mut next = waiting.recv().await?;
    let mut batch = Vec::new();
    let deadline = tokio::time::Instant::now() + LINGER;
    loop {
        match next {
            Queued::Seen(seen) => batch.push(seen),
            Queued::Flush(flush) => return Some((batch, Some(flush))),
        }
        if batch.len() == BATCH {
            return Some((batch, None));
        }
        match timeout_at(deadline, waiting.recv()).await {
            Ok(Some(queued)) => next = queued,
            Ok(None) | Err(_) => return Some((batch, None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests::observation;
    use opentelemetry::KeyValue;
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };
    use tokio::task::unconstrained;

    /// What is there at once.
    fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(unconstrained(future)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn a_full_batch_waits_for_nobody_and_a_flush_ends_the_waiting() {
        let (queue, mut waiting) = mpsc::channel(QUEUE);
        let seen = Arc::new(observation());
        for _ in 0..BATCH + 1 {
            queue.try_send(Queued::Seen(Arc::clone(&seen))).unwrap();
        }
        let full = ready(next_batch(&mut waiting)).flatten().expect("a full batch");
        assert_eq!(full.0.len(), BATCH);
        let (done, flushed) = oneshot::channel();
        queue.try_send(Queued::Flush(done)).unwrap();
        let (rest, flush) = ready(next_batch(&mut waiting)).flatten().expect("one that is waited for");
        assert_eq!(rest.len(), 1);
        drop(flush);
        assert!(flushed.await.is_err(), "it hears that this is done");
        queue.try_send(Queued::Seen(seen)).unwrap();
        assert!(ready(next_batch(&mut waiting)).is_none(), "one alone waits for others");
    }

    #[test]
    fn a_name_that_the_environment_gives_is_kept() {
        let named = |name: &'static str| {
            is_named(&Resource::builder_empty().with_attribute(KeyValue::new("service.name", name)).build())
        };
        assert!(named("shop-redirector"));
        assert!(!named("unknown_service:redirector") && !is_named(&Resource::builder_empty().build()));
    }
}
