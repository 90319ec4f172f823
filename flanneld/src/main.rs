//! The `flanneld` daemon.

fn main() {}
