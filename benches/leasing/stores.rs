//! A real etcd server and testkit's API server, with as many leases as wanted, and their own counters.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::{Value, json};
use testkit::{FakeApi, Lab, Namespace, wait_for};

use crate::peers::{NET_CONF, attributes, mac, public, subnet};

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 254);
const SOON: Duration = Duration::from_secs(30);

/// Where leases are.
pub(crate) trait Store {
    fn name(&self) -> &'static str;
    /// The arguments that lead the daemon to it.
    fn arguments(&self) -> [String; 2];
    /// Calls that the daemon has made, and bytes sent to it and others, so far.
    fn traffic(&self) -> (f64, f64);
    /// Adds the leases of these peers at once; returns when that was begun.
    fn add(&mut self, peers: &[u32]) -> Instant;
    /// When another client heard of a lease, if there is one.
    fn notified(&mut self, subnet: IpNet) -> Option<Instant>;
}

pub(crate) struct EtcdServer {
    outside: Namespace,
    server: Child,
    watch: Child,
    heard: Receiver<(Instant, String)>,
    /// The etcd lease that all keys hang on.
    lease: String,
    /// Calls made here.
    own_calls: u32,
}

impl EtcdServer {
    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(SERVER), 2379);

    pub(crate) fn start(lab: &Lab, leases: u32) -> Self {
        let url = format!("http://{}", Self::ADDRESS);
        let log = File::create(lab.folder().join("etcd.log")).unwrap();
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(lab.folder().join("etcd"))
            .args(["--log-level=error", "--unsafe-no-fsync"]);
        command.args([format!("--listen-client-urls={url}"), format!("--advertise-client-urls={url}")]);
        let server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let server = lab.outside().spawn(server).unwrap();
        let outside = lab.outside().clone();
        let ask = |path: &str, body: &Value| http(&outside, Self::ADDRESS, path, &body.to_string()).1;
        let healthy = || {
            let up = outside.enter(|| TcpStream::connect(Self::ADDRESS).is_ok()).unwrap();
            (up && ask("/v3/kv/range", &json!({ "key": base64("x") })).contains("revision")).then_some(())
        };
        wait_for(SOON, healthy).expect("etcd starts");
        let granted: Value = serde_json::from_str(&ask("/v3/lease/grant", &json!({ "TTL": 86400 }))).unwrap();
        let lease = granted["ID"].as_str().unwrap().to_owned();
        let config = json!({ "key": base64("/coreos.com/network/config"), "value": base64(NET_CONF) });
        ask("/v3/kv/put", &config);

        let mut watch = Command::new("etcdctl");
        watch.env("ETCDCTL_API", "3").args([
            "--endpoints",
            &url,
            "watch",
            "--prefix",
            "/coreos.com/network/subnets/",
        ]);
        let mut watch = lab.outside().spawn(watch.stdin(Stdio::null()).stdout(Stdio::piped())).unwrap();
        let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        let (tell, heard) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| line.starts_with('/')) {
                drop(tell.send((Instant::now(), line)));
            }
        });
        let mut store = Self { outside, server, watch, heard, lease, own_calls: 0 };
        let peers: Vec<u32> = (2..2 + leases).collect();
        // Etcd allows 128 operations in a transaction.
        for chunk in peers.chunks(100) {
            store.add(chunk);
        }
        store
    }
}

impl Store for EtcdServer {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn arguments(&self) -> [String; 2] {
        [format!("--etcd-endpoints=http://{}", Self::ADDRESS), "--kube-subnet-mgr=false".to_owned()]
    }

    fn traffic(&self) -> (f64, f64) {
        let (_, page) = http(&self.outside, Self::ADDRESS, "/metrics", "");
        let sum = |wanted: &str| {
            let lines = page.lines().filter(|line| line.starts_with(wanted));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        (
            sum("grpc_server_started_total") - f64::from(self.own_calls),
            sum("etcd_network_client_grpc_sent_bytes_total"),
        )
    }

    fn add(&mut self, peers: &[u32]) -> Instant {
        let puts: Vec<Value> = peers
            .iter()
            .map(|peer| {
                let key =
                    format!("/coreos.com/network/subnets/{}", subnet(*peer).to_string().replace('/', "-"));
                let value = base64(&attributes(*peer));
                json!({ "requestPut": { "key": base64(&key), "value": value, "lease": self.lease } })
            })
            .collect();
        let (begun, answer) =
            http(&self.outside, Self::ADDRESS, "/v3/kv/txn", &json!({ "success": puts }).to_string());
        self.own_calls += 1;
        assert!(answer.contains("\"succeeded\":true"), "{answer}");
        begun
    }

    fn notified(&mut self, subnet: IpNet) -> Option<Instant> {
        let name = subnet.to_string().replace('/', "-");
        loop {
            let (heard, key) = self.heard.recv_timeout(SOON).ok()?;
            if key.ends_with(&name) {
                return Some(heard);
            }
        }
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        for child in [&mut self.watch, &mut self.server] {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

pub(crate) struct FakeKubernetes {
    api: FakeApi,
}

impl FakeKubernetes {
    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(SERVER), 6443);
    pub(crate) const OWN: &'static str = "this-node";

    pub(crate) fn start(lab: &Lab, leases: u32) -> Self {
        let api = FakeApi::start_in(lab.outside(), Self::ADDRESS).unwrap();
        api.add_node(Self::OWN, &[&subnet(1).to_string()]);
        let mut store = Self { api };
        let peers: Vec<u32> = (2..2 + leases).collect();
        store.add(&peers);
        store.api.compact();
        store
    }
}

impl Store for FakeKubernetes {
    fn name(&self) -> &'static str {
        "Kubernetes"
    }

    fn arguments(&self) -> [String; 2] {
        ["--kube-subnet-mgr".to_owned(), format!("--kube-api-url=http://{}", Self::ADDRESS)]
    }

    fn traffic(&self) -> (f64, f64) {
        let number = |count: u64| f64::from(u32::try_from(count).unwrap());
        let (requests, bytes) = self.api.traffic();
        (number(requests), number(bytes))
    }

    fn add(&mut self, peers: &[u32]) -> Instant {
        for peer in peers {
            self.api.add_node(&format!("node-{peer}"), &[&subnet(*peer).to_string()]);
        }
        let begun = Instant::now();
        for peer in peers {
            self.api.edit_node(&format!("node-{peer}"), |node| {
                let annotations: HashMap<String, String> = [
                    ("kube-subnet-manager", "true".to_owned()),
                    ("backend-type", "vxlan".to_owned()),
                    ("backend-data", format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, mac(*peer))),
                    ("public-ip", public(*peer).to_string()),
                ]
                .map(|(name, value)| (format!("flannel.alpha.coreos.com/{name}"), value))
                .into();
                node["metadata"]["annotations"] = json!(annotations);
            });
        }
        begun
    }

    fn notified(&mut self, _subnet: IpNet) -> Option<Instant> {
        None
    }
}

/// Posts a body, or gets a page if there is none; when that was begun, and the answer.
fn http(namespace: &Namespace, server: SocketAddr, path: &str, body: &str) -> (Instant, String) {
    let mut stream = namespace.enter(|| TcpStream::connect(server)).unwrap().unwrap();
    let method = if body.is_empty() { "GET" } else { "POST" };
    // Of HTTP 1.0, so that the answer comes in one piece.
    let mut request = format!("{method} {path} HTTP/1.0\r\nHost: bench\r\n");
    write!(request, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let begun = Instant::now();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (begun, body.unwrap_or_default())
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit =
        |group: u32, place: u32| char::from(DIGITS[usize::try_from(group >> (18 - 6 * place) & 63).unwrap()]);
    let mut encoded = String::new();
    for bytes in text.as_bytes().chunks(3) {
        let mut three = [0; 3];
        three[..bytes.len()].copy_from_slice(bytes);
        let group = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let used = usize::try_from(place).unwrap() <= bytes.len();
            encoded.push(if used { digit(group, place) } else { '=' });
        }
    }
    encoded
}
