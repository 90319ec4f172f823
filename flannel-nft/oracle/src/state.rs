//! What the kernel holds, in three views.

use std::fmt::Write as _;
use std::io;

use flannel_netlink::{Attributes, Batch, Flags, Malformed, Message, Protocol, Socket};
use testkit::try_sh;

/// The nf_tables of this network namespace: two states are the same if all views are.
///
/// Handles, positions and owners' ports are left out: they tell how often something was made, not what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    /// `nft list ruleset`.
    pub text: String,
    /// `nft -j list ruleset`.
    pub json: String,
    /// Everything that the kernel dumps, attribute by attribute, a line each.
    pub raw: String,
}

/// Message and attributes in it that differ between equal objects.
struct Dump {
    what: &'static str,
    question: u16,
    volatile: &'static [u16],
}

const GETSET: u16 = 0xa0a;
const GETSETELEM: u16 = 0xa0d;
const DUMPS: [Dump; 5] = [
    Dump { what: "table", question: 0xa01, volatile: &[4, 7] },
    Dump { what: "chain", question: 0xa04, volatile: &[2] },
    Dump { what: "rule", question: 0xa07, volatile: &[3, 6] },
    Dump { what: "set", question: GETSET, volatile: &[16] },
    Dump { what: "object", question: 0xa13, volatile: &[6] },
];

impl State {
    /// Reads it.
    ///
    /// # Errors
    /// If nft cannot list or the kernel does not answer.
    pub fn read() -> io::Result<Self> {
        let nft = |arguments: &str| try_sh(&format!("nft {arguments} list ruleset")).map_err(io::Error::other);
        Ok(Self { text: nft("")?, json: without_handles(&nft("-j")?), raw: raw()? })
    }

    /// Without the raw view: nft reads two neighbouring fields of a packet with one instruction where others take two.
    #[must_use]
    pub fn as_listed(&self) -> (&str, &str) {
        (&self.text, &self.json)
    }
}

/// The views in which two states differ, with both sides; empty if they are the same.
#[must_use]
pub fn differences(left: &State, right: &State) -> String {
    let mut report = String::new();
    let views = [("text", &left.text, &right.text), ("json", &left.json, &right.json), ("raw", &left.raw, &right.raw)];
    for (view, left, right) in views {
        if left != right {
            let _infallible = writeln!(report, "{view}:\n{left}\n--- but ---\n{right}");
        }
    }
    report
}

/// Drops `"handle": 12, ` and the like.
fn without_handles(json: &str) -> String {
    let mut kept = String::new();
    let mut rest = json;
    while let Some((before, after)) = rest.split_once("\"handle\": ") {
        kept.push_str(before);
        let digits = after.trim_start_matches(|letter: char| letter.is_ascii_digit());
        rest = digits.strip_prefix(", ").unwrap_or(digits);
    }
    kept.push_str(rest);
    kept
}

fn raw() -> io::Result<String> {
    let mut socket = Socket::open(Protocol::Netfilter).map_err(io::Error::other)?;
    let mut lines = String::new();
    let mut sets = Vec::new();
    for dump in &DUMPS {
        let list = ask(&mut socket, dump.question, 0, |_| {}, |message| {
            let (header, attributes) = message.split::<4>()?;
            let mut line = format!("{} {}", dump.what, header[0]);
            let mut set = (header[0], Vec::new(), Vec::new());
            for attribute in attributes {
                if dump.question == GETSET && attribute.kind == 1 {
                    set.1 = attribute.payload.to_vec();
                } else if dump.question == GETSET && attribute.kind == 2 {
                    set.2 = attribute.payload.to_vec();
                }
                if !dump.volatile.contains(&attribute.kind) {
                    let _infallible = write!(line, " {}={}", attribute.kind, hex(attribute.payload));
                }
            }
            Ok((line, set))
        })?;
        for (line, set) in list {
            lines.push_str(&line);
            lines.push('\n');
            if dump.question == GETSET {
                sets.push(set);
            }
        }
    }
    for (family, table, name) in sets {
        let of_set = |a: &mut Attributes<'_>| {
            a.bytes(1, &table);
            a.bytes(2, &name);
        };
        let parts = ask(&mut socket, GETSETELEM, family, of_set, |message| {
            let (_, attributes) = message.split::<4>()?;
            let lists = attributes.filter(|attribute| attribute.kind == 3);
            let elements = lists.flat_map(|list| flannel_netlink::attributes(list.payload));
            Ok(elements.map(|element| hex(element.payload)).collect::<Vec<_>>())
        })?;
        // The order of a hash set's elements means nothing.
        let mut elements: Vec<String> = parts.into_iter().flatten().collect();
        elements.sort();
        let _infallible = writeln!(lines, "elements {family} {} {} {}", hex(&table), hex(&name), elements.join(" "));
    }
    Ok(lines)
}

fn ask<T>(
    socket: &mut Socket,
    question: u16,
    family: u8,
    filter: impl FnOnce(&mut Attributes<'_>),
    read: impl Fn(&Message<'_>) -> Result<T, Malformed>,
) -> io::Result<Vec<T>> {
    let mut batch = Batch::new();
    batch.message(question, Flags::DUMP, &[family, 0, 0, 0], filter);
    let fold = |list: &mut Vec<T>, message: Message<'_>| {
        list.push(read(&message)?);
        Ok(())
    };
    socket.dump(&mut batch, fold).map_err(io::Error::other)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
