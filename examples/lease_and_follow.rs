//! Leases a subnet in a file that several agents of one machine share, and follows the leases of the others.
//!
//! `cargo run -p flannel-examples --example lease_and_follow -- /tmp/leases.db 192.0.2.1`, and once more
//! with another address in a second terminal. Needs no root. Ends with Ctrl-C; the lease stays until it
//! expires, so that the next run with the same address gets the same subnet.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::net::Ipv4Addr;
use std::path::Path;

use flannel_lease::sqlite::SqliteStore;
use flannel_lease::{
    AllocationRange, FamilyRange, LeaseAttributes, LeaseRequest, LeaseStore, LeaseTable, Timing,
};
use tokio::sync::mpsc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(address)) = (arguments.next(), arguments.next()) else {
        return Err("usage: lease_and_follow LEASE-FILE IPV4-ADDRESS".into());
    };
    let address: Ipv4Addr = address.parse()?;
    let range = FamilyRange {
        network: "10.244.0.0/16".parse()?,
        subnet_len: 24,
        min: Ipv4Addr::new(10, 244, 1, 0),
        max: Ipv4Addr::new(10, 244, 255, 0),
    };
    let request = LeaseRequest {
        attributes: LeaseAttributes { public_ip: Some(address), ..LeaseAttributes::default() },
        range: AllocationRange { v4: Some(range), ..AllocationRange::default() },
        ..LeaseRequest::default()
    };
    let store = SqliteStore::open(Path::new(&file), Timing::default()).await?;
    let lease = store.acquire(&request).await?;
    println!("leased {}", lease.key);

    let (events_tx, mut events_rx) = mpsc::channel(64);
    let mut table = LeaseTable::new(Some(lease.key));
    let follow = async {
        while let Some(event) = events_rx.recv().await {
            for key in table.apply(event) {
                match table.peer(key).and_then(|peer| peer.public_ip) {
                    Some(public_ip) => println!("peer {key} via {public_ip}"),
                    None => println!("peer {key} is gone"),
                }
            }
        }
    };
    tokio::select! {
        lost = store.hold() => Err(lost.into()),
        () = store.watch(events_tx) => Ok(()),
        () = follow => Ok(()),
    }
}
