//! A real etcd server on a lab's outside host.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{Lab, wait_for};

pub(crate) const ENDPOINT: &str = "http://192.168.77.254:2379";
const SOON: Duration = Duration::from_secs(15);

/// An etcd server on the outside host. Dropping it kills it.
pub(crate) struct Etcd<'a> {
    lab: &'a Lab,
    server: Child,
}

impl<'a> Etcd<'a> {
    pub(crate) fn start(lab: &'a Lab) -> Self {
        let data = lab.folder().join("etcd");
        let log = File::create(lab.folder().join("etcd.log")).unwrap();
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(data).args(["--log-level=error", "--unsafe-no-fsync"]);
        command.args([
            format!("--listen-client-urls={ENDPOINT}"),
            format!("--advertise-client-urls={ENDPOINT}"),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let server = lab.outside().spawn(&mut command).unwrap();
        let etcd = Self { lab, server };
        wait_for(SOON, || etcd.try_ctl("endpoint health").ok()).unwrap();
        etcd
    }

    /// Stops it: the kernel still accepts its connections, and nothing answers them. Dropping the result lets it go on.
    #[allow(dead_code, reason = "not every test that has an etcd stops it")]
    pub(crate) fn stop(&self) -> StoppedEtcd {
        let pid = Pid::from_raw(self.server.id().try_into().unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
        StoppedEtcd(pid)
    }

    fn try_ctl(&self, command: &str) -> Result<String, testkit::LabError> {
        self.lab.outside().sh(&format!("ETCDCTL_API=3 etcdctl --endpoints={ENDPOINT} {command} 2>/dev/null"))
    }

    pub(crate) fn ctl(&self, command: &str) -> String {
        self.try_ctl(command).unwrap()
    }

    #[allow(dead_code, reason = "not every test that has an etcd looks at the leases in it")]
    pub(crate) fn subnets(&self) -> String {
        self.ctl("get --prefix /coreos.com/network/subnets/")
    }
}

/// An etcd server that does not run; see [`Etcd::stop`].
pub(crate) struct StoppedEtcd(Pid);

impl Drop for StoppedEtcd {
    fn drop(&mut self) {
        let _resumed = kill(self.0, Signal::SIGCONT);
    }
}

impl Drop for Etcd<'_> {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
