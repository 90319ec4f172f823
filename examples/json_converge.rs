//! Makes the kernel hold the tables of a saved `nft -j list ruleset`, in one commit, and leaves other tables alone.
//! Without a file, it prints all tables in that format.
//!
//! `nft -j list ruleset >saved.json; sudo cargo run -p flannel-examples --example json_converge -- saved.json`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::fs;

use flannel_nft::{Kernel, Netlink, NftVersion, converge_with, diff, json, observe};

fn main() -> Result<(), Box<dyn Error>> {
    let mut kernel = Netlink::open()?;
    let Some(file) = std::env::args().nth(1) else {
        let tables = kernel.tables()?;
        let observed = observe(&mut kernel, &tables)?;
        println!("{}", json::print(&observed.ruleset, NftVersion::default()));
        return Ok(());
    };
    let desired = json::parse(&fs::read_to_string(&file)?).map_err(|error| format!("{file}: {error}"))?;
    // This is `converge`, and prints what it does.
    converge_with(&mut kernel, &desired.scope(), |observed| {
        let changes = diff(&desired, observed);
        print!("{changes}");
        changes
    })?;
    Ok(())
}
