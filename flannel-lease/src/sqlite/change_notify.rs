//! Tells other processes that the lease file has changed, within milliseconds and without polling.
//!
//! Changes of the database files come too early: SQLite writes them before other processes can read the change. So a
//! writer touches a separate file after each commit. Periodic rechecks cover a writer that is killed in between.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe;

/// Notifies all processes that watch the lease file at `db`.
pub(super) fn notify(db: &Path) -> io::Result<()> {
    open(&notify_path(db))?.write_all_at(b"\n", 0)
}

/// Opens the notification file, making it if there is none. A user who may write to its folder can put a link or a pipe
/// there: flanneld neither follows a symbolic link, nor writes to a file that has another name, nor waits for a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(false).custom_flags(flags.bits()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() > 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file with one name"));
    }
    Ok(file)
}

/// Receives [`notify`] of every process, from the moment it exists.
#[derive(Debug)]
pub(super) struct ChangeNotify {
    path: PathBuf,
    inotify: Option<Queue>,
    failing: bool,
}

/// The same queue twice, the second time as something to wait for: like a pipe, it is read in chunks and says when
/// there is one.
#[derive(Debug)]
struct Queue(Inotify, pipe::Receiver);

impl ChangeNotify {
    pub(super) fn new(db: &Path) -> Self {
        let mut change_notify = Self { path: notify_path(db), inotify: None, failing: false };
        let result = change_notify.listen();
        change_notify.note(result);
        change_notify
    }

    /// Waits for a notification, at most this long. Notifications since the last wait count, and several count as one.
    /// While nothing can be received, it waits that long.
    pub(super) async fn wait(&mut self, at_most: Duration) {
        let result = self.listen();
        self.note(result);
        let Some(Queue(_, queue)) = self.inotify.as_ref().filter(|_| !self.failing) else {
            return tokio::time::sleep(at_most).await;
        };
        if let Ok(Ok(())) = tokio::time::timeout(at_most, queue.readable()).await {
            // The events carry nothing of use; they only have to be drained.
            while queue.try_read(&mut [0; 4096]).is_ok() {}
        }
    }

    /// Follows the path, in case another process removed the file. The kernel keeps one watch for each inode.
    fn listen(&mut self) -> io::Result<()> {
        if self.inotify.is_none() {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            let queue = pipe::Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
            self.inotify = Some(Queue(inotify, queue));
        }
        open(&self.path)?;
        let changes =
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_DONT_FOLLOW;
        if let Some(Queue(inotify, _)) = &self.inotify {
            inotify.add_watch(&self.path, changes)?;
        }
        Ok(())
    }

    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = &result
            && !self.failing
        {
            tracing::info!(
                "cannot watch {}; flanneld sees changes of other nodes up to 10 seconds later, when it reads the lease file again, \
                 and retries: {error}",
                self.path.display()
            );
        }
        self.failing = result.is_err();
    }
}

fn notify_path(db: &Path) -> PathBuf {
    let mut path = db.as_os_str().to_owned();
    path.push("-changed");
    path.into()
}
