//! Lists and watches of nodes, decoded piece by piece: of a list of thousands, one node is in memory at
//! a time.

use kube::core::Status;
use kube::core::response::StatusDetails;
use prost::Message as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::node::Node;
use super::proto;

/// Most bytes of one object. The API server takes no larger one.
const MAX_OBJECT_BYTES: usize = 4 << 20;
/// Most bytes of a list without its items.
const MAX_ENVELOPE_BYTES: usize = 64 << 10;
/// Most nodes of a list.
const MAX_NODES: usize = 1 << 17;

/// Why an answer cannot be read.
pub(super) type Unreadable = String;

/// How the API server encodes an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    Json,
    Protobuf,
}

/// The metadata of a list.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct ListEnd {
    /// The version to watch from.
    pub(super) version: String,
    /// Where the next page starts; empty on the last.
    pub(super) next: String,
}

/// Decodes a list.
#[derive(Debug)]
pub(super) struct ListDecoder {
    format: FormatState,
    nodes: usize,
}

#[derive(Debug)]
enum FormatState {
    Json(JsonList),
    Protobuf(ProtobufList),
}

impl ListDecoder {
    pub(super) fn new(format: Format) -> Self {
        let format = match format {
            Format::Json => FormatState::Json(JsonList::default()),
            Format::Protobuf => FormatState::Protobuf(ProtobufList::default()),
        };
        Self { format, nodes: 0 }
    }

    /// Adds to `nodes` those that end in this piece of the answer.
    pub(super) fn feed(&mut self, piece: &[u8], nodes: &mut Vec<Node>) -> Result<(), Unreadable> {
        let before = nodes.len();
        match &mut self.format {
            FormatState::Json(list) => list.feed(piece, nodes)?,
            FormatState::Protobuf(list) => list.feed(piece, nodes)?,
        }
        self.nodes += nodes.len() - before;
        if self.nodes > MAX_NODES {
            return Err(format!("it has more than {MAX_NODES} nodes"));
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<ListEnd, Unreadable> {
        match self.format {
            FormatState::Json(list) => list.finish(),
            FormatState::Protobuf(list) => list.finish(),
        }
    }
}

/// Splits `{..., "items": [{...}, ...], ...}` into its items and the rest.
#[derive(Debug, Default)]
struct JsonList {
    /// Open brackets.
    depth: usize,
    in_string: bool,
    escaped: bool,
    in_items: bool,
    item: Vec<u8>,
    /// Everything but the items, without white space.
    envelope: Vec<u8>,
}

#[derive(Deserialize)]
struct JsonEnvelope {
    metadata: JsonListMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonListMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    r#continue: String,
}

impl JsonList {
    fn feed(&mut self, piece: &[u8], nodes: &mut Vec<Node>) -> Result<(), Unreadable> {
        for byte in piece {
            self.byte(*byte, nodes)?;
        }
        Ok(())
    }

    fn byte(&mut self, byte: u8, nodes: &mut Vec<Node>) -> Result<(), Unreadable> {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return self.keep(byte);
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => {
                let starts_items = byte == b'[' && self.depth == 1 && self.envelope.ends_with(b"\"items\":");
                self.depth += 1;
                if starts_items {
                    self.envelope.push(byte);
                    self.in_items = true;
                    return Ok(());
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.checked_sub(1).ok_or("it closes a bracket too many")?;
                if self.in_items && self.depth == 1 {
                    self.in_items = false;
                } else if self.in_items && self.depth == 2 {
                    self.keep(byte)?;
                    nodes.push(serde_json::from_slice(&self.item).map_err(|error| error.to_string())?);
                    self.item.clear();
                    return Ok(());
                }
            }
            b',' if self.in_items && self.depth == 2 => return Ok(()),
            _ if byte.is_ascii_whitespace() => return Ok(()),
            _ => {}
        }
        self.keep(byte)
    }

    fn keep(&mut self, byte: u8) -> Result<(), Unreadable> {
        let (kept, most) = match self.in_items {
            true => (&mut self.item, MAX_OBJECT_BYTES),
            false => (&mut self.envelope, MAX_ENVELOPE_BYTES),
        };
        kept.push(byte);
        if kept.len() > most { Err(too_large(kept.len())) } else { Ok(()) }
    }

    fn finish(self) -> Result<ListEnd, Unreadable> {
        let JsonEnvelope { metadata } =
            serde_json::from_slice(&self.envelope).map_err(|error| error.to_string())?;
        Ok(ListEnd { version: metadata.resource_version, next: metadata.r#continue })
    }
}

/// Reads `"k8s\0"`, then the fields of an `Unknown`, and in its `raw` those of the list.
#[derive(Debug, Default)]
struct ProtobufList {
    /// What came and is not decoded yet.
    buffer: Vec<u8>,
    /// Bytes of an unused field still to come.
    skip: usize,
    place: Place,
    end: ListEnd,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Place {
    #[default]
    Magic,
    /// In the `Unknown`, before its `raw`.
    Before,
    /// In the list, so many bytes before its end.
    List(usize),
    /// In the `Unknown`, after its `raw`.
    After,
}

impl ProtobufList {
    fn feed(&mut self, piece: &[u8], nodes: &mut Vec<Node>) -> Result<(), Unreadable> {
        self.buffer.extend_from_slice(piece);
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        while let Some(after) = self.step(rest, nodes)? {
            rest = after;
        }
        let done = buffer.len() - rest.len();
        self.buffer = buffer;
        self.buffer.drain(..done);
        Ok(())
    }

    /// Decodes what `rest` starts with. Returns what follows; `None` if there is not enough.
    fn step<'a>(&mut self, rest: &'a [u8], nodes: &mut Vec<Node>) -> Result<Option<&'a [u8]>, Unreadable> {
        if self.skip > 0 {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            return Ok(rest.get(skipped..).filter(|_| skipped > 0));
        }
        if self.place == Place::Magic {
            let Some((magic, after)) = rest.split_at_checked(proto::MAGIC.len()) else { return Ok(None) };
            self.place = Place::Before;
            return if magic == proto::MAGIC { Ok(Some(after)) } else { Err("it is no protobuf".to_owned()) };
        }
        if self.place == Place::List(0) {
            self.place = Place::After;
        }
        let Some(Field { number, length, body }) = Field::read(rest)? else { return Ok(None) };
        let Place::List(left) = self.place else {
            if number == 2 && self.place == Place::Before {
                self.place = Place::List(length);
            } else {
                self.skip = length;
            }
            return Ok(Some(body));
        };
        let size = length.checked_add(rest.len() - body.len());
        let left = size.and_then(|size| left.checked_sub(size)).ok_or("an item is longer than its list")?;
        let most = match number {
            1 => MAX_ENVELOPE_BYTES,
            2 => MAX_OBJECT_BYTES,
            _ => {
                self.place = Place::List(left);
                self.skip = length;
                return Ok(Some(body));
            }
        };
        if length > most {
            return Err(too_large(length));
        }
        let Some((message, after)) = body.split_at_checked(length) else { return Ok(None) };
        if number == 1 {
            let meta = proto::ListMeta::decode(message).map_err(|error| error.to_string())?;
            self.end = ListEnd { version: meta.resource_version, next: meta.r#continue };
        } else {
            nodes.push(proto::Node::decode(message).map_err(|error| error.to_string())?.into());
        }
        self.place = Place::List(left);
        Ok(Some(after))
    }

    fn finish(self) -> Result<ListEnd, Unreadable> {
        let whole = matches!(self.place, Place::List(0) | Place::After);
        if whole && self.skip == 0 && self.buffer.is_empty() { Ok(self.end) } else { Err(cut_off()) }
    }
}

/// A field of a protobuf message: its number, the length of its content (0 for a number) and what
/// follows its header.
struct Field<'a> {
    number: u64,
    length: usize,
    body: &'a [u8],
}

impl<'a> Field<'a> {
    fn read(rest: &'a [u8]) -> Result<Option<Self>, Unreadable> {
        let Some((tag, rest)) = varint(rest)? else { return Ok(None) };
        let Some((value, body)) = varint(rest)? else { return Ok(None) };
        let length = match tag & 7 {
            0 => 0,
            2 => usize::try_from(value).map_err(|_unhelpful| too_large(usize::MAX))?,
            _ => return Err("it has a field of an unknown type".to_owned()),
        };
        Ok(Some(Self { number: tag >> 3, length, body }))
    }
}

/// A number in base 128, the lowest digit first, and what follows it; `None` if it does not end here.
fn varint(bytes: &[u8]) -> Result<Option<(u64, &[u8])>, Unreadable> {
    let Some(last) = bytes.iter().take(10).position(|byte| *byte < 0x80) else {
        return if bytes.len() < 10 { Ok(None) } else { Err("it has a number without end".to_owned()) };
    };
    let (digits, rest) = bytes.split_at(last + 1);
    Ok(Some((digits.iter().rev().fold(0, |value, digit| value << 7 | u64::from(digit & 0x7f)), rest)))
}

/// What a watch says.
#[derive(Debug)]
pub(super) enum WatchItem {
    /// A node is new or changed.
    Apply(Node),
    /// A node is deleted.
    Delete(Node),
    /// Everything up to this version was sent.
    Bookmark(Node),
    /// The watch cannot go on.
    Error(Box<Status>),
}

/// Decodes a watch: JSON of one line each, or protobuf frames with their length before them.
#[derive(Debug)]
pub(super) struct WatchDecoder {
    format: Format,
    buffer: Vec<u8>,
}

#[derive(Deserialize)]
struct JsonEvent<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl WatchDecoder {
    pub(super) fn new(format: Format) -> Self {
        Self { format, buffer: Vec::new() }
    }

    /// Adds to `items` those that end in this piece of the answer.
    pub(super) fn feed(&mut self, piece: &[u8], items: &mut Vec<WatchItem>) -> Result<(), Unreadable> {
        self.buffer.extend_from_slice(piece);
        let mut rest = self.buffer.as_slice();
        loop {
            let (length, frame) = match self.format {
                Format::Json => match rest.iter().position(|byte| *byte == b'\n') {
                    Some(length) => (length, rest.split_at_checked(length + 1)),
                    None => (rest.len(), None),
                },
                Format::Protobuf => {
                    let Some((length, body)) = rest.split_first_chunk() else { break };
                    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                    (length, body.split_at_checked(length))
                }
            };
            if length > MAX_OBJECT_BYTES {
                return Err(too_large(length));
            }
            let Some((frame, after)) = frame else { break };
            match self.format {
                Format::Json if frame.trim_ascii().is_empty() => {}
                Format::Json => items.extend(json_event(frame)?),
                Format::Protobuf => items.extend(protobuf_event(frame)?),
            }
            rest = after;
        }
        let done = self.buffer.len() - rest.len();
        self.buffer.drain(..done);
        Ok(())
    }
}

fn json_event(line: &[u8]) -> Result<Option<WatchItem>, Unreadable> {
    let event: JsonEvent<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let object = event.object.get();
    if event.r#type == "ERROR" {
        let status = serde_json::from_str(object).map_err(|error| error.to_string())?;
        return Ok(Some(WatchItem::Error(status)));
    }
    let node = serde_json::from_str(object).map_err(|error| error.to_string())?;
    Ok(item(event.r#type, node))
}

fn protobuf_event(frame: &[u8]) -> Result<Option<WatchItem>, Unreadable> {
    let unreadable = |error: prost::DecodeError| error.to_string();
    let event = proto::WatchEvent::decode(frame).map_err(unreadable)?;
    let raw = event.object.unwrap_or_default().raw;
    let object = raw.strip_prefix(proto::MAGIC).ok_or("it is no protobuf")?;
    let object = proto::Unknown::decode(object).map_err(unreadable)?;
    if event.r#type == "ERROR" || object.type_meta.is_some_and(|meta| meta.kind == "Status") {
        let status = proto::Status::decode(object.raw.as_slice()).map_err(unreadable)?;
        return Ok(Some(WatchItem::Error(Box::new(status.into()))));
    }
    let node = proto::Node::decode(object.raw.as_slice()).map_err(unreadable)?;
    Ok(item(&event.r#type, node.into()))
}

/// The `Status` that a request is refused with.
pub(super) fn status(text: &[u8]) -> Result<Status, Unreadable> {
    let object = text.strip_prefix(proto::MAGIC).ok_or("it is no protobuf")?;
    let object = proto::Unknown::decode(object).map_err(|error| error.to_string())?;
    proto::Status::decode(object.raw.as_slice()).map(Status::from).map_err(|error| error.to_string())
}

fn item(kind: &str, node: Node) -> Option<WatchItem> {
    match kind {
        "ADDED" | "MODIFIED" => Some(WatchItem::Apply(node)),
        "DELETED" => Some(WatchItem::Delete(node)),
        "BOOKMARK" => Some(WatchItem::Bookmark(node)),
        _ => None,
    }
}

impl From<proto::Status> for Status {
    fn from(status: proto::Status) -> Self {
        let seconds = status.details.unwrap_or_default().retry_after_seconds;
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: seconds.try_into().unwrap_or_default(),
        };
        Self::failure(&status.message, &status.reason)
            .with_code(status.code.try_into().unwrap_or_default())
            .with_details(details)
    }
}

fn too_large(bytes: usize) -> Unreadable {
    format!("it has a part of {bytes} bytes")
}

fn cut_off() -> Unreadable {
    "it is cut off".to_owned()
}

#[cfg(test)]
mod tests;
