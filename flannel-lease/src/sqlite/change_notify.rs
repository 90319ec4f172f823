//! Tells other processes that the lease file has changed, within milliseconds and without polling.
//!
//! Changes of the database files come too early: SQLite writes them before other processes can read the change. So a
//! writer touches a separate file after each commit. Periodic rechecks cover a writer that is killed in between.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe;

/// Notifies all processes that watch the lease file at `db`.
pub(super) fn notify(db: &Path) -> io::Result<()> {
    let file = File::options().write(true).create(true).truncate(false).open(notify_path(db))?;
    file.write_all_at(b"\n", 0)
}

/// Hears [`notify`] of every process, from the moment it exists.
#[derive(Debug)]
pub(super) struct ChangeNotify {
    path: PathBuf,
    inotify: Inotify,
    /// The same queue, as something to wait for: like a pipe, it is read in chunks and says when there is one.
    queue: pipe::Receiver,
}

impl ChangeNotify {
    pub(super) fn listen(db: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let queue = pipe::Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
        let change_notify = Self { path: notify_path(db), inotify, queue };
        change_notify.watch()?;
        Ok(change_notify)
    }

    /// Waits for a notification, at most this long. Notifications since the last wait count, and several count as one.
    pub(super) async fn wait(&self, at_most: Duration) {
        if self.watch().is_err() {
            return tokio::time::sleep(at_most).await;
        }
        if let Ok(Ok(())) = tokio::time::timeout(at_most, self.queue.readable()).await {
            // The events carry nothing of use; they only have to be drained.
            while self.queue.try_read(&mut [0; 4096]).is_ok() {}
        }
    }

    /// Follows the path, in case somebody removed the file. The kernel keeps one watch for each inode.
    fn watch(&self) -> io::Result<()> {
        File::options().write(true).create(true).truncate(false).open(&self.path)?;
        let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_DELETE_SELF;
        self.inotify.add_watch(&self.path, changes)?;
        Ok(())
    }
}

fn notify_path(db: &Path) -> PathBuf {
    let mut path = db.as_os_str().to_owned();
    path.push("-changed");
    path.into()
}
