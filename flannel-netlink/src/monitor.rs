//! Notifications: what others change while we look elsewhere.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use neli::socket::NlSocket;
use neli::utils::Groups;
use nix::sys::socket::{setsockopt, sockopt};

use crate::socket::{borrow, receive};
use crate::{Errno, MessageIter, OpenError, Protocol, messages};

/// Room for about 10 000 notifications.
const BUFFER: usize = 4 * 1024 * 1024;

/// What [`Monitor::receive`] found.
#[derive(Debug)]
pub enum Received<'a> {
    /// Notifications, in the order of the changes.
    Messages(MessageIter<'a>),
    /// Notifications came faster than they were read, and some are lost: observe everything again.
    Overflow,
    /// There is none now.
    Nothing,
}

/// A socket that is subscribed to multicast groups. Readable ([`AsFd`]) when there is something to receive.
pub struct Monitor {
    socket: NlSocket,
    receive: Vec<u8>,
}

impl Monitor {
    /// Subscribes to `groups`, given by number (`RTNLGRP_*`, `NFNLGRP_*`). Changes made from now on are reported;
    /// so subscribe first, then observe.
    ///
    /// # Errors
    /// [`OpenError`] if the kernel lacks the protocol or a group.
    pub fn open(protocol: Protocol, groups: &[u32]) -> Result<Self, OpenError> {
        let fail = |step| move |source| OpenError { step, protocol, source };
        let socket = NlSocket::connect(protocol.family(), None, Groups::empty()).map_err(fail("open"))?;
        let fd = borrow(&socket);
        if setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).is_err() {
            let _limited = setsockopt(&fd, sockopt::RcvBuf, &BUFFER);
        }
        socket.add_mcast_membership(Groups::new_groups(groups)).map_err(fail("subscribe"))?;
        socket.nonblock().map_err(fail("configure"))?;
        Ok(Self { socket, receive: vec![0; 32 * 1024] })
    }

    /// Takes the next datagram of notifications, without waiting.
    ///
    /// # Errors
    /// The kernel's, if the socket is broken; an overflow is not an error but [`Received::Overflow`].
    pub fn receive(&mut self) -> io::Result<Received<'_>> {
        match receive(&self.socket, &mut self.receive) {
            Ok(length) => Ok(Received::Messages(messages(self.receive.get(..length).unwrap_or_default()))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) if error.raw_os_error().map(Errno::from_raw) == Some(Errno::ENOBUFS) => {
                Ok(Received::Overflow)
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.socket)
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("fd", &self.socket.as_raw_fd()).finish_non_exhaustive()
    }
}
