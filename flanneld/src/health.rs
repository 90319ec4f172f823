//! `/healthz` and `/readyz`: what a kubelet or an operator may ask.
//!
//! As upstream: `/healthz` answers 200 while the daemon runs, `/readyz` 200 or 503. Beyond upstream, `/readyz` goes
//! back to 503 when something stops being true, and says in its body what.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::debug;

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// Largest request head, in bytes; a larger one is answered with 431.
const HEAD: usize = 16 * 1024;
/// Longest time a client may take to send its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest life of a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Something that must be true for the node to be ready.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Condition {
    /// There is an interface to other nodes, with the addresses it needs.
    Interface,
    /// A subnet is leased to this node.
    Lease,
    /// The backend's device is as it should be.
    Device,
    /// Masquerade and forward rules are in the kernel.
    Rules,
    /// subnet.env is written.
    SubnetFile,
    /// The peers that the store listed are programmed.
    Peers,
}

impl Condition {
    const ALL: [Self; 6] =
        [Self::Interface, Self::Lease, Self::Device, Self::Rules, Self::SubnetFile, Self::Peers];

    /// The work that brings it about, as metrics call it.
    pub(crate) fn work(self) -> &'static str {
        match self {
            Self::Device | Self::Peers => "overlay",
            Self::SubnetFile => "subnet_file",
            Self::Interface | Self::Lease | Self::Rules => self.name(),
        }
    }

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Lease => "lease",
            Self::Device => "device",
            Self::Rules => "rules",
            Self::SubnetFile => "subnet file",
            Self::Peers => "peers",
        }
    }
}

/// What holds now and what does not, with the reason.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Readiness {
    unmet: BTreeMap<Condition, String>,
    notes: BTreeMap<&'static str, String>,
}

impl Readiness {
    /// At start nothing holds yet.
    #[must_use]
    pub fn starting() -> Self {
        let unmet =
            Condition::ALL.into_iter().map(|condition| (condition, "not done yet".to_owned())).collect();
        Self { unmet, notes: BTreeMap::new() }
    }

    /// Records that `condition` holds, or why not.
    pub fn set(&mut self, condition: Condition, state: Result<(), String>) {
        match state {
            Ok(()) => self.unmet.remove(&condition),
            Err(reason) => self.unmet.insert(condition, reason),
        };
    }

    /// Records something worth knowing that does not make the node unready, e.g. a store that is away; `None`
    /// removes it.
    pub fn note(&mut self, subject: &'static str, text: Option<String>) {
        match text {
            Some(text) => self.notes.insert(subject, text),
            None => self.notes.remove(subject),
        };
    }

    /// Whether every condition holds.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.unmet.is_empty()
    }

    /// Why `condition` does not hold; `None` if it does.
    #[must_use]
    pub fn reason(&self, condition: Condition) -> Option<&str> {
        self.unmet.get(&condition).map(String::as_str)
    }

    /// What does not hold, and why.
    pub(crate) fn unmet(&self) -> impl Iterator<Item = (Condition, &str)> {
        self.unmet.iter().map(|(condition, reason)| (*condition, reason.as_str()))
    }

    /// What is worth knowing besides.
    pub(crate) fn notes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.notes.iter().map(|(subject, text)| (*subject, text.as_str()))
    }

    fn body(&self) -> String {
        let mut body =
            String::from(if self.is_ready() { "flanneld is ready" } else { "flanneld is not ready yet" });
        for (condition, reason) in &self.unmet {
            let _infallible = write!(body, "\n{}: {reason}", condition.name());
        }
        for (subject, text) in &self.notes {
            let _infallible = write!(body, "\nnote: {subject}: {text}");
        }
        body
    }
}

/// Opens the port.
///
/// # Errors
/// The kernel's, e.g. if the port is taken.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers requests until the task is dropped. No client can hold it up, whatever it sends or leaves unsent.
pub async fn serve(listener: TcpListener, readiness: watch::Receiver<Readiness>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let readiness = readiness.clone();
                tokio::spawn(async move {
                    let _until_done = place;
                    converse(stream, readiness).await;
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: connections that end give some back.
                debug!(%error, "cannot accept a health connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, readiness: watch::Receiver<Readiness>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &readiness.borrow());
        async move { Ok::<_, std::convert::Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        debug!(%error, "health connection failed");
    }
}

fn respond(method: &Method, path: &str, readiness: &Readiness) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n".to_owned());
    }
    match path {
        "/healthz" => text(StatusCode::OK, "flanneld is running".to_owned()),
        "/readyz" if readiness.is_ready() => text(StatusCode::OK, readiness.body()),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, readiness.body()),
        _ => text(StatusCode::NOT_FOUND, "there are /healthz and /readyz\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let plain = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Readiness {
        let mut readiness = Readiness::starting();
        for condition in Condition::ALL {
            readiness.set(condition, Ok(()));
        }
        readiness
    }

    #[test]
    fn ready_only_when_every_condition_holds() {
        let mut readiness = Readiness::starting();
        for condition in Condition::ALL {
            assert!(!readiness.is_ready(), "before {condition:?}");
            readiness.set(condition, Ok(()));
        }
        assert!(readiness.is_ready());
    }

    #[test]
    fn ready_ends_when_a_condition_stops_holding_and_the_body_says_which() {
        let mut readiness = ready();
        assert_eq!(respond(&Method::GET, "/readyz", &readiness).status(), 200);
        readiness.set(Condition::Rules, Err("table ip flannel-ipv4 is gone".to_owned()));
        assert_eq!(respond(&Method::GET, "/readyz", &readiness).status(), 503);
        assert_eq!(readiness.body(), "flanneld is not ready yet\nrules: table ip flannel-ipv4 is gone");
    }

    #[test]
    fn a_note_does_not_make_it_unready() {
        let mut readiness = ready();
        readiness.note("store", Some("away for 12 s".to_owned()));
        assert!(readiness.is_ready());
        assert_eq!(readiness.body(), "flanneld is ready\nnote: store: away for 12 s");
    }

    #[test]
    fn alive_even_when_not_ready() {
        assert_eq!(respond(&Method::GET, "/healthz", &Readiness::starting()).status(), 200);
    }

    #[test]
    fn other_methods_and_paths_are_refused() {
        assert_eq!(respond(&Method::POST, "/readyz", &ready()).status(), 405);
        assert_eq!(respond(&Method::GET, "/etc/passwd", &ready()).status(), 404);
    }
}
