//! Whatever somebody writes into flags, environment or files is read or refused, and never brings the program down.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use flannel_cni::SubnetEnv;
use flanneld::config::{Command, NetConf};
use proptest::prelude::*;
use proptest::sample::Index;

use super::Imagined;

const NET_CONF: &str = r#"{"Network": "10.244.0.0/16", "SubnetLen": 24, "SubnetMin": "10.244.1.0", "SubnetMax": "10.244.9.0",
    "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", "IPv6SubnetLen": 64, "IPv6SubnetMin": "fd00:10:244:1::",
    "EnableNFTables": true, "Backend": {"Type": "vxlan", "VNI": 1, "Port": 8472, "MTU": 1400, "GBP": true,
    "Learning": false, "DirectRouting": true}}"#;
const SUBNET_ENV: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
    FLANNEL_IPV6_NETWORK=fd00:10:244::/56\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n";
const LINE: &str = "--iface=eth0 --iface-regex=^eth --public-ip=192.168.77.1 --public-ipv6=fd77::1 --ip-masq=true \
    --subnet-lease-renew-margin=60 --healthz-port=10256 --healthz-ip=::1 --subnet-file=/run/flannel/subnet.env -v=4";

fn damaged(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((any::<Index>(), any::<u8>()), 1..8).prop_map(move |damage| {
        let mut bytes = text.as_bytes().to_vec();
        for (at, value) in damage {
            *at.get_mut(&mut bytes) = value;
        }
        bytes
    })
}

/// A number or address, near the edges more often than not.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        (-1..=129i64).prop_map(|number| number.to_string()),
        any::<u32>().prop_map(|bits| format!("\"{}\"", std::net::Ipv4Addr::from(bits))),
        (any::<u32>(), 0..=33u8)
            .prop_map(|(bits, length)| format!("\"{}/{length}\"", std::net::Ipv4Addr::from(bits))),
        (any::<u128>(), 0..=129u8)
            .prop_map(|(bits, length)| format!("\"{}/{length}\"", std::net::Ipv6Addr::from(bits))),
        any::<u128>().prop_map(|bits| format!("\"{}\"", std::net::Ipv6Addr::from(bits))),
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("[]".to_owned()),
    ]
}

proptest! {
    #[test]
    fn no_net_conf_is_a_panic(bytes in damaged(NET_CONF)) {
        let _read_or_refused = NetConf::parse(&bytes);
    }

    #[test]
    fn no_value_in_net_conf_is_a_panic(values in prop::collection::vec((any::<Index>(), value()), 1..4)) {
        let mut pieces: Vec<String> = NET_CONF.split(", ").map(str::to_owned).collect();
        for (at, value) in values {
            let piece = at.get_mut(&mut pieces);
            let key = piece.rsplit_once(": ").map_or("", |(key, _)| key).to_owned();
            let closed = "}".repeat(piece.matches('}').count());
            *piece = format!("{key}: {value}{closed}");
        }
        let _read_or_refused = NetConf::parse(pieces.join(", ").as_bytes());
    }

    #[test]
    fn no_subnet_env_is_a_panic(bytes in damaged(SUBNET_ENV)) {
        let _read_or_refused = SubnetEnv::parse(&bytes);
    }

    #[test]
    fn no_command_line_and_no_environment_is_a_panic(line in damaged(LINE), value in damaged("10.244.0.0/16,true")) {
        let words = line.split(|byte| *byte == b' ').map(|word| OsString::from_vec(word.to_vec()));
        let mut process = Imagined::args(words.collect::<Vec<_>>());
        for name in ["FLANNELD_IFACE", "FLANNELD_IP_MASQ", "FLANNELD_PUBLIC_IP", "FLANNELD_HEALTHZ_PORT", "NODE_NAME"] {
            process.env.insert(name.to_owned(), OsString::from_vec(value.clone()));
        }
        let _read_or_refused = Command::read(&process);
    }
}
