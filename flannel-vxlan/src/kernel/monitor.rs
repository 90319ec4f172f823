//! Notifications of changes that other programs make.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use flannel_netlink::{Incomplete, Malformed, Message, OpenError, Protocol, Received};

use crate::kernel::netlink::Netlink;
use crate::model::device::ObservedDevice;
use crate::model::mac::MacAddr;
use crate::model::objects::{ObservedFdbEntry, ObservedNexthop, ObservedRoute};
use crate::wire::uapi::*;
use crate::wire::{decode, encode};

/// The neighbor group includes FDB entries.
const GROUPS: [u32; 6] = [
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
];

/// Notifications that one call reads, at most.
const MAX_NOTIFICATIONS: usize = 4096;

/// A change of links, addresses, routes, neighbor entries, FDB entries or nexthop objects.
///
/// [`Overlay::notice`](crate::Overlay::notice) determines whether it matters.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Notification {
    /// Notifications were lost, because they arrived faster than they were read: observe everything again.
    Overflow,
    /// An interface was added or changed.
    Link(Box<ObservedDevice>),
    /// An interface was deleted.
    LinkGone {
        /// Its index.
        index: u32,
    },
    /// An address was added, changed or deleted.
    Address {
        /// Index of its interface.
        interface: u32,
        /// The address.
        address: IpAddr,
        /// Whether it was deleted.
        gone: bool,
    },
    /// A route of the main table was added, changed or deleted.
    Route {
        /// The route.
        route: ObservedRoute,
        /// Whether it was deleted.
        gone: bool,
    },
    /// A neighbor entry was added, changed or deleted.
    Neighbor {
        /// Index of its interface.
        interface: u32,
        /// Its address.
        address: IpAddr,
        /// Its MAC address; `None` if the entry has none, or is not permanent.
        mac: Option<MacAddr>,
        /// Whether it was deleted.
        gone: bool,
    },
    /// An FDB entry with a destination address was added, changed or deleted.
    FdbEntry {
        /// Index of its device.
        interface: u32,
        /// The entry.
        entry: ObservedFdbEntry,
        /// Whether it was deleted.
        gone: bool,
    },
    /// A nexthop object was added, changed or deleted.
    Nexthop {
        /// The object.
        nexthop: ObservedNexthop,
        /// Whether it was deleted.
        gone: bool,
    },
}

/// Watches links, addresses, routes, neighbor entries, FDB entries and nexthop objects. Its descriptor ([`AsFd`]) is
/// readable when there are notifications.
///
/// Open it before the first [`Overlay::converge`](crate::Overlay::converge), so that no change is missed in between.
pub struct Monitor {
    socket: flannel_netlink::Monitor,
    /// Port of the socket whose changes are ours, to subscribe again.
    #[cfg(feature = "tokio")]
    own: u32,
}

impl Monitor {
    /// Subscribes to notifications in the network namespace of the calling thread. Changes made through `ours` are filtered
    /// out in the kernel, except for links and FDB entries, for which the kernel does not report the origin.
    ///
    /// # Errors
    /// [`OpenError`] if the kernel refuses the subscription.
    ///
    /// # Kernel
    /// `ip monitor link address route neigh nexthop; bridge monitor fdb`
    pub fn open(ours: &Netlink) -> Result<Self, OpenError> {
        Self::subscribe(ours.port())
    }

    fn subscribe(own: u32) -> Result<Self, OpenError> {
        let mut groups = GROUPS.to_vec();
        groups.push(RTNLGRP_NEXTHOP);
        let socket = flannel_netlink::Monitor::open(Protocol::Route, &groups)
            .or_else(|_before_5_3| flannel_netlink::Monitor::open(Protocol::Route, &GROUPS))?;
        // The deletion of our own device is kept, because it explains earlier notifications about the device.
        // Linux 5.10 to 6.12 report each FDB entry a second time, without its address.
        let repeated =
            Incomplete { kinds: [RTM_NEWNEIGH, RTM_DELNEIGH], header: encode::NDMSG_LEN, attribute: NDA_DST };
        let filtered = socket.leave_out(own, RTM_DELLINK, Some(repeated));
        filtered.map_err(|source| OpenError { step: "filter", protocol: Protocol::Route, source })?;
        Ok(Self {
            socket,
            #[cfg(feature = "tokio")]
            own,
        })
    }

    /// Takes the notifications that have arrived, without waiting, up to a few thousand.
    ///
    /// # Errors
    /// The kernel's error, if the socket is broken. Lost notifications are [`Notification::Overflow`], not an error.
    pub fn take(&mut self) -> io::Result<Vec<Notification>> {
        let mut list = Vec::new();
        while list.len() < MAX_NOTIFICATIONS {
            match self.socket.receive()? {
                Received::Nothing => break,
                Received::Overflow => list.push(Notification::Overflow),
                Received::Messages(messages) => {
                    for message in messages {
                        match message.and_then(|message| read(&message)) {
                            Ok(notification) => list.extend(notification),
                            // A notification that cannot be decoded may be about our objects.
                            Err(_malformed) => list.push(Notification::Overflow),
                        }
                    }
                }
            }
        }
        Ok(list)
    }

    /// Turns the monitor into an async stream of notifications for tokio.
    ///
    /// # Errors
    /// The runtime cannot register the descriptor.
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

/// A [`Monitor`] as an async stream.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct MonitorStream(tokio::io::unix::AsyncFd<Monitor>);

#[cfg(feature = "tokio")]
impl MonitorStream {
    /// Waits for notifications and returns those that have arrived. Cancel safe: no notification is lost if the future is
    /// dropped.
    ///
    /// # Errors
    /// As [`Monitor::take`].
    pub async fn next(&mut self) -> io::Result<Vec<Notification>> {
        loop {
            let mut ready = self.0.readable_mut().await?;
            let list = ready.get_inner_mut().take()?;
            if list.len() < MAX_NOTIFICATIONS {
                ready.clear_ready();
            }
            if !list.is_empty() {
                return Ok(list);
            }
        }
    }

    /// Subscribes again after the socket broke. Observe everything afterwards: what changed meanwhile is not reported.
    ///
    /// # Errors
    /// As [`Monitor::open`] and [`Monitor::into_stream`]. The stream is as before then.
    pub fn reopen(&mut self) -> io::Result<()> {
        *self = Monitor::subscribe(self.0.get_ref().own).map_err(io::Error::other)?.into_stream()?;
        Ok(())
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

pub(crate) fn read(message: &Message<'_>) -> Result<Option<Notification>, Malformed> {
    Ok(match message.kind {
        RTM_NEWLINK | RTM_DELLINK => {
            // AF_BRIDGE reports a bridge port that changes or leaves its bridge, not a change of the link.
            let bridge = message.payload.first() == Some(&AF_BRIDGE);
            let (_, device) = decode::link(message)?;
            let gone = message.kind == RTM_DELLINK;
            (!bridge).then(|| match gone {
                true => Notification::LinkGone { index: device.index },
                false => Notification::Link(Box::new(device)),
            })
        }
        RTM_NEWADDR | RTM_DELADDR => {
            let gone = message.kind == RTM_DELADDR;
            decode::interface_address(message)?.map(|(interface, found)| Notification::Address {
                interface,
                address: found.address,
                gone,
            })
        }
        RTM_NEWROUTE | RTM_DELROUTE => {
            let gone = message.kind == RTM_DELROUTE;
            let found = decode::route(message)?.filter(decode::RouteMessage::is_in_main_table);
            found.map(|found| Notification::Route { route: found.route, gone })
        }
        RTM_NEWNEIGH | RTM_DELNEIGH => {
            let gone = message.kind == RTM_DELNEIGH;
            if message.payload.first() == Some(&AF_BRIDGE) {
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
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => {
            let gone = message.kind == RTM_DELNEXTHOP;
            Some(Notification::Nexthop { nexthop: decode::nexthop(message)?, gone })
        }
        _ => None,
    })
}
