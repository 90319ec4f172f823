//! What the kernel holds, in three views.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io;

use flannel_netlink::{Attributes, Batch, Flags, Malformed, Message, Protocol, Socket};
use testkit::try_sh;

use crate::uapi::*;

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
    /// The attribute with nft's remarks for itself, and which kinds of these matter.
    userdata: Option<(u16, &'static [u8])>,
}

/// An element's `NFTA_SET_ELEM_USERDATA` with `NFTNL_UDATA_SET_ELEM_FLAGS`, four bytes: 1, padded. nft's remark on a range
/// that ends where all addresses end; it finds and deletes the range without it, too.
const OPEN_END: &str = "0a0006000104010000000000";
const DUMPS: [Dump; 5] = [
    Dump {
        what: "table",
        question: NFT_MSG_GETTABLE,
        volatile: &[NFTA_TABLE_HANDLE, NFTA_TABLE_OWNER],
        userdata: Some((NFTA_TABLE_USERDATA, &[NFTNL_UDATA_TABLE_COMMENT])),
    },
    Dump { what: "chain", question: NFT_MSG_GETCHAIN, volatile: &[NFTA_CHAIN_HANDLE], userdata: None },
    Dump {
        what: "rule",
        question: NFT_MSG_GETRULE,
        volatile: &[NFTA_RULE_HANDLE, NFTA_RULE_POSITION],
        userdata: None,
    },
    Dump {
        what: "set",
        question: NFT_MSG_GETSET,
        volatile: &[NFTA_SET_HANDLE, NFTA_SET_COUNT],
        userdata: Some((
            NFTA_SET_USERDATA,
            &[NFTNL_UDATA_SET_KEYBYTEORDER, NFTNL_UDATA_SET_DATABYTEORDER, NFTNL_UDATA_SET_COMMENT],
        )),
    },
    Dump { what: "object", question: NFT_MSG_GETOBJ, volatile: &[NFTA_OBJ_HANDLE], userdata: None },
];

impl State {
    /// Reads it.
    ///
    /// # Errors
    /// If nft cannot list or the kernel does not answer.
    pub fn read() -> io::Result<Self> {
        let nft =
            |arguments: &str| try_sh(&format!("nft {arguments} list ruleset")).map_err(io::Error::other);
        Ok(Self { text: nft("")?, json: without_handles(&nft("-j")?), raw: raw()? })
    }
}

/// Lines that one of two states lacks, under the view in which they are missing; empty if the states are the same.
#[must_use]
pub fn differences(left: &State, right: &State) -> String {
    let views = [
        ("text", &left.text, &right.text),
        ("json", &left.json, &right.json),
        ("raw", &left.raw, &right.raw),
    ];
    views.into_iter().map(|(view, left, right)| difference(view, left, right)).collect()
}

/// The same for what nft lists only: it reads two neighbouring fields of a packet (`ip saddr A ip daddr B`) with one
/// instruction, everybody else with two, so that the raw views of the same rule differ.
#[must_use]
pub fn listed_differences(left: &State, right: &State) -> String {
    difference("text", &left.text, &right.text) + &difference("json", &left.json, &right.json)
}

fn difference(view: &str, left: &str, right: &str) -> String {
    if left == right {
        return String::new();
    }
    let lacking = |from: &str, of: &str, sign: char| {
        let lines: HashSet<&str> = of.lines().collect();
        let lacking = from.lines().filter(|line| !lines.contains(line));
        lacking.fold(String::new(), |report, line| format!("{report}{sign} {line}\n"))
    };
    format!("{view}:\n{}{}", lacking(left, right, '-'), lacking(right, left, '+'))
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
        let read = ask(&mut socket, dump.question, 0, |_| {}, |message| object(dump, message))?;
        for (line, set) in read {
            lines.push_str(&line);
            lines.push('\n');
            sets.extend(set);
        }
    }
    for SetAddress { family, table, name } in sets {
        let of_set = |a: &mut Attributes<'_>| {
            a.bytes(NFTA_SET_ELEM_LIST_TABLE, &table);
            a.bytes(NFTA_SET_ELEM_LIST_SET, &name);
        };
        let mut elements = ask(&mut socket, NFT_MSG_GETSETELEM, family, of_set, elements)?.concat();
        // The order of a hash set's elements means nothing.
        elements.sort();
        let _infallible =
            writeln!(lines, "elements {family} {} {} {}", hex(&table), hex(&name), elements.join(" "));
    }
    Ok(lines)
}

struct SetAddress {
    family: u8,
    table: Vec<u8>,
    name: Vec<u8>,
}

/// One object as a line, and where to ask for its elements if it is a set.
fn object(dump: &Dump, message: &Message<'_>) -> Result<(String, Option<SetAddress>), Malformed> {
    let ([family, ..], attributes) = message.split::<4>()?;
    let mut line = format!("{} {family}", dump.what);
    let mut set = SetAddress { family: *family, table: Vec::new(), name: Vec::new() };
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_SET_TABLE => set.table = attribute.payload.to_vec(),
            NFTA_SET_NAME => set.name = attribute.payload.to_vec(),
            _ => {}
        }
        if !dump.volatile.contains(&attribute.kind) {
            let mut payload = hex(attribute.payload);
            if let Some((_, kept)) = dump.userdata.filter(|(kind, _)| *kind == attribute.kind) {
                payload = hex(&without_remarks(attribute.payload, kept));
            }
            let _infallible = write!(line, " {}={payload}", attribute.kind);
        }
    }
    Ok((line, (dump.question == NFT_MSG_GETSET).then_some(set)))
}

/// Keeps comments, and the byte orders of sets. The rest is what nft notes for itself: how a type was written, that values
/// are not ranges, its own version (libnftnl, include/libnftnl/udata.h).
fn without_remarks(mut userdata: &[u8], kept_kinds: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    while let [kind, length, ..] = userdata {
        let Some((one, rest)) = userdata.split_at_checked(2 + usize::from(*length)) else { break };
        if kept_kinds.contains(kind) {
            kept.extend_from_slice(one);
        }
        userdata = rest;
    }
    kept
}

fn elements(message: &Message<'_>) -> Result<Vec<String>, Malformed> {
    let (_, attributes) = message.split::<4>()?;
    let mut found = Vec::new();
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == NFTA_SET_ELEM_LIST_ELEMENTS {
            for element in flannel_netlink::attributes(attribute.payload) {
                let element = element?.payload;
                if !is_end_before_all(element)? {
                    found.push(hex(element).replace(OPEN_END, ""));
                }
            }
        }
    }
    Ok(found)
}

/// Whether this ends a range at key 0, where none can: nft begins the sets that it makes so, and means nothing by it.
fn is_end_before_all(element: &[u8]) -> Result<bool, Malformed> {
    let (mut zero, mut end) = (false, false);
    for attribute in flannel_netlink::attributes(element) {
        let attribute = attribute?;
        match attribute.kind {
            // Behind the header of the value inside.
            NFTA_SET_ELEM_KEY => zero = attribute.payload.iter().skip(4).all(|byte| *byte == 0),
            NFTA_SET_ELEM_FLAGS => end = attribute.be32()? == NFT_SET_ELEM_INTERVAL_END,
            _ => {}
        }
    }
    Ok(zero && end)
}

fn ask<T>(
    socket: &mut Socket,
    question: u16,
    family: u8,
    filter: impl FnOnce(&mut Attributes<'_>),
    read: impl Fn(&Message<'_>) -> Result<T, Malformed>,
) -> io::Result<Vec<T>> {
    let mut batch = Batch::new();
    batch.message(NFNL_SUBSYS_NFTABLES << 8 | question, Flags::DUMP, &[family, 0, 0, 0], filter);
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
