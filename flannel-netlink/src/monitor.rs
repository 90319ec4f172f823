//! Notifications of changes by other sockets.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use neli::socket::NlSocket;
use neli::utils::Groups;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use crate::socket::{borrow, receive};
use crate::uapi::*;
use crate::{Errno, MessageIter, OpenError, Protocol, messages};

/// Receive buffer for about 20,000 notifications. The kernel doubles the size, and counts about 800
/// bytes for a small notification. It uses memory only while notifications wait.
const BUFFER: usize = 8 * 1024 * 1024;

/// The result of [`Monitor::receive`].
#[derive(Debug)]
pub enum Received<'a> {
    /// Notifications, in the order of the changes.
    Messages(MessageIter<'a>),
    /// Notifications arrived faster than they were read, and the kernel dropped some: observe
    /// everything again.
    Overflow,
    /// There are no notifications.
    Nothing,
}

/// Notifications to drop because they lack an attribute.
#[derive(Clone, Copy, Debug)]
pub struct Incomplete {
    /// Message types, e.g. `RTM_NEWNEIGH` and `RTM_DELNEIGH`.
    pub kinds: [u16; 2],
    /// Length of the family header before their attributes, in bytes.
    pub header: u8,
    /// Type of the required attribute.
    pub attribute: u16,
}

impl Incomplete {
    /// Continues with the next instruction, or with the fifth of the next ones: `RETURN 0`.
    fn program(self) -> [libc::sock_filter; 7] {
        let [one, other] = self.kinds.map(|kind| u32::from(kind.to_be()));
        [
            step(LOAD_HALF, 0, 0, 4),
            step(JUMP_EQUAL, 1, 0, one),
            step(JUMP_EQUAL, 0, 4, other),
            step(LOAD, 0, 0, 16 + u32::from(self.header)),
            step(LOAD_INDEX, 0, 0, self.attribute.into()),
            step(LOAD_WORD, 0, 0, FIND_ATTRIBUTE),
            step(JUMP_EQUAL, 4, 0, 0),
        ]
    }
}

const LOAD: u16 = BPF_LD | BPF_W | BPF_IMM;
const LOAD_INDEX: u16 = BPF_LDX | BPF_W | BPF_IMM;
const LOAD_WORD: u16 = BPF_LD | BPF_W | BPF_ABS;
const LOAD_HALF: u16 = BPF_LD | BPF_H | BPF_ABS;
const JUMP_EQUAL: u16 = BPF_JMP | BPF_JEQ | BPF_K;
const RETURN: u16 = BPF_RET | BPF_K;
/// Loads the offset of the attribute whose type is in the index register; 0 if there is none.
const FIND_ATTRIBUTE: u32 = (SKF_AD_OFF + SKF_AD_NLATTR).cast_unsigned();

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// A socket that receives the notifications of multicast groups. Readable ([`AsFd`]) when there are
/// some.
pub struct Monitor {
    socket: NlSocket,
    receive: Vec<u8>,
}

impl Monitor {
    /// Subscribes to `groups`, by number (`RTNLGRP_*`, `NFNLGRP_*`). Subscribe before the first
    /// observation, so that no change falls in between.
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
        socket
            .add_mcast_membership(Groups::new_groups(groups))
            .map_err(fail("subscribe to the notifications of"))?;
        socket.nonblock().map_err(fail("configure"))?;
        Ok(Self { socket, receive: vec![0; 32 * 1024] })
    }

    /// Makes the kernel drop notifications of changes that were made through the socket with this
    /// [port](crate::Socket::port), except messages of type `kept`. So a program that writes a lot
    /// does not fill its own monitor. Notifications that do not name their writer still arrive,
    /// unless they are `incomplete`.
    ///
    /// # Errors
    /// The kernel's error if it refuses the filter.
    ///
    /// # Kernel
    /// A classic BPF program, which runs before a notification is queued (`do_one_broadcast`,
    /// net/netlink/af_netlink.c at v6.12).
    pub fn leave_out(&self, port: u32, kept: u16, incomplete: Option<Incomplete>) -> io::Result<()> {
        let mut program = incomplete.map(Incomplete::program).into_iter().flatten().collect::<Vec<_>>();
        // Loads are in network byte order, netlink headers in host byte order: nlmsg_type at 4,
        // nlmsg_pid at 12.
        program.extend([
            step(LOAD_WORD, 0, 0, 12),
            step(JUMP_EQUAL, 0, 3, port.to_be()),
            step(LOAD_HALF, 0, 0, 4),
            step(JUMP_EQUAL, 1, 0, kept.to_be().into()),
            step(RETURN, 0, 0, 0),
            step(RETURN, 0, 0, u32::MAX),
        ]);
        let len = u16::try_from(program.len()).map_err(io::Error::other)?;
        attach(&self.socket, &libc::sock_fprog { len, filter: program.as_mut_ptr() })
    }

    /// Receives the next datagram of notifications, without waiting.
    ///
    /// # Errors
    /// The kernel's error if the socket is broken. An overflow is not an error but
    /// [`Received::Overflow`].
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

#[expect(unsafe_code, reason = "nix has no SO_ATTACH_FILTER")]
fn attach(socket: &NlSocket, filter: &libc::sock_fprog) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).map_err(io::Error::other)?;
    // SAFETY: the option value is a `sock_fprog` of the given length. The program that it points to
    // outlives the call, in which the kernel copies both.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(filter).cast(),
            length,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
