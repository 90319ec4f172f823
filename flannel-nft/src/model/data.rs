//! Values as the bytes that the kernel compares.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// The bytes of a register or of a set's key: up to 16 inline, longer ones (concatenations) on the
/// heap.
#[derive(Clone)]
pub(crate) enum Data {
    Short { length: u8, bytes: [u8; 16] },
    Long(Box<[u8]>),
}

impl Data {
    pub(crate) fn new(data: &[u8]) -> Self {
        let mut bytes = [0; 16];
        match (bytes.get_mut(..data.len()), u8::try_from(data.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(data);
                Self::Short { length, bytes }
            }
            _ => Self::Long(data.into()),
        }
    }

    pub(crate) fn u32(value: u32) -> Self {
        Self::new(&value.to_ne_bytes())
    }

    pub(crate) fn zero(length: usize) -> Self {
        Self::new([0; 64].get(..length).unwrap_or_default())
    }

    pub(crate) fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::new(&address.octets()),
            IpAddr::V6(address) => Self::new(&address.octets()),
        }
    }

    /// An interface name as the kernel stores it: 16 bytes, padded with zeros.
    pub(crate) fn interface(name: &str) -> Self {
        let mut bytes = [0; 16];
        for (place, byte) in bytes.iter_mut().zip(name.bytes()) {
            *place = byte;
        }
        Self::Short { length: 16, bytes }
    }

    /// The network mask with `bits` leading ones.
    pub(crate) fn mask(bits: u8, length: usize) -> Self {
        let mut mask = vec![0_u8; length];
        for (index, byte) in mask.iter_mut().enumerate() {
            let ones = usize::from(bits).saturating_sub(index * 8).min(8);
            *byte = u8::try_from(0xff00_u32 >> ones & 0xff).unwrap_or(0xff);
        }
        Self::new(&mask)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Each bit that is set becomes unset, and the reverse.
    pub(crate) fn inverted(&self) -> Self {
        Self::new(&self.as_slice().iter().map(|byte| !byte).collect::<Vec<u8>>())
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.as_slice().iter().all(|byte| *byte == 0)
    }

    pub(crate) fn be_u16(&self) -> Option<u16> {
        self.as_slice().try_into().ok().map(u16::from_be_bytes)
    }

    pub(crate) fn u8(&self) -> Option<u8> {
        match self.as_slice() {
            [value] => Some(*value),
            _ => None,
        }
    }

    /// The next higher number of the same length; `None` after the highest.
    pub(crate) fn successor(&self) -> Option<Self> {
        let mut bytes = self.as_slice().to_vec();
        for byte in bytes.iter_mut().rev() {
            let (next, overflow) = byte.overflowing_add(1);
            *byte = next;
            if !overflow {
                return Some(Self::new(&bytes));
            }
        }
        None
    }

    /// The next lower number of the same length; `None` before 0.
    pub(crate) fn predecessor(&self) -> Option<Self> {
        let mut bytes = self.as_slice().to_vec();
        for byte in bytes.iter_mut().rev() {
            let (next, overflow) = byte.overflowing_sub(1);
            *byte = next;
            if !overflow {
                return Some(Self::new(&bytes));
            }
        }
        None
    }

    pub(crate) fn highest(length: usize) -> Self {
        Self::new(&vec![0xff; length])
    }

    /// The prefix length of a mask; `None` if the ones are not contiguous from the left.
    pub(crate) fn prefix_length(&self) -> Option<u8> {
        let ones: u32 = self.as_slice().iter().map(|byte| byte.count_ones()).sum();
        let ones = u8::try_from(ones).ok()?;
        (*self == Self::mask(ones, self.len())).then_some(ones)
    }

    /// The prefix length if `self..=last` is exactly a prefix.
    pub(crate) fn prefix_to(&self, last: &Self) -> Option<u8> {
        let differ: Vec<u8> = self.as_slice().iter().zip(last.as_slice()).map(|(a, b)| !(a ^ b)).collect();
        let length = Self::new(&differ).prefix_length()?;
        let mask = Self::mask(length, self.len());
        let first_is_low = self.as_slice().iter().zip(mask.as_slice()).all(|(byte, mask)| byte & !mask == 0);
        let last_is_high =
            last.as_slice().iter().zip(mask.as_slice()).all(|(byte, mask)| byte | mask == 0xff);
        (first_is_low && last_is_high).then_some(length)
    }

    /// The highest number with the same first `bits` bits.
    pub(crate) fn last_with_prefix(&self, bits: u8) -> Self {
        let mask = Self::mask(bits, self.len());
        let bytes: Vec<u8> =
            self.as_slice().iter().zip(mask.as_slice()).map(|(byte, mask)| byte | !mask).collect();
        Self::new(&bytes)
    }

    /// Whether all bits after the first `bits` are zero.
    pub(crate) fn is_network(&self, bits: u8) -> bool {
        let mask = Self::mask(bits, self.len());
        self.as_slice().iter().zip(mask.as_slice()).all(|(byte, mask)| byte & !mask == 0)
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Data {}

impl PartialOrd for Data {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Data {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Hash for Data {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(self.as_slice(), f)
    }
}

pub(crate) fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("0x")?;
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_ranges_are_told_apart() {
        let address = |text: &str| Data::address(text.parse().unwrap());
        assert_eq!(address("10.0.0.0").prefix_to(&address("10.255.255.255")), Some(8));
        assert_eq!(address("10.0.0.0").prefix_to(&address("10.255.255.254")), None);
        assert_eq!(address("10.0.0.1").prefix_to(&address("10.0.0.1")), Some(32));
        assert_eq!(address("0.0.0.0").prefix_to(&address("255.255.255.255")), Some(0));
        assert_eq!(
            address("fe80::").last_with_prefix(10),
            address("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
        );
        assert_eq!(Data::mask(23, 4).prefix_length(), Some(23));
        assert_eq!(Data::new(&[255, 0, 255, 0]).prefix_length(), None);
        assert!(!address("10.0.0.1").is_network(8));
    }

    #[test]
    fn counting_stops_at_the_ends() {
        assert_eq!(Data::new(&[0, 255]).successor(), Some(Data::new(&[1, 0])));
        assert_eq!(Data::new(&[255, 255]).successor(), None);
        assert_eq!(Data::new(&[1, 0]).predecessor(), Some(Data::new(&[0, 255])));
        assert_eq!(Data::new(&[0, 0]).predecessor(), None);
    }
}
