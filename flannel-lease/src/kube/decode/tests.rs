//! Answers of kube-apiserver 1.36.3, as they came and damaged.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/golden/kube/", $name)).as_slice()
    };
}

const LISTS: [(Format, &[u8], bool); 4] = [
    (Format::Json, golden!("metadata.json"), false),
    (Format::Json, golden!("nodes.json"), true),
    (Format::Protobuf, golden!("metadata.pb"), false),
    (Format::Protobuf, golden!("nodes.pb"), true),
];
const WATCHES: [(Format, &[u8]); 2] =
    [(Format::Json, golden!("watch.json")), (Format::Protobuf, golden!("watch.pb"))];

fn list(format: Format, text: &[u8], piece: usize) -> Result<(Vec<Node>, ListEnd), Unreadable> {
    let (mut decoder, mut nodes) = (ListDecoder::new(format), Vec::new());
    for piece in text.chunks(piece) {
        decoder.feed(piece, &mut nodes)?;
    }
    Ok((nodes, decoder.finish()?))
}

fn watch(format: Format, text: &[u8], piece: usize) -> Result<Vec<WatchItem>, Unreadable> {
    let (mut decoder, mut items) = (WatchDecoder::new(format), Vec::new());
    for piece in text.chunks(piece) {
        decoder.feed(piece, &mut items)?;
    }
    Ok(items)
}

#[test]
fn lists_of_a_real_api_server_are_the_same_nodes_in_every_encoding_and_in_pieces_of_any_size() {
    for (format, text, whole) in LISTS {
        for piece in [1, 7, 4096, text.len()] {
            let (nodes, end) = list(format, text, piece).expect("a list");
            assert!(end.version.parse::<u64>().is_ok() && !end.next.is_empty(), "{end:?}");
            let names: Vec<&str> = nodes.iter().map(Node::name).collect();
            assert_eq!(names, ["node-00001", "node-00002"]);
            for (node, subnet) in nodes.iter().zip(["10.100.1.0-24", "10.100.2.0-24"]) {
                assert_eq!(node.has_spec(), whole);
                assert_eq!(node.network_is_available, whole.then_some(true));
                assert_eq!(node.key(true, false).expect("read").expect("assigned").to_string(), subnet);
                assert_eq!(node.annotations()["flannel.alpha.coreos.com/backend-type"], "vxlan");
                assert!(node.version() > 0 && node.uid().len() == 36 && node.claimant().created > 0);
            }
        }
    }
}

#[test]
fn watches_of_a_real_api_server_say_the_same_in_every_encoding() {
    for (format, text) in WATCHES {
        for piece in [1, 7, text.len()] {
            let items = watch(format, text, piece).expect("a watch");
            let [
                WatchItem::Apply(changed),
                WatchItem::Apply(new),
                WatchItem::Delete(gone),
                WatchItem::Bookmark(mark),
            ] = items.as_slice()
            else {
                panic!("{items:?}");
            };
            assert_eq!((changed.name(), changed.annotations()["x"].as_str()), ("node-00002", "y"));
            assert_eq!((new.name(), new.pod_cidrs(), new.has_spec()), ("brief", None, false));
            assert_eq!((gone.name(), gone.uid()), ("brief", new.uid()));
            assert_eq!(mark.resource_version(), gone.resource_version());
        }
    }
    for (format, text) in [(Format::Json, golden!("gone.json")), (Format::Protobuf, golden!("gone.pb"))] {
        let items = watch(format, text, text.len()).expect("a watch");
        assert!(matches!(items.as_slice(), [WatchItem::Error(status)] if status.code == 410), "{items:?}");
    }
    let missing = status(golden!("status.pb")).expect("a status");
    assert_eq!((missing.code, missing.reason.as_str()), (404, "NotFound"));
}

#[test]
fn a_list_that_is_cut_off_is_no_list() {
    for (format, text, _) in LISTS {
        for length in [0, 1, 4, 30, text.len() / 2, text.len() - 20] {
            let cut = text.get(..length).expect("a part");
            assert!(list(format, cut, 4096).is_err(), "{format:?} of {length} bytes");
        }
    }
}

#[test]
fn items_are_found_however_the_json_is_written() {
    let written = r#" { "kind" : "NodeList", "items" : [ {"metadata":{"name":"a","annotations":{"k":"\"]},{"}}} ,
        {"metadata":{"name":"b"},"spec":{"items":[1]}} ], "metadata": { "resourceVersion" : "7" } } "#;
    let (nodes, end) = list(Format::Json, written.as_bytes(), 3).expect("a list");
    assert_eq!(nodes.iter().map(Node::name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(end, ListEnd { version: "7".to_owned(), next: String::new() });
    let empty = br#"{"items":null,"metadata":{"resourceVersion":"7"}}"#;
    assert!(list(Format::Json, empty, 9).expect("a list").0.is_empty());
}

#[test]
fn a_server_cannot_make_the_client_keep_much() {
    let endless = |format, start: &[u8], filler: &[u8]| {
        let (mut decoder, mut nodes) = (ListDecoder::new(format), Vec::new());
        let mut fed = decoder.feed(start, &mut nodes);
        for _ in 0..(3 * MAX_OBJECT_BYTES / filler.len()) {
            if fed.is_ok() {
                fed = decoder.feed(filler, &mut nodes);
            }
        }
        fed.expect_err("refused")
    };
    let letters = [b'a'; 4096];
    assert!(endless(Format::Json, b"{\"kind\":\"", &letters).contains("bytes"));
    assert!(endless(Format::Json, b"{\"items\":[{\"kind\":\"", &letters).contains("bytes"));
    assert!(endless(Format::Json, b"", b"]]").contains("bracket"));
    let small = br#"{"metadata":{}},"#;
    assert!(endless(Format::Json, b"{\"items\":[", small).contains("nodes"));
    // An item of 2^60 bytes in a list of as many.
    let long = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    let start = [b"k8s\0\x12".as_slice(), &[0xff; 8], b"\x7f\x12", &long].concat();
    assert!(endless(Format::Protobuf, &start, &letters).contains("bytes"));
    assert!(endless(Format::Protobuf, b"k8s\0\x12\x05\x12\x7f", &letters).contains("longer than its list"));
    assert!(endless(Format::Protobuf, b"k8s\0", &[0xff; 10]).contains("without end"));

    let mut decoder = WatchDecoder::new(Format::Protobuf);
    assert!(decoder.feed(&[0x7f, 0, 0, 0], &mut Vec::new()).is_err());
    let mut decoder = WatchDecoder::new(Format::Json);
    let fed =
        (0..=MAX_OBJECT_BYTES / letters.len()).try_for_each(|_| decoder.feed(&letters, &mut Vec::new()));
    assert!(fed.is_err());
}

proptest! {
    #[test]
    fn no_answer_is_a_panic(
        which in 0_usize..LISTS.len(),
        damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
        piece in 1_usize..5000,
    ) {
        let broken = |text: &[u8]| {
            let mut text = text.to_vec();
            for (at, value) in &damage {
                *at.get_mut(&mut text) = *value;
            }
            text
        };
        let (format, text, _) = LISTS[which];
        let _read = list(format, &broken(text), piece);
        let (format, text) = WATCHES[which % 2];
        let _read = watch(format, &broken(text), piece);
        let _read = status(&broken(golden!("status.pb")));
    }
}
