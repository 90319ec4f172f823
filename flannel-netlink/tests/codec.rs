//! Bytes in, bytes out; no kernel.

use flannel_netlink::{Attribute, Batch, Flags, Malformed, attributes, messages};
use proptest::prelude::*;

#[test]
fn a_message_is_laid_out_as_the_kernel_reads_it() {
    let mut batch = Batch::new();
    batch.message(24, Flags::CREATE.and(Flags::EXCL), &[2, 0, 0, 0], |attributes| {
        attributes.be32(1, 0x0a00_0001);
        attributes.nested(2, |inside| inside.text(3, "abc"));
        attributes.u8(4, 9);
    });
    let expected: &[u8] = &[
        48, 0, 0, 0, 24, 0, 0x01, 0x06, 0, 0, 0, 0, 0, 0, 0,
        0, // nlmsghdr: 48 bytes, type 24, REQUEST|EXCL|CREATE
        2, 0, 0, 0, // family header
        8, 0, 1, 0, 10, 0, 0, 1, // be32
        12, 0, 2, 0x80, 8, 0, 3, 0, b'a', b'b', b'c', 0, // nested { text }
        5, 0, 4, 0, 9, 0, 0, 0, // u8, padded
    ];
    assert_eq!(batch.as_bytes(), expected);
}

#[test]
fn a_cleared_batch_counts_from_zero() {
    let mut batch = Batch::new();
    assert_eq!(batch.message(1, Flags::NONE, &[], |_| {}), 0);
    assert_eq!(batch.message(1, Flags::NONE, &[], |_| {}), 1);
    batch.clear();
    assert!(batch.is_empty() && batch.as_bytes().is_empty());
    assert_eq!(batch.message(1, Flags::NONE, &[], |_| {}), 0);
}

#[test]
fn a_number_of_the_wrong_width_is_named() {
    let attribute = Attribute { kind: 7, payload: &[1, 2, 3] };
    assert_eq!(attribute.u32(), Err(Malformed::Length { kind: 7, want: 4, have: 3 }));
}

#[test]
fn an_attribute_that_promises_more_than_there_is_ends_the_list() {
    let found: Vec<_> = attributes(&[4, 0, 1, 0, 200, 0, 2, 0]).collect();
    assert_eq!(found, [Ok(Attribute { kind: 1, payload: &[] }), Err(Malformed::Attribute)]);
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(list in proptest::collection::vec((0u16..0x3fff, proptest::collection::vec(any::<u8>(), 0..300)), 0..20)) {
        let mut batch = Batch::new();
        batch.message(5, Flags::NONE, &[1, 2, 3], |attributes| {
            for (kind, payload) in &list {
                attributes.bytes(*kind, payload);
            }
        });
        let message = messages(batch.as_bytes()).next().unwrap().unwrap();
        let (header, attributes) = message.split::<3>().unwrap();
        prop_assert_eq!(header, &[1, 2, 3]);
        let read: Vec<_> = attributes.map(|attribute| attribute.unwrap()).map(|a| (a.kind, a.payload.to_vec())).collect();
        prop_assert_eq!(read, list);
    }

    #[test]
    fn no_bytes_make_the_readers_panic_or_loop(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        for message in messages(&bytes).flatten() {
            let _ = message.split::<16>();
            for attribute in attributes(message.payload).flatten() {
                let _ = (attribute.text(), attribute.u64(), attribute.nested().count());
            }
        }
    }
}
