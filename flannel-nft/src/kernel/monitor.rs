//! What others do to the ruleset.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
#[cfg(feature = "tokio")]
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use flannel_netlink::{Malformed, Message, Protocol, Received};

use crate::error::ObserveError;
use crate::model::ids::Generation;
use crate::transaction::change::{Change, Reader};
use crate::uapi::*;
use crate::wire::message as kind;

/// One commit of somebody else.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// The generation it made.
    pub generation: Generation,
    /// Process that made it, 0 if unknown.
    pub pid: u32,
    /// Name of that process, as in `/proc/PID/comm`; empty if unknown.
    pub process: String,
    /// What it changed, as far as this crate has words for it.
    pub changes: Vec<Change>,
}

/// What the monitor has to say.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody else changed the ruleset.
    Foreign(Foreign),
    /// Changes came faster than they were read, and some are lost: observe everything.
    Overflow,
}

/// Watches all changes of the ruleset but our own.
///
/// Open it before you observe, so that nothing is missed in between. Readable (`AsFd`) when there is something.
#[derive(Debug)]
pub struct Monitor {
    socket: flannel_netlink::Monitor,
    own: Vec<u32>,
    ready: VecDeque<Event>,
    /// Changes of a commit whose end has not come yet.
    open: Vec<Change>,
    reader: Reader,
}

impl Monitor {
    /// Watches the network namespace that the calling thread is in. Commits through sockets with the ports `own`
    /// ([`Netlink::port`](crate::Netlink::port)) are left out.
    ///
    /// # Errors
    /// [`ObserveError::Open`].
    pub fn open(own: &[u32]) -> Result<Self, ObserveError> {
        let socket = flannel_netlink::Monitor::open(Protocol::Netfilter, &[NFNLGRP_NFTABLES])
            .map_err(ObserveError::Open)?;
        Ok(Self {
            socket,
            own: own.to_vec(),
            ready: VecDeque::new(),
            open: Vec::new(),
            reader: Reader::default(),
        })
    }

    /// Takes the next event without waiting; `None` if there is none now.
    ///
    /// # Errors
    /// The kernel's, if the socket is broken.
    pub fn poll(&mut self) -> io::Result<Option<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            match self.socket.receive()? {
                Received::Nothing => return Ok(None),
                Received::Overflow => {
                    self.open.clear();
                    return Ok(Some(Event::Overflow));
                }
                Received::Messages(messages) => {
                    for message in messages {
                        let Ok(message) = message else {
                            self.ready.push_back(Event::Overflow);
                            break;
                        };
                        if self.own.contains(&message.port) {
                            continue;
                        }
                        if message.kind == kind::NEWGEN {
                            let changes = std::mem::take(&mut self.open);
                            self.reader = Reader::default();
                            let event = end(&message, changes).map_or(Event::Overflow, Event::Foreign);
                            self.ready.push_back(event);
                        } else if let Ok(Some(change)) = self.reader.read(&message) {
                            self.open.push(change);
                        }
                    }
                }
            }
        }
    }

    /// The same as a stream of events for tokio.
    ///
    /// # Errors
    /// If no tokio runtime with I/O is running.
    #[cfg(feature = "tokio")]
    pub fn into_stream(self) -> io::Result<MonitorStream> {
        let interest = tokio::io::Interest::READABLE;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; this descriptor stays the same until it is closed"
        )]
        tokio::io::unix::AsyncFd::with_interest(self, interest).map(MonitorStream)
    }
}

fn end(message: &Message<'_>, changes: Vec<Change>) -> Result<Foreign, Malformed> {
    let mut foreign = Foreign { generation: Generation(0), pid: 0, process: String::new(), changes };
    let (_, attributes) = message.split::<4>()?;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_GEN_ID => foreign.generation = Generation(attribute.be32()?),
            NFTA_GEN_PROC_PID => foreign.pid = attribute.be32()?,
            NFTA_GEN_PROC_NAME => attribute.text()?.clone_into(&mut foreign.process),
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

/// Events for tokio: a [`Stream`](futures_core::Stream) that ends only with the kernel's error, should the socket break.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct MonitorStream(tokio::io::unix::AsyncFd<Monitor>);

#[cfg(feature = "tokio")]
impl MonitorStream {
    /// Waits for the next event, without an extension trait. May be dropped while waiting without losing one.
    ///
    /// # Errors
    /// The kernel's, if the socket is broken.
    pub async fn next(&mut self) -> io::Result<Event> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        loop {
            if let Some(event) = self.0.get_mut().poll()? {
                return Poll::Ready(Ok(event));
            }
            let mut ready = ready!(self.0.poll_read_ready_mut(cx))?;
            // Forget readiness only if there is nothing: what comes after that look wakes us again.
            match ready.get_inner_mut().poll()? {
                Some(event) => return Poll::Ready(Ok(event)),
                None => ready.clear_ready(),
            }
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
