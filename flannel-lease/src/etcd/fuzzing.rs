use prost::Message as _;

use super::client::{bound, seconds};
use super::wire::{AuthenticateResponse, LeaseResponse, RangeResponse, TxnResponse, WatchResponse};
use super::{parse_key, watch};
use crate::malformed_entries::Malformed;

const SUBNETS: &str = "/coreos.com/network/subnets/";

/// Reads answers of etcd: the body of a gRPC message.
pub fn etcd(body: &[u8]) {
    if let Ok(answer) = RangeResponse::decode(body) {
        let mut malformed = Malformed::default();
        for mut entry in answer.kvs {
            let _bytes = bound(&mut entry);
            let _key = parse_key(SUBNETS, &entry.key);
            let _event = watch::read_entry(SUBNETS, &entry, &mut malformed);
        }
    }
    if let Ok(answer) = WatchResponse::decode(body) {
        let mut progress = watch::Progress::default();
        progress.advance(&answer);
        for event in answer.events {
            let _event = watch::translate(SUBNETS, event, &mut progress);
        }
    }
    if let Ok(answer) = LeaseResponse::decode(body) {
        let _expires = std::time::SystemTime::now() + seconds(answer.ttl);
    }
    let _read_or_malformed = (TxnResponse::decode(body), AuthenticateResponse::decode(body));
}
