//! Encodings of answers: JSON or protobuf, whole objects or metadata only, zipped or not.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING};
use serde_json::{Value, json};

use super::MediaTypes;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// The API server zips answers from this size on.
const GZIP_BYTES: usize = 128 << 10;

/// How an answer is encoded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Encoding {
    pub(super) protobuf: bool,
    /// Only the metadata of each object.
    metadata: bool,
    gzip: bool,
}

impl Encoding {
    /// The first that the client names and this server has; `None` if there is none.
    pub(super) fn negotiate(headers: &HeaderMap, known: MediaTypes) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if known == MediaTypes::IgnoresAccept {
            return Some(Self::default());
        }
        let gzip = known == MediaTypes::All && text(ACCEPT_ENCODING).contains("gzip");
        let accept = Some(text(ACCEPT)).filter(|accept| !accept.is_empty()).unwrap_or("*/*");
        accept.split(',').find_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let protobuf = match parts.next()? {
                PROTOBUF if known == MediaTypes::All => true,
                "application/json" | "application/*" | "*/*" => false,
                _ => return None,
            };
            let metadata = parts.any(|part| part.starts_with("as=PartialObjectMetadata"));
            (known != MediaTypes::WholeJson || !metadata).then_some(Self { protobuf, metadata, gzip })
        })
    }

    pub(super) fn content_type(self, watch: bool) -> &'static str {
        match (self.protobuf, watch) {
            (true, true) => "application/vnd.kubernetes.protobuf;stream=watch",
            (true, false) => PROTOBUF,
            (false, _) => "application/json",
        }
    }

    /// An answer that is no watch, and whether it is zipped.
    pub(super) fn whole(self, object: &Value) -> (Vec<u8>, bool) {
        let plain = match (self.protobuf, self.reduced(object)) {
            (true, object) => unknown(&object),
            (false, object) => object.to_string().into_bytes(),
        };
        if !self.gzip || plain.len() < GZIP_BYTES {
            return (plain, false);
        }
        let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
        let done = zipped.write_all(&plain).and_then(|()| zipped.finish());
        done.map_or((plain, false), |zipped| (zipped, true))
    }

    /// An event of a watch.
    pub(super) fn event(self, kind: &str, object: &Value) -> Vec<u8> {
        let object = self.reduced(object);
        if self.protobuf {
            let raw = message(|out| bytes(out, 1, &unknown(&object)));
            let frame = message(|out| {
                bytes(out, 1, kind.as_bytes());
                bytes(out, 2, &raw);
            });
            let length = u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes();
            [&length, frame.as_slice()].concat()
        } else {
            format!("{}\n", json!({ "type": kind, "object": object })).into_bytes()
        }
    }

    fn reduced(self, object: &Value) -> Value {
        let partial = |object: &Value| json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] });
        match object["kind"].as_str() {
            Some("Node") if self.metadata => partial(object),
            Some("NodeList") if self.metadata => {
                let items: Vec<Value> =
                    object["items"].as_array().into_iter().flatten().map(partial).collect();
                json!({
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": object["metadata"],
                    "items": items,
                })
            }
            _ => object.clone(),
        }
    }
}

/// An object as the API server frames it.
fn unknown(object: &Value) -> Vec<u8> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let raw = match kind {
        "Status" => status(object),
        list if list.ends_with("List") => message(|out| {
            let meta = &object["metadata"];
            bytes(
                out,
                1,
                &message(|out| {
                    text(out, 1, &Value::Null);
                    text(out, 2, &meta["resourceVersion"]);
                    text(out, 3, &meta["continue"]);
                }),
            );
            for item in object["items"].as_array().into_iter().flatten() {
                bytes(out, 2, &node(item));
            }
        }),
        _ => node(object),
    };
    let head = message(|out| {
        text(out, 1, &object["apiVersion"]);
        text(out, 2, &object["kind"]);
    });
    let mut all = b"k8s\0".to_vec();
    bytes(&mut all, 1, &head);
    bytes(&mut all, 2, &raw);
    bytes(&mut all, 3, b"");
    bytes(&mut all, 4, b"");
    all
}

fn status(status: &Value) -> Vec<u8> {
    message(|out| {
        text(out, 2, &status["status"]);
        text(out, 3, &status["message"]);
        text(out, 4, &status["reason"]);
        let seconds = &status["details"]["retryAfterSeconds"];
        bytes(out, 5, &message(|out| number(out, 5, seconds)));
        number(out, 6, &status["code"]);
    })
}

/// A `Node`, or a `PartialObjectMetadata` of one.
fn node(node: &Value) -> Vec<u8> {
    message(|out| {
        bytes(out, 1, &metadata(&node["metadata"]));
        if node["kind"] == "PartialObjectMetadata" {
            return;
        }
        let (spec, status) = (&node["spec"], &node["status"]);
        bytes(
            out,
            2,
            &message(|out| {
                text(out, 1, &spec["podCIDR"]);
                for cidr in spec["podCIDRs"].as_array().into_iter().flatten() {
                    text(out, 7, cidr);
                }
            }),
        );
        bytes(
            out,
            3,
            &message(|out| {
                for condition in status["conditions"].as_array().into_iter().flatten() {
                    bytes(
                        out,
                        4,
                        &message(|out| {
                            for (at, field) in [(1, "type"), (2, "status"), (5, "reason"), (6, "message")] {
                                text(out, at, &condition[field]);
                            }
                        }),
                    );
                }
                for image in status["images"].as_array().into_iter().flatten() {
                    bytes(
                        out,
                        8,
                        &message(|out| {
                            for name in image["names"].as_array().into_iter().flatten() {
                                text(out, 1, name);
                            }
                            number(out, 2, &image["sizeBytes"]);
                        }),
                    );
                }
            }),
        );
    })
}

fn metadata(metadata: &Value) -> Vec<u8> {
    message(|out| {
        for (at, field) in [(1, "name"), (5, "uid"), (6, "resourceVersion")] {
            text(out, at, &metadata[field]);
        }
        if let Some(seconds) = metadata["creationTimestamp"].as_str().and_then(seconds) {
            bytes(out, 8, &message(|out| number(out, 1, &seconds.into())));
        }
        for (at, field) in [(11, "labels"), (12, "annotations")] {
            for (name, value) in metadata[field].as_object().into_iter().flatten() {
                bytes(
                    out,
                    at,
                    &message(|out| {
                        bytes(out, 1, name.as_bytes());
                        text(out, 2, value);
                    }),
                );
            }
        }
        for entry in metadata["managedFields"].as_array().into_iter().flatten() {
            bytes(
                out,
                17,
                &message(|out| {
                    text(out, 1, &entry["manager"]);
                    text(out, 2, &entry["operation"]);
                    let fields = entry["fieldsV1"].to_string();
                    bytes(out, 7, &message(|out| bytes(out, 1, fields.as_bytes())));
                }),
            );
        }
    })
}

fn message(fields: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    fields(&mut out);
    out
}

fn bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, content.len().try_into().unwrap_or(u64::MAX));
    out.extend_from_slice(content);
}

fn text(out: &mut Vec<u8>, field: u64, value: &Value) {
    bytes(out, field, value.as_str().unwrap_or_default().as_bytes());
}

fn number(out: &mut Vec<u8>, field: u64, value: &Value) {
    varint(out, field << 3);
    varint(out, value.as_u64().unwrap_or_default());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Seconds since 1970 of a time such as `2026-01-02T03:04:05Z`.
fn seconds(time: &str) -> Option<u64> {
    let part = |from: usize, to: usize| time.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    // Years from March on, so that the day that is added every four years is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    Some((days.checked_sub(719_469)? * 24 + part(11, 13)?) * 3600 + part(14, 16)? * 60 + part(17, 19)?)
}
