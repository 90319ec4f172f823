//! What an API server keeps its objects in.

use std::path::Path;
use std::process::{Child, Command};

use super::{assets, spawn};
use crate::{LabError, Namespace, setting};

/// Starts etcd, or, with `KUBE_DATASTORE=kine`, kine with SQLite, which k3s has in its place. Listens on these ports of
/// the loopback interface.
pub(super) fn start(
    namespace: Option<&Namespace>,
    folder: &Path,
    [client, peer]: [u16; 2],
) -> Result<Child, LabError> {
    let assets = assets()?;
    let log = folder.join("datastore.log");
    if setting("KUBE_DATASTORE").as_deref() == Some("kine") {
        let mut command = Command::new(assets.join("kine"));
        command.args([
            format!("--endpoint=sqlite://{}?_journal=WAL&cache=shared", folder.join("kine.db").display()),
            format!("--listen-address=tcp://127.0.0.1:{client}"),
            "--metrics-bind-address=0".to_owned(),
        ]);
        return spawn(namespace, &mut command, &log);
    }
    let program = assets.join("etcd");
    let help = Command::new(&program).arg("--help").output();
    let help = help.map_err(LabError::system(format!("start {}", program.display())))?;
    let help = String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).into_owned();
    let progress = ["--watch-progress-notify-interval", "--experimental-watch-progress-notify-interval"];
    let progress = progress.iter().find(|flag| help.contains(&format!(" {flag} ")));
    let url = |port| format!("http://127.0.0.1:{port}");
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(folder.join("etcd")).arg("--unsafe-no-fsync").args([
        format!("--listen-client-urls={}", url(client)),
        format!("--advertise-client-urls={}", url(client)),
        format!("--listen-peer-urls={}", url(peer)),
    ]);
    // As kubeadm: bookmarks then have the version of the whole store.
    command.args(progress.map(|flag| format!("{flag}=5s")));
    spawn(namespace, &mut command, &log)
}
