use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use flanneld::config::HealthzAddress;
use flanneld::serve::http::{View, serve};
use flanneld::serve::listen::listen;
use flanneld::status::query::StatusQuery;
use flanneld::status::readiness::Readiness;
use tokio::sync::watch;

use crate::serve::sample;

/// The port of a daemon whose reconciler answers as `sample`, on threads of its own.
struct Daemon {
    address: SocketAddr,
    readiness: watch::Sender<Readiness>,
    pulse: watch::Sender<Instant>,
    _runtime: tokio::runtime::Runtime,
}

impl Daemon {
    fn start() -> Self {
        Self::start_with(true)
    }

    /// With a reconciler that answers, or with none yet.
    fn start_with(reconciler: bool) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (readiness, readiness_out) = watch::channel(Readiness::starting());
        let (pulse, pulse_out) = watch::channel(Instant::now());
        let (requests, mut asked) =
            tokio::sync::mpsc::channel::<flanneld::status::snapshot::StatusRequest>(4);
        let (tell, address) = mpsc::channel();
        runtime.spawn(async move {
            while reconciler && let Some(question) = asked.recv().await {
                let _gone = question.answer.send(Box::new(sample()));
            }
        });
        runtime.spawn(async move {
            let address = HealthzAddress { ip: "127.0.0.1".parse().unwrap(), port: 0 };
            let listener = listen(&address).unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            serve(
                listener,
                View { readiness: readiness_out, status_query: StatusQuery::new(requests, pulse_out) },
            )
            .await;
        });
        let address = address.recv_timeout(Duration::from_secs(10)).unwrap();
        Self { address, readiness, pulse, _runtime: runtime }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Status line, headers and body.
    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        write!(stream, "{request}\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn is_well(&self) -> bool {
        self.ask("GET /healthz HTTP/1.1").starts_with("HTTP/1.1 200 ")
    }
}

#[test]
fn ready_and_alive_say_why_not() {
    let daemon = Daemon::start();
    assert!(daemon.is_well());
    let answer = daemon.ask("GET /readyz HTTP/1.1");
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("\nrules: waits for the lease"),
        "{answer}"
    );
    daemon.readiness.send_replace(Readiness::default());
    assert!(daemon.ask("GET /readyz HTTP/1.1").starts_with("HTTP/1.1 200 "));

    daemon.pulse.send_replace(Instant::now().checked_sub(Duration::from_secs(61)).unwrap());
    let answer = daemon.ask("GET /healthz HTTP/1.1");
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("last made progress 61 s ago"),
        "{answer}"
    );
}

#[test]
fn a_daemon_that_still_waits_for_its_lease_says_so_where_there_are_no_numbers_yet() {
    let daemon = Daemon::start_with(false);
    assert!(daemon.is_well());
    for path in ["/", "/metrics"] {
        let answer = daemon.ask(&format!("GET {path} HTTP/1.1"));
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("\nlease: asking the lease store"),
            "{answer}"
        );
    }
}

#[test]
fn metrics_come_in_the_format_that_was_asked_for() {
    let daemon = Daemon::start();
    let answer = daemon.ask("GET /metrics HTTP/1.1");
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{answer}"
    );
    assert!(answer.ends_with("\n# EOF\n"), "{answer}");
    let answer = daemon.ask("GET /metrics HTTP/1.1\r\nAccept: text/plain;version=0.0.4");
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{answer}");
    assert!(
        !answer.contains("# EOF") && answer.contains("# TYPE flanneld_repairs_total counter"),
        "{answer}"
    );
}

#[test]
fn the_page_is_read_only_and_may_load_nothing() {
    let daemon = Daemon::start();
    let answer = daemon.ask("GET / HTTP/1.1");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("</html>\n"), "{answer}");
    assert!(
        answer.contains("content-security-policy: default-src 'none'; style-src 'unsafe-inline'"),
        "{answer}"
    );
    assert!(daemon.ask("POST / HTTP/1.1").starts_with("HTTP/1.1 405 "));
    assert!(daemon.ask("GET /etc/passwd HTTP/1.1").starts_with("HTTP/1.1 404 "));
    let head = daemon.ask("HEAD / HTTP/1.1");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn a_large_head_is_refused() {
    let daemon = Daemon::start();
    let answer = daemon.ask(&format!("GET /healthz HTTP/1.1\r\nX: {}", "x".repeat(12 * 1024)));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut stream = daemon.connect();
    // The daemon may hang up before it has all of it.
    let _refused = write!(stream, "GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert!(daemon.is_well());
}

#[test]
fn a_burst_of_connections_does_not_cut_a_probe_before_it_is_answered() {
    let daemon = Daemon::start();
    let mut mute = Vec::new();
    for _ in 0..20 {
        let mut probe = daemon.connect();
        mute.extend((0..50).map(|_| daemon.connect()));
        write!(probe, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        mute.extend((0..50).map(|_| daemon.connect()));
        let mut answer = String::new();
        probe.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[test]
fn many_who_say_nothing_keep_nobody_from_an_answer() {
    let daemon = Daemon::start();
    let mute: Vec<TcpStream> = (0..300)
        .map(|n| {
            let mut stream = daemon.connect();
            // Some send half a request.
            stream.write_all(if n % 2 == 0 { b"" } else { b"GET / HTTP/1.1\r\nHost:" }).unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    assert!(daemon.is_well());
    assert!(daemon.ask("GET / HTTP/1.1").starts_with("HTTP/1.1 200 "));
    assert!(began.elapsed() < Duration::from_secs(4), "they were waited for: {:?}", began.elapsed());
    // The oldest were cut, the latest are still heard.
    let mut oldest = mute.into_iter().next().unwrap();
    assert_eq!(oldest.read(&mut [0; 16]).unwrap_or(0), 0);
}

#[test]
fn one_who_takes_too_long_over_its_head_is_cut() {
    let daemon = Daemon::start();
    let mut slow = daemon.connect();
    slow.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let began = Instant::now();
    let mut answer = Vec::new();
    let _reset = slow.read_to_end(&mut answer);
    assert!(began.elapsed() < Duration::from_secs(9), "it was waited for");
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}
