//! A real etcd server on loopback, with its data in a directory of its own. Needs Debian's `etcd-server` and
//! `etcd-client`.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use flannel_lease::etcd::{EtcdOptions, EtcdStore};
use flannel_lease::{LeaseStore, Timing};

use flannel_lease::conformance::{Harness, TIMEOUT};

const PREFIX: &str = "/coreos.com/network";

/// A server that dies with the test.
pub(crate) struct EtcdLab {
    pub(crate) dir: tempfile::TempDir,
    client_port: Port,
    peer_port: Port,
    scheme: &'static str,
    /// More flags for the server, and for `etcdctl`.
    server_flags: Vec<String>,
    ctl_flags: Mutex<Vec<String>>,
    server: Mutex<Option<Child>>,
}

impl EtcdLab {
    pub(crate) async fn start(
        dir: tempfile::TempDir,
        scheme: &'static str,
        server_flags: Vec<String>,
        ctl_flags: Vec<String>,
    ) -> Self {
        let lab = Self {
            dir,
            client_port: Port::reserve(),
            peer_port: Port::reserve(),
            scheme,
            server_flags,
            ctl_flags: Mutex::new(ctl_flags),
            server: Mutex::default(),
        };
        lab.serve().await;
        lab
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.client_port.number).into()
    }

    pub(crate) fn options(&self) -> EtcdOptions {
        EtcdOptions::new(vec![self.url()])
    }

    pub(crate) fn path(key: &str) -> String {
        format!("{PREFIX}/subnets/{key}")
    }

    /// Flags for every later `etcdctl`.
    pub(crate) fn ctl_as(&self, flags: &[&str]) {
        self.ctl_flags.lock().unwrap().extend(flags.iter().map(|flag| (*flag).to_owned()));
    }

    /// `etcdctl` for this server, with time enough on a busy machine.
    pub(crate) fn ctl_command(&self) -> String {
        format!("ETCDCTL_API=3 etcdctl --endpoints {} --command-timeout=60s --dial-timeout=60s", self.url())
    }

    /// Runs `etcdctl`, which waits up to `seconds` for the server.
    fn try_ctl(&self, seconds: u8, args: &[&str]) -> Output {
        Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.url()])
            .args([format!("--command-timeout={seconds}s"), format!("--dial-timeout={seconds}s")])
            .args(&*self.ctl_flags.lock().unwrap())
            .args(args)
            .output()
            .expect("etcdctl: install Debian's etcd-client")
    }

    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        let output = self.try_ctl(60, args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) async fn serve(&self) {
        let data = self.dir.path().join("data");
        let (client, peer) = (self.url(), format!("http://127.0.0.1:{}", self.peer_port.number));
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--name=lab", "--data-dir", data.to_str().unwrap()])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("lab={peer}"), "--unsafe-no-fsync"])
            .args(&self.server_flags)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd: install Debian's etcd-server");
        *self.server.lock().unwrap() = Some(server);
        let deadline = std::time::Instant::now() + TIMEOUT;
        while !self.try_ctl(1, &["get", "x"]).status.success() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(std::time::Instant::now() < deadline, "etcd does not answer:\n{log}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn kill(&self) {
        if let Some(mut server) = self.server.lock().unwrap().take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Reads one number of etcd's own metrics.
    pub(crate) fn calls(&self, method: &str) -> u64 {
        let output = Command::new("python3")
            .args([
                "-c",
                "import sys,urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())",
            ])
            .arg(format!("{}/metrics", self.url()))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .filter(|line| line.starts_with("grpc_server_started_total"))
            .filter(|line| line.contains(&format!("grpc_method=\"{method}\"")))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }
}

impl Drop for EtcdLab {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A TCP port for a server that goes and comes back. It is below those that the kernel gives to clients, and no other
/// lab on this machine has it: each holds the UDP port with the same number.
struct Port {
    number: u16,
    _reserved: UdpSocket,
}

impl Port {
    fn reserve() -> Self {
        let mut numbers = std::iter::repeat_with(|| rand::random_range(10_000..32_000));
        let reserved = numbers.find_map(|number| {
            let reserved = UdpSocket::bind(("127.0.0.1", number)).ok()?;
            // Nor has another program.
            std::net::TcpListener::bind(("127.0.0.1", number)).ok()?;
            Some(Self { number, _reserved: reserved })
        });
        reserved.unwrap()
    }
}

impl Harness for EtcdLab {
    const READABLE_WHILE_AWAY: bool = false;

    async fn new() -> Self {
        Self::start(tempfile::tempdir().unwrap(), "http", Vec::new(), Vec::new()).await
    }

    async fn open(&self, timing: Timing) -> Arc<dyn LeaseStore> {
        Arc::new(EtcdStore::new(&self.options(), timing).unwrap())
    }

    async fn put(&self, key: &str, json: &str) {
        self.ctl(&["put", &Self::path(key), "--", json]);
    }

    async fn delete(&self, key: &str) {
        self.ctl(&["del", &Self::path(key)]);
    }

    async fn read(&self, key: &str) -> Option<String> {
        let text = self.ctl(&["get", "--print-value-only", &Self::path(key)]);
        text.strip_suffix('\n').map(ToOwned::to_owned)
    }

    async fn ends(&self, key: &str) -> bool {
        self.ctl(&["get", "-w", "fields", &Self::path(key)])
            .lines()
            .any(|line| line.starts_with("\"Lease\" : ") && line != "\"Lease\" : 0")
    }

    async fn wipe(&self) {
        self.kill();
        std::fs::remove_dir_all(self.dir.path().join("data")).unwrap();
        self.serve().await;
    }

    async fn away(&self, during: impl Future<Output = ()> + Send) {
        self.kill();
        during.await;
        self.serve().await;
    }
}
