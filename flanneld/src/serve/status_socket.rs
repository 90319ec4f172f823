//! The local unix socket: a running daemon sends its [`Status`] to each client as one JSON text.

use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use tracing::debug;

use crate::status::model::Status;
use crate::status::query::StatusQuery;

/// Longest time for a client to read the answer. The next client waits in the kernel's queue.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time to wait for the daemon's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer: some hundred bytes for each of a hundred thousand peers.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// The socket; its file goes when the value does.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Number of the file, as the daemon that comes next may already have put its own in this place.
    inode: u64,
}

impl Socket {
    /// Makes the socket, for its owner only, in place of one that an earlier daemon left.
    ///
    /// # Errors
    /// The folder cannot be made or written to. [`io::ErrorKind::AddrInUse`]: another program listens there, or what
    /// stands there is no socket; it is left alone.
    pub async fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if is_abandoned(path).await {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        // Until then its mode is what umask leaves; connecting gives away nothing that root alone may know.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned(), inode: std::fs::metadata(path)?.ino() })
    }

    /// Answers one client after the other until the task is dropped.
    pub async fn serve(self, status_query: StatusQuery) {
        loop {
            let told: io::Result<()> = async {
                let (mut stream, _) = self.listener.accept().await?;
                let Some(status) = status_query.ask(true).await else { return Ok(()) };
                let text = serde_json::to_vec(&*status)?;
                tokio::time::timeout(READ_TIMEOUT, stream.write_all(&text)).await??;
                Ok(())
            }
            .await;
            if let Err(error) = told {
                debug!(%error, "status was not told");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Whether `path` is a socket without a listener, as a killed daemon leaves it.
pub async fn is_abandoned(path: &Path) -> bool {
    // The kernel refuses connections to any other file in the same words.
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket());
    // One whose queue is full (EAGAIN) has a listener, and so has one that takes datagrams (EPROTOTYPE); unix(7).
    let answer = tokio::net::UnixStream::connect(path).await;
    is_socket && answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

impl Drop for Socket {
    fn drop(&mut self) {
        if std::fs::metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            // One that is gone already is as good.
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

/// Why a running daemon did not report its status.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No daemon listens at this socket, or it may not be connected to.
    #[error("no flanneld answers at {path}: start it, or pass the --subnet-file of the one that runs")]
    Absent {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// It said nothing in time.
    #[error("flanneld at {path} does not answer: see its log and /readyz")]
    Silent {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// What it said is no status.
    #[error(
        "flanneld at {path} sent no readable status: its reconcile loop hangs, or its version is not this program's; see its log"
    )]
    Unreadable {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Asks the daemon that listens at `path`, [`crate::status::model::socket`]. Waits for 10 s at most.
///
/// # Errors
/// [`AskError`]
pub fn ask(path: &Path) -> Result<Status, AskError> {
    let stream =
        UnixStream::connect(path).map_err(|source| AskError::Absent { path: path.to_owned(), source })?;
    let mut text = Vec::new();
    stream
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .and_then(|()| stream.take(MAX_ANSWER_BYTES).read_to_end(&mut text))
        .map_err(|source| AskError::Silent { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| AskError::Unreadable { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::sync::{mpsc, watch};

    use super::*;

    async fn daemon(path: &Path) -> tokio::task::JoinHandle<()> {
        let (requests, mut asked) = mpsc::channel::<crate::status::snapshot::StatusRequest>(4);
        tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                let status = Status { node: "worker-1".to_owned(), ..Status::default() };
                let _gone = question.answer.send(Box::new(status));
            }
        });
        let status_query = StatusQuery::new(requests, watch::channel(Instant::now()).1);
        tokio::spawn(Socket::open(path).await.expect("a socket").serve(status_query))
    }

    #[tokio::test]
    async fn every_client_gets_the_status_even_after_one_that_reads_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run/subnet.sock");
        let daemon = daemon(&path).await;
        assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        let _mute = UnixStream::connect(&path).expect("a connection");
        for _ in 0..3 {
            let path = path.clone();
            let status = tokio::task::spawn_blocking(move || ask(&path)).await.expect("ended");
            assert_eq!(status.expect("a status").node, "worker-1");
        }
        daemon.abort();
        let _ended = daemon.await;
        assert!(!path.exists(), "the socket's file is left");
        assert!(matches!(ask(&path), Err(AskError::Absent { .. })));
    }

    #[tokio::test]
    async fn a_socket_that_another_daemon_left_is_replaced_and_that_of_its_successor_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("subnet.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        assert!(matches!(ask(&path), Err(AskError::Absent { .. })));
        let older = daemon(&path).await;
        std::fs::remove_file(&path).expect("removed");
        let _daemon = daemon(&path).await;
        older.abort();
        let _ended = older.await;
        let status = tokio::task::spawn_blocking(move || ask(&path)).await.expect("ended");
        assert_eq!(status.expect("a status").node, "worker-1");
    }

    #[tokio::test]
    async fn a_socket_with_a_listener_and_other_files_are_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, stream, datagram) =
            (folder.path().join("file"), folder.path().join("stream"), folder.path().join("datagram"));
        std::fs::write(&file, "theirs").expect("written");
        // Nobody takes the connections off its queue: at some point it is full.
        let _listener = std::os::unix::net::UnixListener::bind(&stream).expect("a socket");
        let _receiver = std::os::unix::net::UnixDatagram::bind(&datagram).expect("a socket");
        for path in [&file, &stream, &datagram] {
            let before = std::fs::symlink_metadata(path).expect("a file").ino();
            let mut waiting = Vec::new();
            for _ in 0..200 {
                waiting.push(tokio::net::UnixStream::connect(path).await);
                let refused = Socket::open(path).await.expect_err("taken");
                assert_eq!(refused.kind(), io::ErrorKind::AddrInUse, "{}", path.display());
            }
            assert_eq!(std::fs::symlink_metadata(path).expect("a file").ino(), before);
        }
    }
}
