//! Keys and JSON of leases, against what upstream flannel wrote.

use flannel_lease::codec::LeaseKeyProblem;
use flannel_lease::{BackendData, BackendType, LeaseAttributes, LeaseKey, VxlanData, WireguardData};
use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use proptest::sample::Index;

/// `etcdctl get --prefix /` of clusters of three upstream nodes (flannel cdf76059).
const UPSTREAM: [&str; 7] = [
    include_str!("../golden/lease/alloc-nft.txt"),
    include_str!("../golden/lease/hostgw-nft.txt"),
    include_str!("../golden/lease/ipip-nft.txt"),
    include_str!("../golden/lease/udp-nft.txt"),
    include_str!("../golden/lease/vxlan-dualstack-nft.txt"),
    include_str!("../golden/lease/vxlan-nft-3nodes.txt"),
    include_str!("../golden/lease/vxlan-opts-nft.txt"),
];

fn upstream_leases() -> impl Iterator<Item = (&'static str, &'static str)> {
    UPSTREAM.iter().flat_map(|dump| {
        let mut lines = dump.lines();
        std::iter::from_fn(move || Some((lines.next()?, lines.next()?)))
            .filter_map(|(key, json)| Some((key.strip_prefix("/coreos.com/network/subnets/")?, json)))
    })
}

#[test]
fn what_upstream_wrote_is_read_and_written_back_byte_for_byte() {
    let mut count = 0;
    for (key, json) in upstream_leases() {
        assert_eq!(key.parse::<LeaseKey>().unwrap().to_string(), key);
        let attributes = LeaseAttributes::from_json(json.as_bytes()).unwrap();
        assert_eq!(attributes.to_json().unwrap(), json);
        if attributes.backend_type == BackendType::Vxlan {
            for data in [&attributes.backend_data, &attributes.backend_v6_data].into_iter().flatten() {
                let typed: VxlanData = data.decode().unwrap();
                assert_eq!(typed.to_backend_data().unwrap(), *data);
            }
        }
        count += 1;
    }
    assert_eq!(count, 21);
}

#[test]
fn field_names_are_read_in_any_case_and_unknown_ones_ignored() {
    let json = br#" { "publicip" : "192.0.2.1", "Later": {"x": 1}, "BACKENDTYPE":"vxlan",
        "backendData": {"vni": 7, "vtepmac": "AA-bb-cc-dd-ee-ff"}, "BackendV6Data": null } "#;
    let attributes = LeaseAttributes::from_json(json).unwrap();
    assert_eq!(attributes.public_ip, Some([192, 0, 2, 1].into()));
    assert_eq!((&attributes.backend_type, &attributes.backend_v6_data), (&BackendType::Vxlan, &None));
    let data: VxlanData = attributes.backend_data.unwrap().decode().unwrap();
    assert_eq!(data, VxlanData { vni: 7, vtep_mac: [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff] });
}

#[test]
fn a_vni_of_more_than_16_bits_is_published_as_upstream_can_read_it() {
    let mac = [2, 0, 0, 0, 0, 1];
    let data = VxlanData::new(70_000, mac);
    assert_eq!(data.to_backend_data().unwrap().as_str(), r#"{"VNI":4464,"VtepMAC":"02:00:00:00:00:01"}"#);
    assert!(data.is_of(70_000) && data.is_of(4464) && !data.is_of(70_001));
    assert!(
        VxlanData { vni: 70_000, vtep_mac: mac }.is_of(70_000),
        "as a node that was not updated wrote it"
    );
    assert!(!VxlanData { vni: 0x0100_0001, vtep_mac: mac }.is_of(1), "nobody writes this");
}

#[test]
fn a_lease_from_before_leases_had_a_vni_is_of_any_network() {
    let data: VxlanData =
        BackendData::from_json(r#"{"VtepMAC":"02:00:00:00:00:01"}"#.into()).unwrap().decode().unwrap();
    assert!(data.is_of(1) && data.is_of(4096));
}

/// `json.Marshal` of upstream's `wireguardLeaseAttrs` (pkg/backend/wireguard).
#[test]
fn wireguard_data_is_upstreams_and_a_port_that_is_missing_or_zero_is_none() {
    const KEY: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
    let public_key = std::array::from_fn(|at| u8::try_from(at + 1).unwrap());
    let data = WireguardData { public_key, port: 51820.try_into().ok() };
    let json = format!(r#"{{"PublicKey":"{KEY}","Port":51820}}"#);
    assert_eq!(data.to_backend_data().unwrap().as_str(), json);
    let read = |json: String| BackendData::from_json(json).unwrap().decode::<WireguardData>();
    assert_eq!(read(json).unwrap(), data);
    for old in [
        format!(r#"{{"PublicKey":"{KEY}"}}"#),
        format!(r#"{{"PublicKey":"{KEY}","Port":0}}"#),
        format!(r#"{{"port":null,"publickey":"{KEY}"}}"#),
    ] {
        assert_eq!(read(old).unwrap(), WireguardData { public_key, port: None });
    }
    for bad in [
        "{}".to_owned(),
        r#"{"PublicKey":null,"Port":51820}"#.to_owned(),
        r#"{"PublicKey":"","Port":51820}"#.to_owned(),
        r#"{"PublicKey":"AQID","Port":51820}"#.to_owned(),
        format!(r#"{{"PublicKey":"{KEY}","Port":65536}}"#),
        format!(r#"{{"PublicKey":"{KEY}","Port":"51820"}}"#),
        format!(r#"{{"PublicKey":"{}","Port":51820}}"#, KEY.replace('=', "")),
    ] {
        assert!(read(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn an_ipv6_only_node_writes_the_zero_address() {
    let attributes = LeaseAttributes { public_ipv6: Some("fd77::1".parse().unwrap()), ..Default::default() };
    let json = attributes.to_json().unwrap();
    assert_eq!(json, r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd77::1"}"#);
    assert_eq!(LeaseAttributes::from_json(json.as_bytes()).unwrap(), attributes);
}

#[test]
fn json_that_is_no_lease_is_refused() {
    let mapped = LeaseAttributes::from_json(br#"{"PublicIP":"::ffff:1.2.3.4"}"#).unwrap();
    assert_eq!(mapped.public_ip, "1.2.3.4".parse().ok(), "as Go reads it");
    let bad_ips = [r#"{"PublicIP":1}"#, r#"{"PublicIP":"1.2.3"}"#, r#"{"PublicIP":"fd77::1"}"#];
    for json in ["", "x", "[]", "null", "{bad", r#"{} {}"#].into_iter().chain(bad_ips) {
        assert!(LeaseAttributes::from_json(json.as_bytes()).is_err(), "{json}");
    }
    for json in
        ["{}", r#"{"VtepMAC":""}"#, r#"{"VtepMAC":"1:2:3:4:5:6"}"#, r#"{"VtepMAC":"aa:bb:cc:dd:ee:ff:00"}"#]
    {
        let data = BackendData::from_json(json.into()).unwrap();
        assert!(data.decode::<VxlanData>().is_err(), "{json}");
    }
}

#[test]
fn text_that_is_no_key_is_refused_with_its_reason() {
    use LeaseKeyProblem::{Empty, Form, HostBits, Ipv4, Ipv6, Shape};
    for (text, problem) in [
        ("", Shape),
        ("hello", Shape),
        ("10.244.1.0", Shape),
        ("10.244.1.0-", Shape),
        ("10.244.1.0-24&", Shape),
        ("10.244.1.0-24/x", Shape),
        ("10.244.1.0-24&fd00::", Shape),
        ("10.244.1.0-24&fd00::-64&fd01::-64", Ipv6),
        ("x10.244.1.0-24", Ipv4),
        ("10.244.1-24", Ipv4),
        ("10x244.1.0-24", Ipv4),
        ("10.244.300.0-24", Ipv4),
        ("10.244.1.0-32", Ipv4),
        ("10.244.1.0-33", Ipv4),
        ("10.0.0.0-0", Ipv4),
        ("010.244.1.0-24", Ipv4),
        ("fd00::-64", Ipv4),
        ("10.244.1.0-24&10.0.0.0-8", Ipv6),
        ("10.244.1.0-24&fd00::-128", Ipv6),
        ("10.244.1.7-24", HostBits),
        ("10.244.1.0-24&fd00::1-64", HostBits),
        ("10.244.1.0-024", Form),
        ("10.244.1.0-24&FD00::-64", Form),
        ("10.244.1.0-24&fd00:0::-64", Form),
        ("0.0.0.0-0", Empty),
    ] {
        let error = text.parse::<LeaseKey>().unwrap_err();
        assert_eq!((error.problem, error.text.as_str()), (problem, text));
    }
}

fn keys() -> impl Strategy<Value = LeaseKey> {
    let v4 = (any::<u32>(), 1u8..=31).prop_map(|(bits, len)| Ipv4Net::new(bits.into(), len).unwrap());
    let v6 = (any::<u128>(), 1u8..=127).prop_map(|(bits, len)| Ipv6Net::new(bits.into(), len).unwrap());
    (prop::option::of(v4), prop::option::of(v6)).prop_filter_map("a subnet", |(v4, v6)| LeaseKey::new(v4, v6))
}

proptest! {
    #[test]
    fn a_key_survives_its_text(key in keys()) {
        prop_assert_eq!(key.to_string().parse::<LeaseKey>(), Ok(key));
    }

    #[test]
    fn no_text_panics_and_what_parses_is_canonical(text in "[0-9a-fA-F.:&-]{0,40}") {
        if let Ok(key) = text.parse::<LeaseKey>() {
            prop_assert_eq!(key.to_string(), text);
        }
    }

    #[test]
    fn no_damage_to_upstreams_json_is_a_panic(
        which in any::<Index>(), damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
    ) {
        let leases: Vec<_> = upstream_leases().collect();
        let (key, json) = which.get(&leases);
        let (mut key, mut json) = (key.as_bytes().to_vec(), json.as_bytes().to_vec());
        for (at, value) in damage {
            *at.get_mut(&mut key) = value;
            *at.get_mut(&mut json) = value;
        }
        let _read_or_refused = String::from_utf8_lossy(&key).parse::<LeaseKey>();
        if let Some(data) = LeaseAttributes::from_json(&json).ok().and_then(|read| read.backend_data) {
            let _read_or_refused = (data.decode::<VxlanData>(), data.decode::<WireguardData>());
        }
    }

    #[test]
    fn attributes_survive_their_json(
        v4 in 1u32.., v6 in prop::option::of(1u128..), name in "[a-z<&\"é-]{0,12}", vni: u32, mac: [u8; 6],
    ) {
        let data = VxlanData { vni, vtep_mac: mac }.to_backend_data().unwrap();
        let attributes = LeaseAttributes {
            public_ip: Some(v4.into()),
            public_ipv6: v6.map(Into::into),
            backend_type: BackendType::from(name.as_str()),
            backend_data: Some(data),
            backend_v6_data: None,
        };
        let json = attributes.to_json().unwrap();
        prop_assert_eq!(LeaseAttributes::from_json(json.as_bytes()).unwrap(), attributes);
    }
}
