//! Encoded messages that are ready to be sent.

use crate::Attributes;
use crate::uapi::*;

pub(crate) const HEADER: usize = 16;

/// Flags of a request (`NLM_F_*`, include/uapi/linux/netlink.h). `NLM_F_REQUEST` is always added.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flags(u16);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Requests an ack (`NLM_F_ACK`).
    pub const ACK: Self = Self(NLM_F_ACK);
    /// Requests the created object in the reply (`NLM_F_ECHO`).
    pub const ECHO: Self = Self(NLM_F_ECHO);
    /// Replaces an existing object (`NLM_F_REPLACE`).
    pub const REPLACE: Self = Self(NLM_F_REPLACE);
    /// Fails if the object exists (`NLM_F_EXCL`).
    pub const EXCL: Self = Self(NLM_F_EXCL);
    /// Creates the object if it does not exist (`NLM_F_CREATE`).
    pub const CREATE: Self = Self(NLM_F_CREATE);
    /// Adds at the end (`NLM_F_APPEND`).
    pub const APPEND: Self = Self(NLM_F_APPEND);
    /// Lists all objects (`NLM_F_DUMP`).
    pub const DUMP: Self = Self(NLM_F_DUMP);

    /// The flags of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn bits(self) -> u16 {
        self.0
    }
}

/// A sequence of netlink requests.
///
/// Messages are numbered from 0, in the order of the calls of [`Batch::message`]; a
/// [`Refusal`](crate::Refusal) names its message by this number. [`Batch::clear`] keeps the memory,
/// so a reused batch does not allocate.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    messages: u32,
    oversize: Option<u32>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a message: the netlink header, the family's own `header` (e.g. `struct rtmsg`), and
    /// the attributes that `build` writes. Returns the message's number.
    pub fn message(
        &mut self,
        kind: u16,
        flags: Flags,
        header: &[u8],
        build: impl FnOnce(&mut Attributes<'_>),
    ) -> u32 {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]); // length, known below
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags.bits() | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]); // sequence number, set when sent; port, filled in by the kernel
        self.bytes.extend_from_slice(header);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);

        let mut oversize = false;
        build(&mut Attributes::new(&mut self.bytes, &mut oversize));
        let length = u32::try_from(self.bytes.len() - start).unwrap_or_else(|_| {
            oversize = true;
            u32::MAX
        });
        write_u32(&mut self.bytes, start, length);
        let number = self.messages;
        if oversize {
            self.oversize.get_or_insert(number);
        }
        self.messages += 1;
        number
    }

    /// Removes all messages and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.messages = 0;
        self.oversize = None;
    }

    /// The number of messages.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.messages
    }

    /// Whether there are no messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// The encoded messages. Sequence numbers are those of the last time the batch was sent, or 0.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Overwrites bytes of the encoded messages, e.g. to send the batch again with another number in
    /// it. Does nothing if they are not within the batch.
    pub fn overwrite(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Number of the first message with an attribute that is too long.
    pub(crate) fn oversize(&self) -> Option<u32> {
        self.oversize
    }

    /// Numbers the messages from `first`, requests an ack for every `window`-th message and for the
    /// last, and returns the byte ranges between them. Each is sent as one datagram.
    pub(crate) fn number(&mut self, first: u32, window: u32) -> Vec<Datagram> {
        let mut datagrams = Vec::new();
        let (mut offset, mut start, mut start_number) = (0, 0, 0);
        for number in 0..self.messages {
            let length = read_u32(&self.bytes, offset);
            write_u32(&mut self.bytes, offset + 8, first.wrapping_add(number));
            let last = number + 1 == self.messages;
            if last || (number + 1 - start_number) == window {
                if let Some(low) = self.bytes.get_mut(offset + 6..offset + 8) {
                    let flags = u16::from_ne_bytes([low[0], low[1]]) | NLM_F_ACK;
                    low.copy_from_slice(&flags.to_ne_bytes());
                }
                let end = offset + length;
                datagrams.push(Datagram { bytes: start..end, messages: start_number..number + 1 });
                (start, start_number) = (end, number + 1);
            }
            offset += length;
        }
        datagrams
    }

    /// Numbers the messages from `first` without requesting an ack; for requests that have a reply.
    pub(crate) fn number_only(&mut self, first: u32) {
        let mut offset = 0;
        for number in 0..self.messages {
            let length = read_u32(&self.bytes, offset);
            write_u32(&mut self.bytes, offset + 8, first.wrapping_add(number));
            offset += length;
        }
    }
}

/// The part of a batch that is sent as one datagram.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) bytes: std::ops::Range<usize>,
    pub(crate) messages: std::ops::Range<u32>,
}

fn read_u32(bytes: &[u8], offset: usize) -> usize {
    let field = bytes.get(offset..).and_then(<[u8]>::first_chunk::<4>);
    field.map_or(0, |field| usize::try_from(u32::from_ne_bytes(*field)).unwrap_or(0))
}

fn write_u32(bytes: &mut [u8], offset: usize, value: u32) {
    if let Some(field) = bytes.get_mut(offset..offset + 4) {
        field.copy_from_slice(&value.to_ne_bytes());
    }
}
