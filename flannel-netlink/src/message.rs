//! Received messages.

use crate::batch::HEADER;
use crate::uapi::*;
use crate::{AttributeIter, Errno, Flags, Malformed, Refusal, attributes};

/// A netlink message of a received datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: the number of the request that it answers; 0 for a notification.
    pub sequence: u32,
    /// `nlmsg_pid`: the port of the socket whose request caused it.
    pub port: u32,
    /// The bytes after the netlink header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Splits the payload into the family header of `N` bytes and the attributes after it.
    ///
    /// # Errors
    /// [`Malformed::Message`] if the payload is shorter than `N`.
    pub fn split<const N: usize>(&self) -> Result<(&'a [u8; N], AttributeIter<'a>), Malformed> {
        let (header, rest) = self.payload.split_first_chunk::<N>().ok_or(Malformed::Message)?;
        let padding = N.next_multiple_of(4) - N;
        Ok((header, attributes(rest.get(padding..).unwrap_or_default())))
    }

    /// Whether these flags are set.
    #[must_use]
    pub fn has(&self, flags: Flags) -> bool {
        self.flags & flags.bits() == flags.bits()
    }

    /// Reads an `NLMSG_ERROR`, or the code in an `NLMSG_DONE`; `Ok(None)` if the code is 0.
    ///
    /// Text and attribute offset are present if the kernel sent them (`NETLINK_EXT_ACK`).
    pub(crate) fn refusal(&self, number: u32) -> Result<Option<Refusal>, Malformed> {
        let (error, rest) = self.payload.split_first_chunk::<4>().ok_or(Malformed::Message)?;
        let code = i32::from_ne_bytes(*error);
        if code == 0 {
            return Ok(None);
        }
        let mut refusal = Refusal::new(number, Errno::from_raw(code.saturating_neg()));
        if self.flags & NLM_F_ACK_TLVS != 0 {
            // An error contains the request before the attributes: all of it or, if capped, only
            // its header.
            let request = || {
                let length = u32::from_ne_bytes(*rest.first_chunk::<4>()?);
                usize::try_from(length).ok()?.checked_next_multiple_of(4)
            };
            let skip = match self.kind {
                NLMSG_DONE => Some(0),
                _ if self.flags & NLM_F_CAPPED != 0 => Some(HEADER),
                _ => request(),
            };
            for attribute in attributes(skip.and_then(|skip| rest.get(skip..)).unwrap_or_default()) {
                let attribute = attribute?;
                match attribute.kind {
                    NLMSGERR_ATTR_MSG => refusal.text = Some(attribute.text()?.to_owned()),
                    NLMSGERR_ATTR_OFFS => refusal.offset = Some(attribute.u32()?),
                    _ => {}
                }
            }
        }
        Ok(Some(refusal))
    }
}

/// Reads the messages of a datagram.
#[must_use]
pub fn messages(datagram: &[u8]) -> MessageIter<'_> {
    MessageIter { rest: datagram }
}

/// Iterator over messages. Ends after the first malformed one.
#[derive(Clone, Debug)]
pub struct MessageIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for MessageIter<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = split(self.rest);
        self.rest = parsed.map_or(&[], |(_, rest)| rest);
        Some(parsed.map(|(message, _)| message).ok_or(Malformed::Message))
    }
}

fn split(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let (header, _) = bytes.split_first_chunk::<HEADER>()?;
    let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
    let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let message = Message {
        kind: u16::from_ne_bytes([k0, k1]),
        flags: u16::from_ne_bytes([f0, f1]),
        sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
        port: u32::from_ne_bytes([p0, p1, p2, p3]),
        payload: bytes.get(HEADER..length)?,
    };
    Some((message, bytes.get(length.checked_next_multiple_of(4)?..).unwrap_or_default()))
}
