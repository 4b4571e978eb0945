//! `GET /metrics` for Prometheus, on a port of its own: plain HTTP, numbers and names only.
//!
//! | file | purpose |
//! | --- | --- |
//! | `exposition` | the counts as text |

mod exposition;

use super::registry::Registry;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use exposition::Scrape;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

/// How long a client may take for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may live: a client that does not read must not hold its place for ever.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);

/// Whoever holds them all keeps Prometheus out, but no descriptors from live traffic.
const MAX_CONNECTIONS: usize = 32;

/// The text format of Prometheus; OpenMetrics differs in the names of counters.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone)]
struct Metrics {
    registry: Arc<Registry>,
    /// When the agent started.
    started: SystemTime,
}

/// Serves whoever asks. Never returns.
pub async fn serve(listener: TcpListener, registry: Arc<Registry>) {
    let metrics = Metrics { registry, started: SystemTime::now() };
    let router = Router::new()
        .route("/metrics", get(scrape))
        .method_not_allowed_fallback(not_found)
        .fallback(not_found)
        .with_state(metrics);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let connection = connection(socket, router.clone());
                tokio::spawn(async move {
                    let _ = timeout(CONNECTION_TIMEOUT, connection).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics; trying again");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection for metrics ended");
    }
}

async fn scrape(State(metrics): State<Metrics>) -> Response {
    let scrape = Scrape {
        totals: metrics.registry.totals().await,
        tunnels: metrics.registry.tunnels().await,
        started: metrics.started,
    };
    match scrape.text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "there is only GET /metrics here\n").into_response()
}
