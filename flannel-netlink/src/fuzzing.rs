//! What the fuzz targets in testkit/fuzz call; no public API.

/// Reads messages, their attributes, and errors with extended acks.
pub fn netlink(bytes: &[u8]) {
    for message in crate::messages(bytes).flatten() {
        let _read_or_malformed = message.refusal(0);
        for header in [message.split::<4>().map(|(_, a)| a), message.split::<16>().map(|(_, a)| a)] {
            for attribute in header.into_iter().flatten().flatten() {
                let _read_or_malformed = (attribute.text(), attribute.u32(), attribute.be64());
                let _count = attribute.nested().count();
            }
        }
    }
}
