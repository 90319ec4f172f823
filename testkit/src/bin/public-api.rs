//! Prints the public interface of a crate, an item a line, from rustdoc's JSON of it: `public-api FILE.json`.
//!
//! `scripts/check-public-api` compares it with the committed listing.
#![expect(clippy::print_stdout, reason = "its output is the listing")]

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: public-api FILE.json")?;
    let interface = public_api::Builder::from_rustdoc_json(file)
        // What every type has, or what its `derive` says.
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()?;
    print!("{interface}");
    Ok(())
}
