//! What others change on this host while we look elsewhere.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use flannel_netlink::{Incomplete, Malformed, Message, Protocol, Received};

use crate::model::objects::{ObservedFdbEntry, ObservedNexthop, ObservedRoute};
use crate::wire::{self, decode};
use crate::{MacAddr, Netlink, ObservedDevice, OpenError};

/// `RTNLGRP_LINK`, `_NEIGH` (which has FDB entries too), `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`,
/// `_IPV6_ROUTE`.
const GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];
/// `RTNLGRP_NEXTHOP`, which kernels before 5.3 do not have.
const NEXTHOP: u32 = 32;

/// How much is read before the caller has its turn.
const AT_ONCE: usize = 4096;

/// A change that somebody made.
///
/// [`Overlay::notice`](crate::Overlay::notice) tells whether it matters.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Notification {
    /// Changes came faster than they were read, and some are not known: observe everything again.
    Overflow,
    /// An interface appeared or changed.
    Link(Box<ObservedDevice>),
    /// An interface disappeared.
    LinkGone {
        /// Its index.
        index: u32,
    },
    /// An address appeared, changed or disappeared.
    Address {
        /// Index of its interface.
        interface: u32,
        /// The address.
        address: IpAddr,
        /// Whether it disappeared.
        gone: bool,
    },
    /// A route of the main table.
    Route {
        /// What it says.
        route: ObservedRoute,
        /// Whether it disappeared.
        gone: bool,
    },
    /// A neighbor.
    Neighbor {
        /// Index of its interface.
        interface: u32,
        /// Its address.
        address: IpAddr,
        /// Its MAC address; `None` if it has lost it, or is no longer permanent.
        mac: Option<MacAddr>,
        /// Whether it disappeared.
        gone: bool,
    },
    /// A FDB entry that leads to an address.
    FdbEntry {
        /// Index of its device.
        interface: u32,
        /// What it says.
        entry: ObservedFdbEntry,
        /// Whether it disappeared.
        gone: bool,
    },
    /// A nexthop object.
    Nexthop {
        /// What it says.
        nexthop: ObservedNexthop,
        /// Whether it disappeared.
        gone: bool,
    },
}

/// Notifications of links, addresses, routes, neighbors, FDB entries and nexthops. Readable ([`AsFd`]) when
/// there are some.
///
/// Open it before the first [`Overlay::converge`](crate::Overlay::converge), so that nothing falls in between.
pub struct Monitor {
    socket: flannel_netlink::Monitor,
}

impl Monitor {
    /// Subscribes. The kernel does not even queue changes made through `ours`, as far as it says who made them (it
    /// does not for links and FDB entries).
    ///
    /// # Errors
    /// [`OpenError`] if the kernel refuses the subscription.
    ///
    /// # Kernel
    /// `ip monitor link address route neigh nexthop; bridge monitor fdb`
    pub fn open(ours: &Netlink) -> Result<Self, OpenError> {
        let mut groups = GROUPS.to_vec();
        groups.push(NEXTHOP);
        let socket = flannel_netlink::Monitor::open(Protocol::Route, &groups)
            .or_else(|_before_5_3| flannel_netlink::Monitor::open(Protocol::Route, &GROUPS))?;
        // That a device of ours is gone for good explains what the kernel said of it before, so that is kept.
        // On 5.10 to 6.12 each FDB entry is told a second time, without its address.
        let repeated = Incomplete {
            kinds: [wire::RTM_NEWNEIGH, wire::RTM_DELNEIGH],
            header: 12,
            attribute: wire::NDA_DST,
        };
        let filtered = socket.leave_out(ours.port(), wire::RTM_DELLINK, Some(repeated));
        filtered.map_err(|source| OpenError { step: "filter", protocol: Protocol::Route, source })?;
        Ok(Self { socket })
    }

    /// Takes the notifications there are, without waiting: a few thousand at most.
    ///
    /// # Errors
    /// The kernel's, if the socket is broken. An overflow is not an error but [`Notification::Overflow`].
    pub fn take(&mut self) -> io::Result<Vec<Notification>> {
        let mut list = Vec::new();
        while list.len() < AT_ONCE {
            match self.socket.receive()? {
                Received::Nothing => break,
                Received::Overflow => list.push(Notification::Overflow),
                Received::Messages(messages) => {
                    for message in messages {
                        match message.and_then(|message| read(&message)) {
                            Ok(notification) => list.extend(notification),
                            // What cannot be understood may have been about us.
                            Err(_malformed) => list.push(Notification::Overflow),
                        }
                    }
                }
            }
        }
        Ok(list)
    }

    /// Makes it wait for notifications in a tokio runtime.
    ///
    /// # Errors
    /// The runtime refuses the descriptor.
    ///
    /// # Panics
    /// Outside of a runtime with I/O enabled.
    #[cfg(feature = "tokio")]
    #[expect(
        unsafe_code,
        reason = "tokio cannot see that a descriptor stays the same; its safe constructors are deprecated"
    )]
    pub fn into_stream(self) -> io::Result<MonitorStream> {
        use tokio::io::{Interest, unix::AsyncFd};
        // SAFETY: the monitor owns its socket, never replaces it, and closes it only when it is dropped, which
        // `AsyncFd` does after deregistering.
        let registered = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        registered.map(MonitorStream).map_err(io::Error::from)
    }
}

/// A [`Monitor`] that can be awaited.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct MonitorStream(tokio::io::unix::AsyncFd<Monitor>);

#[cfg(feature = "tokio")]
impl MonitorStream {
    /// Waits for notifications and returns all there are. May be dropped while it waits; nothing is lost.
    ///
    /// # Errors
    /// As [`Monitor::take`].
    pub async fn next(&mut self) -> io::Result<Vec<Notification>> {
        loop {
            let mut ready = self.0.readable_mut().await?;
            let list = ready.get_inner_mut().take()?;
            if list.len() < AT_ONCE {
                ready.clear_ready();
            }
            if !list.is_empty() {
                return Ok(list);
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("fd", &self.as_raw_fd()).finish_non_exhaustive()
    }
}

fn read(message: &Message<'_>) -> Result<Option<Notification>, Malformed> {
    Ok(match message.kind {
        wire::RTM_NEWLINK | wire::RTM_DELLINK => {
            // A port that leaves or changes its bridge is reported as AF_BRIDGE, which says nothing about the link.
            let bridge = message.payload.first() == Some(&wire::AF_BRIDGE);
            let (_, device) = decode::link(message)?;
            let gone = message.kind == wire::RTM_DELLINK;
            (!bridge).then(|| match gone {
                true => Notification::LinkGone { index: device.index },
                false => Notification::Link(Box::new(device)),
            })
        }
        wire::RTM_NEWADDR | wire::RTM_DELADDR => {
            let gone = message.kind == wire::RTM_DELADDR;
            decode::interface_address(message)?.map(|(interface, found)| Notification::Address {
                interface,
                address: found.address,
                gone,
            })
        }
        wire::RTM_NEWROUTE | wire::RTM_DELROUTE => {
            let gone = message.kind == wire::RTM_DELROUTE;
            let main = |found: &decode::RouteMessage| found.table == u32::from(wire::RT_TABLE_MAIN);
            decode::route(message)?.filter(main).map(|found| Notification::Route { route: found.route, gone })
        }
        wire::RTM_NEWNEIGH | wire::RTM_DELNEIGH => {
            let gone = message.kind == wire::RTM_DELNEIGH;
            if message.payload.first() == Some(&wire::AF_BRIDGE) {
                decode::fdb_entry(message)?.map(|(interface, entry)| Notification::FdbEntry {
                    interface,
                    entry,
                    gone,
                })
            } else {
                decode::any_neighbor(message)?.map(|found| Notification::Neighbor {
                    interface: found.interface,
                    address: found.address,
                    mac: found.mac.filter(|_| found.permanent),
                    gone,
                })
            }
        }
        wire::RTM_NEWNEXTHOP | wire::RTM_DELNEXTHOP => {
            let gone = message.kind == wire::RTM_DELNEXTHOP;
            Some(Notification::Nexthop { nexthop: decode::nexthop(message)?, gone })
        }
        _ => None,
    })
}
