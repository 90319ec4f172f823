//! The health port: `/healthz` and `/readyz` as upstream, and `/metrics` and a status page on `/`. Read-only.
//!
//! `/healthz` answers 200 while the daemon works, `/readyz` 200 or 503, both with reasons in the body.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::debug;

use crate::serve::metrics::{self, Format};
use crate::serve::status_page;
use crate::status::query::StatusQuery;
use crate::status::readiness::Readiness;

/// Connections served at once; beyond that the oldest is cut, so that a new one, the kubelet's perhaps, is served.
const MAX_CONNECTIONS: usize = 64;
/// Largest request head, in bytes; a larger one is answered with 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Longest time a client may take to send its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest life of a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// What is told.
#[derive(Clone, Debug)]
pub struct View {
    /// For `/readyz`.
    pub readiness: watch::Receiver<Readiness>,
    /// For everything else.
    pub status_query: StatusQuery,
}

/// Answers requests until the task is dropped. No client can hold it up, whatever it sends or leaves unsent.
pub async fn serve(listener: TcpListener, view: View) {
    let mut connections: VecDeque<AbortHandle> = VecDeque::with_capacity(MAX_CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.retain(|connection| !connection.is_finished());
                if connections.len() >= MAX_CONNECTIONS
                    && let Some(oldest) = connections.pop_front()
                {
                    oldest.abort();
                }
                let connection = tokio::spawn(converse(stream, view.clone()));
                connections.push_back(connection.abort_handle());
            }
            Err(error) => {
                // Out of descriptors, most likely: connections that end give some back.
                debug!(%error, "cannot accept a health connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, view: View) {
    let service = service_fn(|request: Request<Incoming>| {
        let view = view.clone();
        async move {
            let (head, _unread) = request.into_parts();
            Ok::<_, Infallible>(respond(&head.method, head.uri.path(), &head.headers, &view).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        debug!(%error, "health connection failed");
    }
}

async fn respond(method: &Method, path: &str, headers: &HeaderMap, view: &View) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused =
            response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD are answered\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let silent = || {
        let silence = view.status_query.silence().as_secs();
        let readiness = view.readiness.borrow().body();
        let reason =
            format!("no answer from the reconciler, which last came round {silence} s ago\n{readiness}\n");
        response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, reason)
    };
    match path {
        "/healthz" if view.status_query.is_alive() => {
            response(StatusCode::OK, PLAIN, "flanneld is running".to_owned())
        }
        "/healthz" => silent(),
        "/readyz" => {
            let readiness = view.readiness.borrow();
            let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            response(status, PLAIN, readiness.body())
        }
        "/metrics" => {
            let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
            let format = Format::accepted(&accept.collect::<Vec<_>>().join(","));
            let Some(status) = view.status_query.ask(false).await else { return silent() };
            response(StatusCode::OK, format.content_type(), metrics::render(&status, format))
        }
        "/" => {
            let Some(status) = view.status_query.ask(true).await else { return silent() };
            let mut page = response(StatusCode::OK, "text/html; charset=utf-8", status_page::render(&status));
            let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
            page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            page
        }
        _ => {
            let there_are = "there are /, /healthz, /readyz and /metrics\n".to_owned();
            response(StatusCode::NOT_FOUND, PLAIN, there_are)
        }
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    response
}
