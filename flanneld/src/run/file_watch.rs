//! Waits for changes of a file that other processes replace, remove or write.

use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flannel_lease::Chain;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe;
use tracing::info;

use crate::file;

/// How often the file is read although the kernel reports no change: its folder may have been replaced.
const RECHECK_INTERVAL: Duration = Duration::from_secs(60);
/// How often the file is read if the kernel gives no inotify instance (fs.inotify.max_user_instances).
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// How long a file that changes is left to settle.
const SETTLE_DELAY: Duration = Duration::from_millis(50);

/// Reports changes in a file's folder: of the file itself, and of the link that Kubernetes swaps when a ConfigMap
/// changes (`..data`), in the same directory, where the mounted file is itself a link.
#[derive(Debug)]
pub(super) struct FileWatch {
    folder: PathBuf,
    inotify: Option<(Inotify, pipe::Receiver)>,
}

impl FileWatch {
    pub(super) fn new(path: &Path) -> Self {
        let folder = file::directory_of(path).to_owned();
        let open = || -> io::Result<_> {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            let queue = pipe::Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
            Ok((inotify, queue))
        };
        let inotify = open()
            .inspect_err(|error| {
                info!(
                    "cannot watch {} for changes; flanneld reads it every {POLL_INTERVAL:?} instead: {}",
                    path.display(),
                    Chain(error)
                );
            })
            .ok();
        let watch = Self { folder, inotify };
        watch.listen();
        watch
    }

    /// Follows the path, in case the folder was replaced. The kernel keeps one watch for each inode.
    fn listen(&self) {
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        if let Some((inotify, _)) = &self.inotify {
            // Without it there is still the slow look.
            let _missing = inotify.add_watch(&self.folder, changes);
        }
    }

    /// Waits until something in the folder has changed, at most [`RECHECK_INTERVAL`], or [`POLL_INTERVAL`]
    /// without inotify.
    pub(super) async fn changed(&mut self) {
        self.listen();
        let Some((_, queue)) = &self.inotify else { return tokio::time::sleep(POLL_INTERVAL).await };
        if let Ok(Ok(())) = tokio::time::timeout(RECHECK_INTERVAL, queue.readable()).await {
            tokio::time::sleep(SETTLE_DELAY).await;
            while queue.try_read(&mut [0; 4096]).is_ok() {}
        }
    }
}
