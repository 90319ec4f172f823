//! The flannel ruleset as text and as the bytes that the kernel gets, checked in.

use std::fmt::Write;

use crate::common::*;
use flannel_nft::*;

/// 16 bytes a line; sequence numbers are 0 until it is sent.
fn hex(bytes: &[u8]) -> String {
    bytes.chunks(16).fold(String::new(), |mut text, line| {
        let words: Vec<String> =
            line.chunks(4).map(|word| word.iter().map(|b| format!("{b:02x}")).collect()).collect();
        writeln!(text, "{}", words.join(" ")).unwrap();
        text
    })
}

#[test]
fn flannels_ruleset_as_text() {
    testkit::golden("tests/golden/flannel.nft", &flannel().to_string());
}

#[test]
fn flannels_ruleset_as_a_script() {
    let mut kernel = FakeKernel::default();
    converge(&mut kernel, &flannel()).unwrap();
    testkit::golden("tests/golden/flannel.script.nft", kernel.script());
}

#[test]
fn flannels_ruleset_as_bytes() {
    let mut kernel = FakeKernel::default();
    let observed = observe(&mut kernel, &flannel().scope()).unwrap();
    let sealed = diff(&flannel(), &observed).seal().unwrap();
    testkit::golden("tests/golden/flannel.hex", &hex(sealed.as_bytes()));
}
