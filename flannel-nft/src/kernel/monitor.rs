//! Notifications of commits by other processes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
#[cfg(feature = "tokio")]
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use flannel_netlink::{Malformed, Message, OpenError, Protocol, Received};

use crate::kernel::netlink::Netlink;
use crate::model::ids::Generation;
use crate::model::name::escaped;
use crate::transaction::change::{Change, Reader};
use crate::uapi::*;
use crate::wire::message as kind;

/// Most events that [`Monitor::take`] returns at once, so that the caller gets its turn.
const MAX_EVENTS: usize = 4096;

/// One commit of another process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Foreign {
    /// The generation that the commit made.
    pub generation: Generation,
    /// Process ID of the writer; 0 if the kernel does not report it.
    pub pid: u32,
    /// Name of that process, as in `/proc/PID/comm`; empty if the kernel does not report it.
    pub process: String,
    /// The changes, as far as this crate has types for them.
    pub changes: Vec<Change>,
}

/// What a [`Monitor`] reports.
#[derive(Clone, Debug)]
pub enum Event {
    /// Another process committed changes.
    Foreign(Foreign),
    /// Changes came faster than they were read, and the kernel dropped some of them: observe
    /// everything again.
    Overflow,
}

/// Receives the commits of other processes in a network namespace. Readable ([`AsFd`]) when there
/// are some.
///
/// Open it before the first [`observe`](crate::observe), so that no change falls in between.
#[derive(Debug)]
pub struct Monitor {
    socket: flannel_netlink::Monitor,
    /// Port of the socket whose commits are ours.
    own: u32,
    /// Changes of a commit whose end has not arrived yet.
    open: Vec<Change>,
    reader: Reader,
}

impl Monitor {
    /// Subscribes to the ruleset of the network namespace that the calling thread is in, except to
    /// commits made through `ours`.
    ///
    /// # Errors
    /// [`OpenError`] if the kernel refuses the subscription.
    ///
    /// # Kernel
    /// `nft monitor`
    pub fn open(ours: &Netlink) -> Result<Self, OpenError> {
        Self::subscribe(ours.port())
    }

    fn subscribe(own: u32) -> Result<Self, OpenError> {
        let socket = flannel_netlink::Monitor::open(Protocol::Netfilter, &[NFNLGRP_NFTABLES])?;
        Ok(Self { socket, own, open: Vec::new(), reader: Reader::default() })
    }

    /// Takes the events that have arrived, without waiting; 4096 at most.
    ///
    /// # Errors
    /// The kernel's error if the socket is broken. An overflow is not an error but
    /// [`Event::Overflow`].
    pub fn take(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        while events.len() < MAX_EVENTS {
            match self.socket.receive()? {
                Received::Nothing => break,
                Received::Overflow => {
                    self.open.clear();
                    events.push(Event::Overflow);
                }
                Received::Messages(messages) => {
                    for message in messages {
                        let Ok(message) = message else {
                            events.push(Event::Overflow);
                            break;
                        };
                        if message.port == self.own {
                            continue;
                        }
                        if message.kind == kind::NEWGEN {
                            let changes = std::mem::take(&mut self.open);
                            self.reader = Reader::default();
                            events.push(commit(&message, changes).map_or(Event::Overflow, Event::Foreign));
                        } else if let Ok(Some(change)) = self.reader.read(&message) {
                            self.open.push(change);
                        }
                    }
                }
            }
        }
        Ok(events)
    }

    /// Makes an async stream of it, for tokio.
    ///
    /// # Errors
    /// The runtime refuses the descriptor.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    #[cfg(feature = "tokio")]
    pub fn into_stream(self) -> io::Result<MonitorStream> {
        let interest = tokio::io::Interest::READABLE;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; this descriptor stays the same until it is closed"
        )]
        let fd = tokio::io::unix::AsyncFd::with_interest(self, interest)?;
        Ok(MonitorStream { fd, ready: VecDeque::new() })
    }
}

/// The commit that this `NFT_MSG_NEWGEN` ends.
fn commit(message: &Message<'_>, changes: Vec<Change>) -> Result<Foreign, Malformed> {
    let mut foreign = Foreign { generation: Generation(0), pid: 0, process: String::new(), changes };
    let (_, attributes) = message.split::<4>()?;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_GEN_ID => foreign.generation = Generation(attribute.be32()?),
            NFTA_GEN_PROC_PID => foreign.pid = attribute.be32()?,
            NFTA_GEN_PROC_NAME => foreign.process = escaped(attribute.string()),
            _ => {}
        }
    }
    Ok(foreign)
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

/// A [`Monitor`] as an async [`Stream`](futures_core::Stream). It ends only if the socket breaks,
/// with the kernel's error.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct MonitorStream {
    fd: tokio::io::unix::AsyncFd<Monitor>,
    /// Events that were taken and not yet returned.
    ready: VecDeque<Event>,
}

#[cfg(feature = "tokio")]
impl MonitorStream {
    /// Waits for the next event, without an extension trait. Cancel safe: dropping the future loses
    /// no event.
    ///
    /// # Errors
    /// As [`Monitor::take`].
    pub async fn next(&mut self) -> io::Result<Event> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Subscribes again after the socket broke. Observe everything afterwards: what changed meanwhile is not
    /// reported.
    ///
    /// # Errors
    /// As [`Monitor::open`] and [`Monitor::into_stream`]. The stream is as before then.
    pub fn reopen(&mut self) -> io::Result<()> {
        *self = Monitor::subscribe(self.fd.get_ref().own).map_err(io::Error::other)?.into_stream()?;
        Ok(())
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Ok(event));
            }
            let mut readable = ready!(self.fd.poll_read_ready_mut(cx))?;
            let events = readable.get_inner_mut().take()?;
            // Only if nothing is left: what arrives after this look wakes the task again.
            if events.len() < MAX_EVENTS {
                readable.clear_ready();
            }
            self.ready.extend(events);
        }
    }
}

#[cfg(feature = "tokio")]
impl futures_core::Stream for MonitorStream {
    type Item = io::Result<Event>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(cx).map(Some)
    }
}
