use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Lab, LabError, Namespace, Node, wait_for};

/// A cluster of `flanneld` daemons that share one lease file, as `make demo` runs it.
#[derive(Clone, Debug)]
pub struct Flannel {
    binary: PathBuf,
    folder: PathBuf,
    /// Empty, or what the names of its files begin with.
    name: String,
    health_port: u16,
    wrapper: Vec<String>,
    store: Option<String>,
    iface: Option<&'static str>,
    extra: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Flannel {
    /// Dual-stack VXLAN, the configuration of the demo.
    pub const NET_CONF: &str = r#"{
  "Network": "10.244.0.0/16",
  "EnableIPv6": true,
  "IPv6Network": "fd00:10:244::/56",
  "EnableNFTables": true,
  "Backend": { "Type": "vxlan" }
}
"#;

    /// Writes `net_conf` as the configuration of daemons that will run `binary` in `lab`.
    ///
    /// # Errors
    /// The lab's folder is not writable, or `binary` does not exist.
    pub fn new(lab: &Lab, binary: impl Into<PathBuf>, net_conf: &str) -> Result<Self, LabError> {
        let binary = binary.into();
        let found = binary.canonicalize();
        let binary = found.map_err(LabError::system(format!("find flanneld at {}", binary.display())))?;
        let flannel = Self {
            binary,
            folder: lab.folder().to_owned(),
            name: String::new(),
            health_port: HEALTH.1,
            wrapper: Vec::new(),
            store: None,
            iface: Some("eth0"),
            extra: Vec::new(),
            environment: Vec::new(),
        };
        flannel.configured(net_conf)
    }

    /// Another network on the same nodes: its files are called `NAME-..`, its daemons answer on the next port.
    ///
    /// # Errors
    /// The lab's folder is not writable.
    pub fn beside(&self, name: &str, net_conf: &str) -> Result<Self, LabError> {
        let flannel = Self { name: format!("{name}-"), health_port: self.health_port + 1, ..self.clone() };
        flannel.configured(net_conf)
    }

    fn configured(self, net_conf: &str) -> Result<Self, LabError> {
        let file = self.net_conf_file();
        fs::write(&file, net_conf).map_err(LabError::system(format!("write {}", file.display())))?;
        Ok(self)
    }

    /// Starts daemons from now on by this command, e.g. `unshare --pid --fork`. Default: none.
    #[must_use]
    pub fn wrapped_in(self, command: &[&str]) -> Self {
        Self { wrapper: command.iter().map(|&word| word.to_owned()).collect(), ..self }
    }

    /// Lets daemons started from now on answer for their health on this port. Default: 10256.
    #[must_use]
    pub fn health_port(self, health_port: u16) -> Self {
        Self { health_port, ..self }
    }

    /// Passes one more argument to daemons started from now on. Default: none.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.extra.push(argument.into());
        self
    }

    /// Sets a variable of the environment for daemons started from now on. Default: none beyond the test's own.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Passes this argument in place of `--lease-db`, for leases in another store. Default: none.
    #[must_use]
    pub fn store(mut self, argument: impl Into<String>) -> Self {
        self.store = Some(argument.into());
        self
    }

    /// Lets daemons started from now on find their interface by the default route, instead of being told `eth0`.
    #[must_use]
    pub fn by_default_route(mut self) -> Self {
        self.iface = None;
        self
    }

    /// The file that all daemons read their network from.
    pub fn net_conf_file(&self) -> PathBuf {
        self.folder.join(format!("{}net-conf.json", self.name))
    }

    /// The file in which the daemons agree on who has which subnet.
    pub fn lease_file(&self) -> PathBuf {
        self.folder.join(format!("{}leases.db", self.name))
    }

    /// Where its daemon on `node` writes subnet.env.
    pub fn subnet_file(&self, node: &Node) -> PathBuf {
        node.folder().join(format!("{}subnet.env", self.name))
    }

    /// The program.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// The command line of the daemon on `node`.
    pub fn arguments(&self, node: &Node) -> Vec<String> {
        let mut arguments = vec![
            self.store.clone().unwrap_or_else(|| format!("--lease-db={}", self.lease_file().display())),
            format!("--net-config-path={}", self.net_conf_file().display()),
            format!("--subnet-file={}", self.subnet_file(node).display()),
            "--ip-masq".to_owned(),
            format!("--healthz-ip={}", HEALTH.0),
            format!("--healthz-port={}", self.health_port),
        ];
        arguments.extend(self.iface.map(|name| format!("--iface={name}")));
        arguments.extend(self.extra.iter().cloned());
        arguments
    }

    /// Starts the daemon of `node`; its output goes to the end of `flanneld.log` in the node's folder.
    ///
    /// # Errors
    /// The log cannot be opened or the program not be started.
    pub fn start(&self, node: &Node) -> Result<Daemon, LabError> {
        let log = node.folder().join(format!("{}flanneld.log", self.name));
        let what = || LabError::system(format!("open {}", log.display()));
        let stdout = File::options().create(true).append(true).open(&log).map_err(what())?;
        let stderr = stdout.try_clone().map_err(what())?;
        let mut words = self.wrapper.iter().map(PathBuf::from).chain([self.binary.clone()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command.env("WIREGUARD_KEY_FILE", node.folder().join(format!("{}wgkey", self.name)));
        command.envs(self.environment.iter().cloned());
        command.args(self.arguments(node)).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let namespace = node.namespace().clone();
        let started = Instant::now();
        let child = namespace.spawn(&mut command)?;
        let health = (HEALTH.0, self.health_port);
        Ok(Daemon { child: Some(child), namespace, health, log, started })
    }

    /// Whether the daemon of `node` answers that it is ready.
    ///
    /// # Errors
    /// The node is gone.
    pub(crate) fn is_ready(&self, node: &Node) -> Result<bool, LabError> {
        let status = node.namespace().enter(|| http_status((HEALTH.0, self.health_port), "/readyz"))?;
        Ok(status.is_ok_and(|status| status == 200))
    }

    /// Starts the daemon of `node` and waits until it is ready.
    ///
    /// # Errors
    /// As [`Flannel::start`] and [`Daemon::ready`].
    pub fn start_ready(&self, node: &Node, limit: Duration) -> Result<Daemon, LabError> {
        let mut daemon = self.start(node)?;
        daemon.ready(limit)?;
        Ok(daemon)
    }

    /// Adds this many nodes to `lab`, each with a daemon that is ready.
    ///
    /// # Errors
    /// As [`Lab::add_node`] and [`Flannel::start_ready`].
    pub fn start_nodes(
        &self,
        lab: &mut Lab,
        number: usize,
        limit: Duration,
    ) -> Result<Vec<(Node, Daemon)>, LabError> {
        let start = |_| {
            let node = lab.add_node()?;
            let daemon = self.start_ready(&node, limit)?;
            Ok((node, daemon))
        };
        (0..number).map(start).collect()
    }
}

/// Where a daemon of the lab answers for its health, unless it is told another port.
const HEALTH: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 10256);
/// How long it may take to end. It gives up a call that does not return within two seconds, but the kernel ends no
/// process whose thread waits for a disk, or for the lock of links and routes, which all namespaces share: a test beside
/// this one that deletes a device with thousands of peers holds it for seconds.
const END: Duration = Duration::from_secs(30);
/// How long one question may take on a busy machine.
const HTTP: Duration = Duration::from_secs(20);

/// A running `flanneld`. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: Option<Child>,
    namespace: Namespace,
    health: (Ipv4Addr, u16),
    log: PathBuf,
    started: Instant,
}

impl Daemon {
    /// Process number.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its log: what this daemon and earlier ones of its node wrote on stdout and stderr.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until `/readyz` answers 200, and returns how long that took from starting the process.
    ///
    /// # Errors
    /// It ended, or was not ready within `limit`; the text has the end of its log.
    pub fn ready(&mut self, limit: Duration) -> Result<Duration, LabError> {
        let (namespace, started, health) = (self.namespace.clone(), self.started, self.health);
        let outcome = namespace.enter(|| {
            wait_for(limit, || {
                if http_status(health, "/readyz").is_ok_and(|status| status == 200) {
                    return Some(Ok(started.elapsed()));
                }
                self.exit_status().map(|status| Err(format!("ended with {status}")))
            })
        })?;
        let outcome = outcome.unwrap_or_else(|| Err(format!("not ready after {limit:?}")));
        outcome.map_err(|problem| self.problem(&format!("{problem}\n{}", self.log_end())))
    }

    /// The status that one of its health pages answers with.
    ///
    /// # Errors
    /// Nobody answers in time.
    pub fn status(&self, page: &str) -> Result<u16, LabError> {
        let answer = self.namespace.enter(|| http_status(self.health, page))?;
        answer.map_err(LabError::system(format!("ask {page} in {}", self.namespace.name())))
    }

    /// What one of its health pages says.
    ///
    /// # Errors
    /// Nobody answers in time.
    pub fn page(&self, page: &str) -> Result<String, LabError> {
        let answer = self.namespace.enter(|| http(self.health, page))?;
        let answer = answer.map_err(LabError::system(format!("ask {page} in {}", self.namespace.name())))?;
        Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    /// Its resident memory, in KiB.
    pub fn resident_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }

    /// `kill -9`: it gets no chance to do anything. Returns when it is gone.
    ///
    /// # Errors
    /// It had ended before.
    pub fn kill(self) -> Result<(), LabError> {
        self.end(Signal::SIGKILL).map(drop)
    }

    /// Asks it to end and returns how it did.
    ///
    /// # Errors
    /// It had ended before, or is still there after 30 s; the text then has what its threads do and the end of its log.
    pub fn terminate(self) -> Result<ExitStatus, LabError> {
        self.end(Signal::SIGTERM)
    }

    /// Lets it run on when this value is dropped, for a lab that is kept.
    pub fn keep(mut self) {
        self.child = None;
    }

    /// How it ended; `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    fn end(mut self, signal: Signal) -> Result<ExitStatus, LabError> {
        if self.exit_status().is_some() {
            return Err(self.problem("had ended before it was told to"));
        }
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        if pid.and_then(|pid| kill(pid, signal).ok()).is_none() {
            return Err(self.problem("had ended before it was told to"));
        }
        wait_for(END, || self.exit_status()).ok_or_else(|| {
            let (threads, log) = (self.threads(), self.log_end());
            self.problem(&format!("did not end within {END:?}\n{threads}{log}"))
        })
    }

    fn problem(&self, problem: &str) -> LabError {
        LabError::unreadable(format!("flanneld in {}", self.namespace.name()), problem)
    }

    /// The end of its log.
    fn log_end(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(15).collect();
        tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// What each of its threads does, one on a line, and the kernel's functions that it is in (proc(5)).
    fn threads(&self) -> String {
        let tasks = self.pid().and_then(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok());
        let told = |task: fs::DirEntry| {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let state = read("status").lines().filter(|line| line.starts_with("State:")).collect::<String>();
            format!("thread {} {state}\n{}", read("comm").trim(), read("stack"))
        };
        tasks.into_iter().flatten().flatten().map(told).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The status code of `GET page`.
fn http_status(address: (Ipv4Addr, u16), page: &str) -> io::Result<u16> {
    let answer = http(address, page)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::Error::other(format!("not HTTP: {answer:?}")))
}

/// What is answered to `GET page`.
fn http(address: (Ipv4Addr, u16), page: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(address), HTTP)?;
    stream.set_read_timeout(Some(HTTP))?;
    stream.write_all(format!("GET {page} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer)?;
    Ok(answer)
}
