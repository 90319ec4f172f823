//! What the values of flags may be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::{Arg, ArgAction};
use regex::Regex;

/// Gives a flag whose value is a `BOOL` the syntax of Go's `flag` package: `-flag`, or `-flag=true`.
pub(super) fn go_flag(flag: Arg) -> Arg {
    if flag.get_value_names().is_none_or(|names| names != ["BOOL"]) {
        return flag;
    }
    flag.action(ArgAction::Set)
        .value_parser(go_bool)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
}

/// The words of Go's `strconv.ParseBool`.
fn go_bool(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("invalid boolean value; true or false is expected"),
    }
}

/// A whole number as Go's `strconv.ParseInt(text, 0, 64)` reads it: `0x1f`, `0o17` or `017`, `0b11`; `1_000`.
fn go_int<T: TryFrom<i64>>(text: &str) -> Option<T> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = unsigned.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, lower.get(2..)?),
        Some("0o") => (8, lower.get(2..)?),
        Some("0b") => (2, lower.get(2..)?),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, lower.get(1..)?),
        _ => (10, lower.as_str()),
    };
    // An underscore stands between two digits, of which the prefix is one.
    let prefixed = radix != 10;
    if digits.ends_with('_') || digits.contains("__") || (digits.starts_with('_') && !prefixed) {
        return None;
    }
    let digits = digits.replace('_', "");
    if !digits.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return None;
    }
    let signed = if negative { format!("-{digits}") } else { digits };
    i64::from_str_radix(&signed, radix).ok()?.try_into().ok()
}

pub(super) fn regex(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| {
        let cause = error.to_string();
        let cause = cause.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("could not compile the IP address regex '{text}': {cause}")
    })
}

/// As in Go, an IPv4-mapped IPv6 address is its IPv4 address.
pub(super) fn ip(text: &str) -> Result<IpAddr, &'static str> {
    let address = text.parse().map(|address: IpAddr| address.to_canonical());
    address.ok().ok_or("an IPv4 or IPv6 address is expected")
}

pub(super) fn ipv4(text: &str) -> Result<Ipv4Addr, String> {
    match ip(text) {
        Ok(IpAddr::V4(address)) => Ok(address),
        _ => Err(format!("invalid public IP address: {text}; an IPv4 address is expected")),
    }
}

pub(super) fn ipv6(text: &str) -> Result<Ipv6Addr, String> {
    match ip(text) {
        Ok(IpAddr::V6(address)) => Ok(address),
        _ => Err(format!("invalid public IPv6 address: {text}; an IPv6 address is expected")),
    }
}

pub(super) fn port(text: &str) -> Result<u16, &'static str> {
    go_int(text).ok_or("a port from 0 to 65535 is expected")
}

pub(super) fn renew_margin(text: &str) -> Result<u16, &'static str> {
    go_int(text).filter(|minutes| (1..1440).contains(minutes)).ok_or(
        "Invalid subnet-lease-renew-margin option, out of acceptable range: 1 to 1439 minutes are expected",
    )
}

pub(super) fn resync(text: &str) -> Result<u32, &'static str> {
    go_int(text).filter(|seconds| *seconds > 0).ok_or("a whole number of seconds, at least 1, is expected")
}

pub(super) fn verbosity(text: &str) -> Result<i32, &'static str> {
    go_int(text).ok_or("a whole number is expected")
}

#[cfg(test)]
mod tests {
    use super::go_int;

    /// What `strconv.ParseInt(text, 0, 64)` gives (Go 1.25, strconv/atoi.go and its `underscoreOK`).
    #[test]
    fn whole_numbers_are_written_as_in_go() {
        for (text, value) in [
            ("8081", 8081),
            ("+5", 5),
            ("-5", -5),
            ("0", 0),
            ("-0x1F", -31),
            ("0X_1f", 31),
            ("017", 15),
            ("0o17", 15),
            ("0_7", 7),
            ("0b101", 5),
            ("1_000", 1000),
        ] {
            assert_eq!(go_int::<i64>(text), Some(value), "{text}");
        }
        for text in [
            "",
            "-",
            "+",
            "0x",
            "08",
            "1__0",
            "_1",
            "1_",
            "0x_",
            "1.5",
            " 1",
            "1 ",
            "--5",
            "+-5",
            "9223372036854775808",
        ] {
            assert_eq!(go_int::<i64>(text), None, "{text}");
        }
        assert_eq!(go_int::<u16>("65536"), None);
    }
}
