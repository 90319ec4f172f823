//! The socket: sends batches and requests, and matches the replies.

use std::fmt;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::fd::{AsRawFd, BorrowedFd};

use neli::consts::socket::Msg;
use neli::socket::NlSocket;
use neli::utils::Groups;
use nix::sys::socket::{setsockopt, sockopt};

use crate::Protocol;
use crate::uapi::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};
use crate::{
    AskError, Batch, DumpError, Errno, LostReply, Malformed, Message, OpenError, Refusal, TransactError,
    messages,
};

/// Number of attempts of a dump that other writers interrupt. At 1,000 rules, a writer without
/// pause interrupts 20 of 20 attempts, so more would only delay the error.
const DUMP_ATTEMPTS: u32 = 32;
/// Receive buffer in bytes. The kernel fills at most 32 KiB per `recv` of a dump. A refusal
/// contains the refused message, of which one attribute has at most 64 KiB.
const RECEIVE: usize = 96 * 1024;
const MIN_BUFFER: usize = 256 * 1024;

/// The kernel's replies to a datagram.
#[derive(Debug, Default, Eq, PartialEq)]
#[must_use = "a batch that was refused changed nothing, or not everything"]
#[non_exhaustive]
pub struct Answer {
    /// Whether any message was acknowledged. Check `refused` first.
    pub acknowledged: bool,
    /// The refused messages, in the kernel's order.
    pub refused: Vec<Refusal>,
}

/// A netlink socket. Keep it for the life of the program.
///
/// It belongs to the network namespace in which it was opened.
pub struct Socket {
    socket: NlSocket,
    port: u32,
    sequence: u32,
    buffers: usize,
    receive_limit: usize,
    receive: Vec<u8>,
}

impl Socket {
    /// Opens a socket with extended acks and, if the kernel has them (4.20), strict checks of
    /// requests.
    ///
    /// # Errors
    /// [`OpenError`] if the kernel lacks the protocol or refuses the socket.
    pub fn open(protocol: Protocol) -> Result<Self, OpenError> {
        Self::open_limited(protocol, usize::MAX)
    }

    /// Opens a socket whose receive buffer does not grow beyond `limit` bytes; by default it grows
    /// with the batch. The kernel counts whole allocations and uses at least about 2 KiB.
    ///
    /// For bounded memory, and for tests with lost replies.
    ///
    /// # Errors
    /// Like [`Socket::open`].
    pub fn open_limited(protocol: Protocol, limit: usize) -> Result<Self, OpenError> {
        let fail = |step| move |source| OpenError { step, protocol, source };
        let socket = NlSocket::connect(protocol.family(), None, Groups::empty()).map_err(fail("open"))?;
        socket.enable_ext_ack(true).map_err(fail("configure"))?;
        // Older kernels return more than was requested; readers filter anyway.
        let _older_kernel = socket.enable_strict_checking(true);
        let port = socket.pid().map_err(fail("read the port of"))?;
        let receive = vec![0; RECEIVE];
        let mut opened = Self { socket, port, sequence: 0, buffers: 0, receive_limit: limit, receive };
        opened.reserve(MIN_BUFFER);
        Ok(opened)
    }

    /// The port of the socket. Notifications of changes made through it carry this number.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends the batch as one datagram and collects the replies. `reply` receives all other
    /// messages, e.g. those requested with [`Flags::ECHO`](crate::Flags::ECHO).
    ///
    /// The last message requests an ack. Errors of the others arrive regardless.
    ///
    /// # Errors
    /// [`TransactError`]; its variants tell whether the kernel has seen the batch.
    pub fn transact(
        &mut self,
        batch: &mut Batch,
        reply: impl FnMut(Message<'_>) -> Result<(), Malformed>,
    ) -> Result<Answer, TransactError> {
        self.in_windows(batch, u32::MAX, reply)
    }

    /// Sends the batch as datagrams of `window` messages, each of which ends with an ack. Returns
    /// the refused messages; a refusal does not stop the others.
    ///
    /// For families that process each message separately (rtnetlink). A window of 64 to 256
    /// messages is as fast as the kernel allows.
    ///
    /// # Errors
    /// [`TransactError`]: the kernel may have processed some messages. Observe before trying again.
    pub fn execute(&mut self, batch: &mut Batch, window: u32) -> Result<Vec<Refusal>, TransactError> {
        let answer = self.in_windows(batch, window.max(1), |_| Ok(()))?;
        Ok(answer.refused)
    }

    /// Sends a request and returns what `read` makes of the reply.
    ///
    /// # Errors
    /// [`AskError::Refused`] with the kernel's error, e.g. `ENOENT`; otherwise there was no usable
    /// reply.
    pub fn ask<T>(
        &mut self,
        question: &mut Batch,
        mut read: impl FnMut(Message<'_>) -> Result<T, Malformed>,
    ) -> Result<T, AskError> {
        let mut answer = None;
        self.receive_replies(question, |message| {
            answer = Some(read(message)?);
            Ok(ControlFlow::Break(()))
        })?;
        answer.ok_or_else(|| AskError::Transact(lost(Errno::ENODATA.into())))
    }

    /// Lists objects: `fold` adds each to the result. If other writers change the objects meanwhile
    /// (`NLM_F_DUMP_INTR`), it starts over from `C::default()`, so the result is always complete.
    ///
    /// # Errors
    /// [`DumpError::Interrupted`] after 32 attempts; otherwise like [`Socket::ask`].
    pub fn dump<C: Default>(
        &mut self,
        question: &mut Batch,
        mut fold: impl FnMut(&mut C, Message<'_>) -> Result<(), Malformed>,
    ) -> Result<C, DumpError> {
        for _ in 0..DUMP_ATTEMPTS {
            if let (list, true) = self.dump_once(question, &mut fold).map_err(DumpError::Ask)? {
                return Ok(list);
            }
        }
        Err(DumpError::Interrupted { attempts: DUMP_ATTEMPTS })
    }

    /// Lists objects once. Returns also whether the list is whole: if other writers changed objects
    /// meanwhile (`NLM_F_DUMP_INTR`), some may be missing and others listed twice.
    ///
    /// For callers that find out otherwise whether the changes matter to them.
    ///
    /// # Errors
    /// Like [`Socket::ask`].
    pub fn dump_once<C: Default>(
        &mut self,
        question: &mut Batch,
        mut fold: impl FnMut(&mut C, Message<'_>) -> Result<(), Malformed>,
    ) -> Result<(C, bool), AskError> {
        let mut list = C::default();
        // An error of the reader must not leave the rest of the dump in the socket.
        let mut mistake = None;
        let whole = self.receive_replies(question, |message| {
            if mistake.is_none() {
                mistake = fold(&mut list, message).err();
            }
            Ok(ControlFlow::Continue(()))
        })?;
        match mistake {
            Some(mistake) if whole => Err(malformed(mistake)),
            _ => Ok((list, whole)),
        }
    }

    /// Sends a request and passes the replies to `each`, until that breaks or the dump ends.
    /// Returns whether the dump is complete, that is, was not interrupted by changes.
    fn receive_replies(
        &mut self,
        question: &mut Batch,
        mut each: impl FnMut(Message<'_>) -> Result<ControlFlow<()>, Malformed>,
    ) -> Result<bool, AskError> {
        let first = self.send_question(question).map_err(AskError::Transact)?;
        let mut interrupted = false;
        loop {
            let length =
                receive(&self.socket, &mut self.receive).map_err(lost).map_err(AskError::Transact)?;
            for message in messages(self.receive.get(..length).unwrap_or_default()) {
                let message = message.map_err(malformed)?;
                if message.sequence != first {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                // Since 4.18, the end of a dump also carries an error code, in the same place.
                if matches!(message.kind, NLMSG_ERROR | NLMSG_DONE) {
                    if let Some(refusal) = message.refusal(0).map_err(malformed)? {
                        return Err(AskError::Refused(refusal));
                    }
                    if message.kind == NLMSG_DONE {
                        return Ok(!interrupted);
                    }
                } else if each(message).map_err(malformed)?.is_break() {
                    return Ok(!interrupted);
                }
            }
        }
    }

    fn in_windows(
        &mut self,
        batch: &mut Batch,
        window: u32,
        mut reply: impl FnMut(Message<'_>) -> Result<(), Malformed>,
    ) -> Result<Answer, TransactError> {
        if let Some(message) = batch.oversize() {
            return Err(TransactError::TooLong { message });
        }
        let first = self.take_sequence(batch.len());
        let mut answer = Answer::default();
        for datagram in batch.number(first, window) {
            let bytes = batch.as_bytes().get(datagram.bytes).unwrap_or_default();
            self.reserve(bytes.len().saturating_add(datagram.messages.len().saturating_mul(256)));
            self.discard_stale();
            self.send(bytes)?;
            self.collect(first, datagram.messages, &mut answer, &mut reply)?;
        }
        Ok(answer)
    }

    /// Reads replies until that of the last message, or until there are no more.
    fn collect(
        &mut self,
        first: u32,
        expected: Range<u32>,
        answer: &mut Answer,
        reply: &mut impl FnMut(Message<'_>) -> Result<(), Malformed>,
    ) -> Result<(), TransactError> {
        let mut heard = false;
        loop {
            let length = match receive(&self.socket, &mut self.receive) {
                Ok(length) => length,
                // nf_tables acknowledges the end of a batch only since 6.10, and never after a
                // refusal.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && heard => return Ok(()),
                Err(error) => return Err(lost(error)),
            };
            let mut complete = false;
            for message in messages(self.receive.get(..length).unwrap_or_default()) {
                let message = message.map_err(TransactError::Malformed)?;
                let number = message.sequence.wrapping_sub(first);
                if !expected.contains(&number) {
                    continue;
                }
                if message.kind != NLMSG_ERROR {
                    reply(message).map_err(TransactError::Malformed)?;
                    continue;
                }
                heard = true;
                complete |= number + 1 == expected.end;
                match message.refusal(number).map_err(TransactError::Malformed)? {
                    Some(refusal) => answer.refused.push(refusal),
                    None => answer.acknowledged = true,
                }
            }
            if complete {
                return Ok(());
            }
        }
    }

    fn send_question(&mut self, question: &mut Batch) -> Result<u32, TransactError> {
        if let Some(message) = question.oversize() {
            return Err(TransactError::TooLong { message });
        }
        let first = self.take_sequence(question.len());
        question.number_only(first);
        self.discard_stale();
        self.send(question.as_bytes())?;
        Ok(first)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), TransactError> {
        loop {
            match self.socket.send(bytes, Msg::empty()) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TransactError::NotSent { bytes: bytes.len(), source }),
            }
        }
    }

    /// Discards what an earlier operation left unread, including a pending overflow error.
    fn discard_stale(&mut self) {
        for _ in 0..1_000_000 {
            match receive(&self.socket, &mut self.receive) {
                Ok(_) => {}
                Err(error) if error.raw_os_error().map(Errno::from_raw) == Some(Errno::ENOBUFS) => {}
                // Nothing is left; or the socket is broken, which the next operation reports.
                Err(_) => return,
            }
        }
    }

    fn take_sequence(&mut self, messages: u32) -> u32 {
        let first = self.sequence.wrapping_add(1).max(1); // 0 marks notifications
        self.sequence = first.wrapping_add(messages);
        first
    }

    /// Makes both buffers large enough for a datagram of `bytes` and for the refusals of all its
    /// messages. Buffers only grow, so in steady state this costs nothing.
    fn reserve(&mut self, bytes: usize) {
        // The kernel counts whole allocations, up to about twice the payload.
        let wanted = bytes.saturating_mul(2).next_power_of_two().max(MIN_BUFFER);
        if wanted <= self.buffers {
            return;
        }
        self.buffers = wanted;
        let fd = borrow(&self.socket);
        // Without CAP_NET_ADMIN, net.core.{w,r}mem_max limits the buffers. The kernel then refuses
        // a batch that does not fit.
        if setsockopt(&fd, sockopt::SndBufForce, &wanted).is_err() {
            let _limited = setsockopt(&fd, sockopt::SndBuf, &wanted);
        }
        let wanted = wanted.min(self.receive_limit);
        if setsockopt(&fd, sockopt::RcvBufForce, &wanted).is_err() {
            let _limited = setsockopt(&fd, sockopt::RcvBuf, &wanted);
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("port", &self.port)
            .field("buffers", &self.buffers)
            .finish_non_exhaustive()
    }
}

/// Receives one datagram without waiting. If it does not fit into `buffer`, it is lost (`ENOBUFS`),
/// and the buffer is larger the next time.
pub(crate) fn receive(socket: &NlSocket, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        match socket.recv(buffer.as_mut_slice(), Msg::DONTWAIT | Msg::TRUNC) {
            Ok((length, _)) if length > buffer.len() => {
                buffer.resize(length, 0);
                return Err(Errno::ENOBUFS.into());
            }
            Ok((length, _)) => return Ok(length),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[expect(
    unsafe_code,
    reason = "neli's NlSocket has AsRawFd but not AsFd, and nix::setsockopt wants the latter"
)]
pub(crate) fn borrow(socket: &NlSocket) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `socket` lives, and the result cannot outlive it.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

fn lost(source: io::Error) -> TransactError {
    TransactError::Lost(LostReply(source))
}

fn malformed(source: Malformed) -> AskError {
    AskError::Transact(TransactError::Malformed(source))
}
