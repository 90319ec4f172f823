//! Tells other processes that the lease file has changed, within milliseconds and without polling.
//!
//! The database files themselves would ring too early: their last write comes before the change can be read. So a
//! writer touches a file of its own after each commit. A writer killed in between is made up for by rechecking.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe;

/// Tells everybody who waits on the bell of the lease file at `db`.
pub(super) fn ring(db: &Path) -> io::Result<()> {
    let file = File::options().write(true).create(true).truncate(false).open(bell_path(db))?;
    file.write_all_at(b"\n", 0)
}

/// Hears [`ring`] of every process, from the moment it exists.
#[derive(Debug)]
pub(super) struct Bell {
    path: PathBuf,
    inotify: Inotify,
    /// The same queue, as something to wait for: like a pipe, it is read in chunks and says when there is one.
    queue: pipe::Receiver,
}

impl Bell {
    pub(super) fn listen(db: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let queue = pipe::Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
        let bell = Self { path: bell_path(db), inotify, queue };
        bell.watch()?;
        Ok(bell)
    }

    /// Waits for a ring, at most this long. A ring since the last wait counts. Several count as one.
    pub(super) async fn wait(&self, at_most: Duration) {
        if self.watch().is_err() {
            return tokio::time::sleep(at_most).await;
        }
        if let Ok(Ok(())) = tokio::time::timeout(at_most, self.queue.readable()).await {
            // What rang is known; only emptying the queue matters.
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

fn bell_path(db: &Path) -> PathBuf {
    let mut path = db.as_os_str().to_owned();
    path.push("-changed");
    path.into()
}
