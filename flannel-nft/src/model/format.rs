//! Values in nft's syntax.

use std::fmt::{self, Formatter};
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::display::NftVersion;
use crate::model::data::{Data, hex};
use crate::model::datatype::{Datatype, Format, Order};
use crate::model::protocol::Protocol;
use crate::uapi::{TC_H_ROOT, TC_H_UNSPEC};

/// The index of the interface `lo` in each network namespace (include/net/flow.h in the kernel).
const LOOPBACK_IFINDEX: u128 = 1;

impl Datatype {
    /// Writes a value of this type in nft syntax.
    pub(crate) fn write(self, data: &Data, f: &mut Formatter<'_>) -> fmt::Result {
        self.write_joined(data, ",", f)
    }

    /// Writes a key or value of a set, in which a comma would begin another element.
    pub(crate) fn write_element(self, data: &Data, f: &mut Formatter<'_>) -> fmt::Result {
        self.write_joined(data, " | ", f)
    }

    /// `between` is what separates the bits of flags.
    fn write_joined(self, data: &Data, between: &str, f: &mut Formatter<'_>) -> fmt::Result {
        let parts = self.parts();
        if parts.len() < 2 {
            return self.write_one(data, between, f);
        }
        let mut rest = data.as_slice();
        for (index, part) in parts.into_iter().enumerate() {
            f.write_str(if index > 0 { " . " } else { "" })?;
            let (length, padded) = part.lengths();
            part.write_one(&Data::new(rest.get(..length).unwrap_or(rest)), between, f)?;
            rest = rest.get(padded..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes a range: `10.0.0.0/8`, `1-5`, `"eth*"`. In a concatenation, each part is a range.
    pub(crate) fn write_range(self, first: &Data, last: &Data, f: &mut Formatter<'_>) -> fmt::Result {
        let parts = self.parts();
        if parts.len() > 1 {
            let (mut first, mut last) = (first.as_slice(), last.as_slice());
            for (index, part) in parts.into_iter().enumerate() {
                f.write_str(if index > 0 { " . " } else { "" })?;
                let (length, padded) = part.lengths();
                let value = |bytes: &[u8]| Data::new(bytes.get(..length).unwrap_or(bytes));
                part.write_range(&value(first), &value(last), f)?;
                (first, last) =
                    (first.get(padded..).unwrap_or_default(), last.get(padded..).unwrap_or_default());
            }
            return Ok(());
        }
        if first == last {
            return self.write_element(first, f);
        }
        match (self.format(), first.prefix_to(last)) {
            (Some(Format::Ipv4 | Format::Ipv6), Some(length)) => {
                self.write(first, f)?;
                write!(f, "/{length}")
            }
            (Some(Format::Text), Some(length)) if length % 8 == 0 => {
                let prefix = first.as_slice().get(..usize::from(length / 8)).unwrap_or_default();
                write!(f, "\"{}*\"", String::from_utf8_lossy(prefix))
            }
            _ => {
                self.write_end(first, f)?;
                f.write_str("-")?;
                self.write_end(last, f)
            }
        }
    }

    /// A key of a set with intervals, whose parts the kernel keeps in network byte order.
    pub(crate) fn unsorted(self, data: &Data) -> Data {
        let parts = self.parts();
        if parts.len() < 2 {
            return self.swapped(data);
        }
        let (mut rest, mut bytes) = (data.as_slice(), Vec::new());
        for part in parts {
            let (length, padded) = part.lengths();
            bytes.extend(part.swapped(&Data::new(rest.get(..length).unwrap_or(rest))).as_slice());
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            rest = rest.get(padded..).unwrap_or_default();
        }
        Data::new(&bytes)
    }

    /// The type of one end, if this is the type of ranges in the values of a map.
    pub(crate) fn end(self) -> Option<Self> {
        let Self::Other { number, length } = self else { return None };
        let end = Self::from_number(number, length / 2);
        let is_known = end.format().is_some() || (end.parts().len() > 1 && self.parts().len() < 2);
        (is_known && end.length() * 2 == length).then_some(end)
    }

    /// The ends of a range, if this is the type of ranges in the values of a map.
    pub(crate) fn halves(self, data: &Data) -> Option<(Self, Data, Data)> {
        let end = self.end()?;
        let (first, last) = data.as_slice().split_at_checked(end.lengths().0)?;
        (first.len() == last.len()).then(|| (end, Data::new(first), Data::new(last)))
    }

    /// Writes one end of a range, for which nft uses numbers instead of names.
    pub(crate) fn write_end(self, data: &Data, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.format(), self.number_of(data)) {
            (Some(Format::Symbols(_) | Format::Quoted(_) | Format::Protocol), Some(number)) => {
                write!(f, "{number}")
            }
            (Some(Format::SymbolsHex(_, digits)), Some(number)) => write!(f, "0x{number:0digits$x}"),
            (Some(Format::Bits(_)), Some(number)) => write!(f, "0x{number:x}"),
            (Some(Format::Duration), Some(milliseconds)) if milliseconds % 1_000 == 0 => {
                write!(f, "{}s", milliseconds / 1_000)
            }
            _ => self.write(data, f),
        }
    }

    /// Length of a value in bytes, and as a part of a concatenation.
    pub(crate) fn lengths(self) -> (usize, usize) {
        let length = usize::try_from(self.length()).unwrap_or(0);
        (length, length.next_multiple_of(4))
    }

    fn write_one(self, data: &Data, between: &str, f: &mut Formatter<'_>) -> fmt::Result {
        let bytes = data.as_slice();
        let number = self.number_of(data);
        let Some(format) = self.format() else { return hex(bytes, f) };
        let is_code = matches!(self, Self::IcmpCode | Self::Icmpv6Code);
        match (format, number) {
            (Format::Ipv4, _) => match <[u8; 4]>::try_from(bytes) {
                Ok(bytes) => write!(f, "{}", Ipv4Addr::from(bytes)),
                Err(_) => hex(bytes, f),
            },
            (Format::Ipv6, _) => match <[u8; 16]>::try_from(bytes) {
                // As inet_ntop(3) prints an address with 96 zero bits.
                Ok([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]) if (a, b) != (0, 0) => {
                    write!(f, "::{}", Ipv4Addr::new(a, b, c, d))
                }
                Ok(bytes) => write!(f, "{}", Ipv6Addr::from(bytes)),
                Err(_) => hex(bytes, f),
            },
            (Format::Ether, _) => bytes
                .iter()
                .enumerate()
                .try_for_each(|(index, byte)| write!(f, "{}{byte:02x}", if index > 0 { ":" } else { "" })),
            (Format::Text, _) => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                let text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
                // A name that ends with `*` would be read as a prefix of names.
                match text.strip_suffix('*') {
                    Some(text) => write!(f, "\"{text}\\*\""),
                    None => write!(f, "\"{text}\""),
                }
            }
            (Format::Labels, Some(number)) => write_labels(number, between, f),
            (_, None) => hex(bytes, f),
            (Format::Decimal, Some(number)) => write!(f, "{number}"),
            (Format::Hex(digits), Some(number)) => write!(f, "0x{number:0digits$x}"),
            (Format::Ifindex, Some(number)) if number == LOOPBACK_IFINDEX => f.write_str("\"lo\""),
            (Format::Ifindex, Some(number)) => write!(f, "{number}"),
            (Format::Protocol, Some(number)) => match u8::try_from(number) {
                Ok(number) => write!(f, "{}", Protocol::new(number)),
                Err(_) => write!(f, "{number}"),
            },
            (Format::Bits(names), Some(number)) => write_bits(names, number, between, f),
            // The names are those of one type of message only, so newer versions print none.
            (_, Some(number)) if is_code && NftVersion::of(f) == NftVersion::V1_1 => write!(f, "{number}"),
            (Format::Symbols(names), Some(number)) => write_name(names, number, f),
            (Format::SymbolsHex(names, digits), Some(number)) => match name(names, number) {
                Some(name) => f.write_str(name),
                None => write!(f, "0x{number:0digits$x}"),
            },
            (Format::Quoted(names), Some(number)) => match name(names, number) {
                Some(name) => write!(f, "\"{name}\""),
                None => write!(f, "{number}"),
            },
            (Format::Classid, Some(number)) => write_classid(number, f),
            (Format::Duration, Some(milliseconds)) => write_duration(milliseconds, f),
            (Format::Hour, Some(seconds)) => {
                write!(f, "\"{:02}:{:02}", seconds / 3_600 % 24, seconds / 60 % 60)?;
                match seconds % 60 {
                    0 => f.write_str("\""),
                    seconds => write!(f, ":{seconds:02}\""),
                }
            }
            (Format::Date, Some(nanoseconds)) => write_date(nanoseconds / 1_000_000_000, f),
        }
    }

    /// The value in network byte order, if this type is in host byte order; or the reverse. The
    /// kernel needs it to sort values.
    pub(crate) fn swapped(self, data: &Data) -> Data {
        if !self.is_swapped() || cfg!(target_endian = "big") {
            return data.clone();
        }
        let bytes: Vec<u8> = data.as_slice().iter().rev().copied().collect();
        Data::new(&bytes)
    }

    /// The value as a number; `None` if it is longer than 16 bytes or text.
    pub(crate) fn number_of(self, data: &Data) -> Option<u128> {
        let bytes = data.as_slice();
        let mut number = [0; 16];
        number.get_mut(16_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
        let number = u128::from_be_bytes(number);
        let swap = self.order() == Order::Host && cfg!(target_endian = "little");
        Some(if swap { number.swap_bytes() >> (128 - bytes.len() * 8).min(127) } else { number })
    }

    /// A value of this type; the bits that do not fit are cut off.
    pub(crate) fn data_of(self, number: u128, length: usize) -> Data {
        let bytes = number.to_be_bytes();
        let mut bytes = bytes.get(16_usize.saturating_sub(length)..).unwrap_or_default().to_vec();
        if self.order() == Order::Host && cfg!(target_endian = "little") {
            bytes.reverse();
        }
        Data::new(&bytes)
    }
}

/// Writes the name of a number; as a number if it has none.
pub(crate) fn write_name(names: &[(&'static str, u32)], number: u128, f: &mut Formatter<'_>) -> fmt::Result {
    match name(names, number) {
        Some(name) => f.write_str(name),
        None => write!(f, "{number}"),
    }
}

fn name(names: &[(&'static str, u32)], number: u128) -> Option<&'static str> {
    names.iter().find(|(_, value)| u128::from(*value) == number).map(|(name, _)| *name)
}

/// Writes the names of the bits that are set; as a number if a bit has no name or no bit is set.
pub(crate) fn write_bits(
    names: &[(&str, u32)],
    bits: u128,
    separator: &str,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    let named = names.iter().fold(0, |sum, (_, bit)| sum | u128::from(*bit));
    if bits == 0 || bits & !named != 0 {
        return write!(f, "0x{bits:x}");
    }
    let mut between = "";
    for (name, _) in names.iter().filter(|(_, bit)| bits & u128::from(*bit) != 0) {
        write!(f, "{between}{name}")?;
        between = separator;
    }
    Ok(())
}

/// Writes the numbers of the bits that are set.
pub(crate) fn write_labels(number: u128, separator: &str, f: &mut Formatter<'_>) -> fmt::Result {
    if number == 0 {
        return f.write_str("0");
    }
    let mut between = "";
    for bit in (0..128).filter(|bit| number >> bit & 1 != 0) {
        write!(f, "{between}{bit}")?;
        between = separator;
    }
    Ok(())
}

fn write_classid(number: u128, f: &mut Formatter<'_>) -> fmt::Result {
    match u32::try_from(number) {
        Ok(TC_H_ROOT) => f.write_str("root"),
        Ok(TC_H_UNSPEC) => f.write_str("none"),
        _ => write!(f, "{:x}:{:x}", number >> 16, number & 0xffff),
    }
}

/// `3d2h1m`, `29s988ms`.
pub(crate) fn write_duration(milliseconds: u128, f: &mut Formatter<'_>) -> fmt::Result {
    let parts = [
        (milliseconds / 86_400_000, "d"),
        (milliseconds / 3_600_000 % 24, "h"),
        (milliseconds / 60_000 % 60, "m"),
        (milliseconds / 1_000 % 60, "s"),
        (milliseconds % 1_000, "ms"),
    ];
    if milliseconds == 0 {
        return f.write_str("0s");
    }
    parts.iter().filter(|(number, _)| *number > 0).try_for_each(|(number, unit)| write!(f, "{number}{unit}"))
}

/// The date in UTC. Days are counted in years that start in March, so that a leap day is the last.
fn write_date(seconds: u128, f: &mut Formatter<'_>) -> fmt::Result {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u128::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    write!(f, "\"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::DisplayFn;

    fn text(datatype: Datatype, data: &[u8]) -> String {
        DisplayFn(|f: &mut Formatter<'_>| datatype.write(&Data::new(data), f)).to_string()
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let date = |seconds: u64| text(Datatype::Date, &(seconds * 1_000_000_000).to_ne_bytes());
        assert_eq!(date(0), "\"1970-01-01 00:00:00\"");
        assert_eq!(date(951_782_399), "\"2000-02-28 23:59:59\"");
        assert_eq!(date(951_782_400), "\"2000-02-29 00:00:00\"");
        assert_eq!(date(1_719_835_200), "\"2024-07-01 12:00:00\"");
        assert_eq!(date(4_107_542_400), "\"2100-03-01 00:00:00\"");
    }

    #[test]
    fn a_concatenation_is_written_part_by_part() {
        let datatype = Datatype::concat(&[Datatype::Ipv4Addr, Datatype::InetService, Datatype::Mark]);
        let bytes = [&[10, 0, 0, 1, 0, 22, 0, 0][..], &7_u32.to_ne_bytes()].concat();
        assert_eq!(text(datatype, &bytes), "10.0.0.1 . 22 . 0x00000007");
        assert_eq!(datatype.to_string(), "ipv4_addr . inet_service . mark");
    }
}
