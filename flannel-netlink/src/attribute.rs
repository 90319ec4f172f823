//! Netlink attributes (`struct nlattr`, include/uapi/linux/netlink.h): writer and reader.

use crate::Malformed;
use crate::uapi::{NLA_F_NESTED, NLA_F_NET_BYTEORDER};

const HEADER: usize = 4;

/// Writes the attributes of one message directly into the batch.
///
/// An attribute holds at most 65,531 bytes. A longer one makes the batch invalid, which is reported
/// when the batch is sent. So building a message returns no errors.
#[derive(Debug)]
pub struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
    oversize: &'a mut bool,
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(bytes: &'a mut Vec<u8>, oversize: &'a mut bool) -> Self {
        Self { bytes, oversize }
    }

    /// Appends an attribute with these bytes as its payload.
    pub fn bytes(&mut self, kind: u16, payload: &[u8]) {
        self.reserve(payload.len());
        let start = self.open(kind);
        self.bytes.extend_from_slice(payload);
        self.close(start);
    }

    /// Appends an attribute without payload; its presence is its meaning.
    pub fn flag(&mut self, kind: u16) {
        self.bytes(kind, &[]);
    }

    /// Appends a byte.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.number(kind, [value]);
    }

    /// Appends a 16-bit number in host byte order.
    pub fn u16(&mut self, kind: u16, value: u16) {
        self.number(kind, value.to_ne_bytes());
    }

    /// Appends a 32-bit number in host byte order.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.number(kind, value.to_ne_bytes());
    }

    /// Appends a 64-bit number in host byte order.
    pub fn u64(&mut self, kind: u16, value: u64) {
        self.number(kind, value.to_ne_bytes());
    }

    /// Appends a 16-bit number in network byte order.
    pub fn be16(&mut self, kind: u16, value: u16) {
        self.number(kind, value.to_be_bytes());
    }

    /// Appends a 32-bit number in network byte order, as most numbers of nf_tables.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.number(kind, value.to_be_bytes());
    }

    /// Appends a 64-bit number in network byte order.
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.number(kind, value.to_be_bytes());
    }

    /// Appends text with a terminating zero, which `NLA_NUL_STRING` attributes require and
    /// `NLA_STRING` attributes accept.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.string(kind, value.as_bytes());
    }

    /// Appends bytes with a terminating zero, like [`Attributes::text`]: the kernel does not require
    /// names to be UTF-8.
    pub fn string(&mut self, kind: u16, value: &[u8]) {
        self.reserve(value.len() + 1);
        let start = self.open(kind);
        self.bytes.extend_from_slice(value);
        self.bytes.push(0);
        self.close(start);
    }

    /// Appends an attribute that contains the attributes that `build` writes.
    pub fn nested(&mut self, kind: u16, build: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.open(kind | NLA_F_NESTED);
        build(&mut Attributes { bytes: self.bytes, oversize: self.oversize });
        self.close(start);
    }

    /// Bytes of the whole batch so far, so that a caller can split a long list of nested
    /// attributes.
    #[must_use]
    pub fn position(&self) -> usize {
        self.bytes.len()
    }

    /// A whole attribute in one copy: most attributes are numbers.
    fn number<const N: usize>(&mut self, kind: u16, value: [u8; N]) {
        let mut attribute = [0; HEADER + 8];
        let length = HEADER + N;
        let [low, high] = u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes();
        let [kind_low, kind_high] = kind.to_ne_bytes();
        let header = [low, high, kind_low, kind_high];
        header.into_iter().chain(value).zip(&mut attribute).for_each(|(byte, place)| *place = byte);
        self.bytes.extend_from_slice(attribute.get(..length.next_multiple_of(4)).unwrap_or_default());
    }

    /// Makes room for an attribute with a payload of this length.
    fn reserve(&mut self, payload: usize) {
        self.bytes.reserve(HEADER + payload.next_multiple_of(4));
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        let [low, high] = kind.to_ne_bytes();
        self.bytes.extend_from_slice(&[0, 0, low, high]); // length, known at close
        start
    }

    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len() - start).unwrap_or_else(|_| {
            *self.oversize = true;
            u16::MAX
        });
        if let Some(field) = self.bytes.get_mut(start..start + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        let padding = self.bytes.len().next_multiple_of(4) - self.bytes.len();
        self.bytes.extend_from_slice([0; 3].get(..padding).unwrap_or_default());
    }
}

/// A received attribute.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attribute<'a> {
    /// Type of the attribute, without the flag bits for nesting and byte order.
    pub kind: u16,
    /// Payload, without padding.
    pub payload: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The payload as exactly `N` bytes.
    ///
    /// # Errors
    /// [`Malformed::Length`] if its length differs.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.payload.try_into().map_err(|_ignored: std::array::TryFromSliceError| Malformed::Length {
            kind: self.kind,
            want: N,
            have: self.payload.len(),
        })
    }

    /// The payload as a byte.
    ///
    /// # Errors
    /// [`Malformed::Length`] if its length differs; the same for all numbers below.
    pub fn u8(&self) -> Result<u8, Malformed> {
        self.array().map(u8::from_ne_bytes)
    }

    /// The payload as a 16-bit number in host byte order.
    ///
    /// # Errors
    /// [`Malformed::Length`].
    pub fn u16(&self) -> Result<u16, Malformed> {
        self.array().map(u16::from_ne_bytes)
    }

    /// The payload as a 32-bit number in host byte order.
    ///
    /// # Errors
    /// [`Malformed::Length`].
    pub fn u32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    /// The payload as a 64-bit number in host byte order.
    ///
    /// # Errors
    /// [`Malformed::Length`].
    pub fn u64(&self) -> Result<u64, Malformed> {
        self.array().map(u64::from_ne_bytes)
    }

    /// The payload as a 16-bit number in network byte order.
    ///
    /// # Errors
    /// [`Malformed::Length`].
    pub fn be16(&self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// The payload as a 32-bit number in network byte order.
    ///
    /// # Errors
    /// [`Malformed::Length`].
    pub fn be32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// The payload as a 64-bit number in network byte order.
    ///
    /// # Errors
    /// [`Malformed::Length`].
    pub fn be64(&self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// The payload as text, up to the terminating zero if there is one.
    ///
    /// # Errors
    /// [`Malformed::Text`] if it is not UTF-8.
    pub fn text(&self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.string()).map_err(|source| Malformed::Text { kind: self.kind, source })
    }

    /// The bytes up to the terminating zero if there is one: a name, which need not be UTF-8.
    #[must_use]
    pub fn string(&self) -> &'a [u8] {
        let end = self.payload.iter().position(|byte| *byte == 0).unwrap_or(self.payload.len());
        self.payload.get(..end).unwrap_or_default()
    }

    /// The nested attributes.
    #[must_use]
    pub fn nested(&self) -> AttributeIter<'a> {
        attributes(self.payload)
    }
}

/// Reads consecutive attributes, e.g. after the family header of a message.
#[must_use]
pub fn attributes(bytes: &[u8]) -> AttributeIter<'_> {
    AttributeIter { rest: bytes }
}

/// Iterator over attributes. Ends after the first malformed one.
#[derive(Clone, Debug)]
pub struct AttributeIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for AttributeIter<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = split(self.rest);
        self.rest = parsed.map_or(&[], |(_, rest)| rest);
        Some(parsed.map(|(attribute, _)| attribute).ok_or(Malformed::Attribute))
    }
}

fn split(bytes: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (kind, _) = rest.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_ne_bytes(*length));
    let payload = bytes.get(HEADER..length)?;
    let kind = u16::from_ne_bytes(*kind) & !(NLA_F_NESTED | NLA_F_NET_BYTEORDER);
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((Attribute { kind, payload }, rest))
}
