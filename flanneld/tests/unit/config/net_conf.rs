use flannel_vxlan::PresharedKey;
use flanneld::config::{Backend, Ipip, NetConf, TxChecksumOffload, Udp, Vxlan, Wireguard, WireguardMode};
use proptest::prelude::*;

fn parse(text: &str) -> NetConf {
    NetConf::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The members besides a valid backend.
fn with_backend(members: &str) -> String {
    format!(r#"{{{members}, "Backend": {{"Type": "vxlan"}}}}"#)
}

/// A valid network with this in the backend's object.
fn with_vxlan(members: &str) -> String {
    format!(r#"{{"Network": "10.244.0.0/16", "Backend": {{"Type": "vxlan", {members}}}}}"#)
}

/// The same for backend `wireguard`.
fn with_wireguard(members: &str) -> String {
    format!(r#"{{"Network": "10.244.0.0/16", "Backend": {{"Type": "wireguard", {members}}}}}"#)
}

const DUAL_STACK: &str = r#"{"EnableIPv6": true, "IPv6Network": "fc00::/48", "#;

fn problems(text: &str) -> Vec<String> {
    NetConf::parse(text.as_bytes()).unwrap_err().0.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_not_written_has_upstreams_default() {
    let conf = parse(&with_backend(r#""Network": "10.3.4.5/16""#));
    let pool = conf.ipv4.unwrap();
    assert_eq!(pool.network.to_string(), "10.3.0.0/16", "masked to the network");
    assert_eq!(
        (pool.subnet_len, pool.subnet_min.to_string(), pool.subnet_max.to_string()),
        (24, "10.3.1.0".into(), "10.3.255.0".into())
    );
    assert!(conf.ipv6.is_none() && !conf.nftables_asked && conf.no_masquerade.is_empty());
    assert_eq!((conf.masquerade, conf.fully_random), (None, None), "as the flags say");
    let Backend::Vxlan(vxlan) = conf.backend else { panic!() };
    let Vxlan { vni, port, mtu, gbp, learning, direct_routing, tx_checksum_offload } = vxlan;
    assert_eq!((vni, port.get(), mtu, gbp, learning, direct_routing), (1, 8472, None, false, false, false));
    assert_eq!(tx_checksum_offload, TxChecksumOffload::Auto);

    let conf = parse(&with_backend(r#""EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fc00::/48""#));
    let pool = conf.ipv6.unwrap();
    assert_eq!(
        (pool.subnet_len, pool.subnet_min.to_string(), pool.subnet_max.to_string()),
        (64, "fc00:0:0:1::".into(), "fc00:0:0:ffff::".into())
    );
    assert!(conf.ipv4.is_none());
}

#[test]
fn a_small_network_is_cut_into_four() {
    let pool = parse(&with_backend(r#""Network": "10.0.0.0/28""#)).ipv4.unwrap();
    assert_eq!(
        (pool.subnet_len, pool.subnet_min.to_string(), pool.subnet_max.to_string()),
        (30, "10.0.0.4".into(), "10.0.0.12".into())
    );
    let conf =
        parse(&with_backend(r#""EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fc00::/124""#));
    let pool = conf.ipv6.unwrap();
    assert_eq!(
        (pool.subnet_len, pool.subnet_min.to_string(), pool.subnet_max.to_string()),
        (126, "fc00::4".into(), "fc00::c".into())
    );
    let pool = parse(&with_backend(r#""Network": "128.0.0.0/1", "SubnetLen": 3"#)).ipv4.unwrap();
    assert_eq!(pool.subnet_max.to_string(), "224.0.0.0", "the end of the address space is no special case");
}

#[test]
fn every_key_is_read_in_any_case_and_the_last_one_counts() {
    let conf = parse(
        r#"{"enableipv6": true, "NETWORK": "10.9.0.0/16", "network": "10.0.0.0/8", "subnetlen": 20, "SubnetLen": null,
            "subnetmin": "10.10.0.0", "SubnetMax": "10.99.0.0", "ipv6network": "2001:cafe:42::/56",
            "IPv6SubnetLen": 72, "IPv6SubnetMin": "2001:cafe:42:1::", "IPv6SubnetMax": "2001:cafe:42:2::",
            "EnableNFTables": true, "Unknown": {"deep": [1]}, "ipmasq": true, "IPMasqFullyRandom": false, "NonMasqueradeCIDRs": ["192.168.1.7/16", "fd00::/8"],
            "backend": {"TYPE": "VXLAN", "vni": 4096, "port": 4789, "gbp": true, "learning": true, "mtu": 1400,
                        "directrouting": true, "TxChecksumOffload": "Off", "MacPrefix": "0E-2A"}}"#,
    );
    let pool = conf.ipv4.unwrap();
    assert_eq!((pool.network.to_string(), pool.subnet_len), ("10.0.0.0/8".into(), 20));
    assert_eq!(
        (pool.subnet_min.to_string(), pool.subnet_max.to_string()),
        ("10.10.0.0".into(), "10.99.0.0".into())
    );
    let pool = conf.ipv6.unwrap();
    assert_eq!(
        (pool.subnet_len, pool.subnet_min.to_string(), pool.subnet_max.to_string()),
        (72, "2001:cafe:42:1::".into(), "2001:cafe:42:2::".into())
    );
    assert!(conf.nftables_asked);
    assert_eq!((conf.masquerade, conf.fully_random), (Some(true), Some(false)));
    assert_eq!(
        conf.no_masquerade.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["192.168.0.0/16", "fd00::/8"]
    );
    assert_eq!(
        conf.backend,
        Backend::Vxlan(Vxlan {
            vni: 4096,
            port: 4789.try_into().unwrap(),
            mtu: Some(1400),
            gbp: true,
            learning: true,
            direct_routing: true,
            tx_checksum_offload: TxChecksumOffload::Off
        })
    );
}

#[test]
fn null_and_the_unspecified_address_mean_the_default() {
    let text = r#""Network": "10.244.0.0/16", "SubnetLen": 0, "SubnetMin": "0.0.0.0", "SubnetMax": null,
                  "EnableIPv4": null, "EnableIPv6": null, "NonMasqueradeCIDRs": null"#;
    let text =
        format!(r#"{{{text}, "Backend": {{"Type": "vxlan", "VNI": null, "Port": null, "MTU": null}}}}"#);
    assert_eq!(parse(&text), parse(&with_backend(r#""Network": "10.244.0.0/16""#)));
    let ipv6 = |members: &str| {
        let text = with_backend(&format!(r#""EnableIPv4": false, "IPv6Network": "fc00::/48"{members}"#));
        parse(&text.replacen('{', r#"{"EnableIPv6": true, "#, 1))
    };
    assert_eq!(ipv6(r#", "IPv6SubnetLen": 0, "IPv6SubnetMin": "::", "IPv6SubnetMax": null"#), ipv6(""));
}

#[test]
fn every_pool_is_written_out_with_its_bounds() {
    let text = r#"{"Network": "10.0.0.0/8", "SubnetLen": 20, "SubnetMin": "10.10.0.0", "SubnetMax": "10.99.0.0",
        "IPv6Network": "fc00::/48", "IPv6SubnetLen": 60, "IPv6SubnetMin": "fc00:0:0:10::", "IPv6SubnetMax": "fc00:0:0:20::",
        "EnableIPv4": true, "EnableIPv6": true, "Backend": {"Type": "vxlan"}}"#;
    let conf = parse(text);
    assert_eq!(parse(&conf.to_json()), conf);
    let only_ipv6 = parse(&text.replace(r#""EnableIPv4": true"#, r#""EnableIPv4": false"#));
    assert_eq!(parse(&only_ipv6.to_json()), only_ipv6);
}

#[test]
fn a_subnet_has_at_least_four_addresses() {
    let text = |members: &str| with_backend(&format!(r#""Network": "10.0.0.0/24", {members}"#));
    assert_eq!(parse(&text(r#""SubnetLen": 30"#)).ipv4.unwrap().subnet_len, 30);
    assert_eq!(problems(&text(r#""SubnetLen": 31"#)), ["SubnetLen must be less than /31"]);
}

#[test]
fn the_backends_without_settings_are_known() {
    for (name, backend) in [("host-gw", Backend::HostGw), ("Alloc", Backend::Alloc)] {
        let conf = parse(&format!(r#"{{"Network": "10.244.0.0/16", "Backend": {{"Type": "{name}"}}}}"#));
        assert_eq!(conf.backend, backend);
    }
}

#[test]
fn the_ipv4_backends_have_upstreams_keys_and_no_backend_means_udp() {
    let backend = |backend: &str| parse(&format!(r#"{{"Network": "10.244.0.0/16"{backend}}}"#)).backend;
    let udp = |port: u16| Backend::Udp(Udp { port: port.try_into().unwrap() });
    assert_eq!(backend(""), udp(8285));
    assert_eq!(backend(r#", "Backend": {"Type": "UDP"}"#), udp(8285));
    assert_eq!(backend(r#", "Backend": {"Type": "udp", "port": 9285}"#), udp(9285));
    let ipip = |direct_routing| Backend::Ipip(Ipip { direct_routing });
    assert_eq!(backend(r#", "Backend": {"Type": "ipip"}"#), ipip(false));
    assert_eq!(backend(r#", "Backend": {"Type": "ipip", "directrouting": true}"#), ipip(true));
    for text in [
        "",
        r#", "Backend": {"Type": "udp", "Port": 9285}"#,
        r#", "Backend": {"Type": "ipip", "DirectRouting": true}"#,
    ] {
        let conf = parse(&format!(r#"{{"Network": "10.244.0.0/16"{text}}}"#));
        assert_eq!(parse(&conf.to_json()), conf);
    }
}

#[test]
fn wireguard_has_upstreams_keys_and_defaults() {
    let backend = |text: &str| {
        let Backend::Wireguard(wireguard) = parse(text).backend else { panic!("{text}") };
        wireguard
    };
    let default = Wireguard {
        listen_port: 51820.try_into().unwrap(),
        listen_port_v6: 51821.try_into().unwrap(),
        mtu: None,
        psk: None,
        keepalive: None,
        mode: WireguardMode::Separate,
    };
    let text = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "WireGuard"}}"#;
    assert_eq!(backend(text), default);
    let text = with_wireguard(
        r#""Mode": "", "PSK": "", "PersistentKeepaliveInterval": 0, "MTU": null, "ListenPort": null"#,
    );
    assert_eq!(backend(&text), default);
    const PSK: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
    let text = with_wireguard(&format!(
        r#""listenport": 7000, "ListenPortV6": 7000, "MTU": 1400, "PSK": "{PSK}", "PersistentKeepaliveInterval": 25,
           "Mode": "Auto""#
    ));
    let wanted = Wireguard {
        listen_port: 7000.try_into().unwrap(),
        listen_port_v6: 7000.try_into().unwrap(),
        mtu: Some(1400),
        psk: PresharedKey::from_base64(PSK).ok(),
        keepalive: 25.try_into().ok(),
        mode: WireguardMode::Auto,
    };
    assert_eq!(backend(&text), wanted);
    // What is logged and saved has all but the key.
    let json = parse(&text).to_json();
    assert!(!json.contains("PSK") && !json.contains(PSK), "{json}");
    assert_eq!(backend(&json), Wireguard { psk: None, ..wanted });
    let dual = with_wireguard(r#""Mode": "ipv6", "MTU": 1360"#).replacen('{', DUAL_STACK, 1);
    assert_eq!(backend(&dual).mode, WireguardMode::Ipv6);
    let ipv6 = dual.replacen('{', r#"{"EnableIPv4": false, "#, 1);
    assert_eq!(
        problems(&ipv6.replace(r#""ipv6""#, r#""ipv4""#)),
        ["Backend.Mode: ipv4 needs EnableIPv4; use auto or ipv6"]
    );
}

#[test]
fn each_mistake_is_told_in_upstreams_words_under_its_key() {
    let v4 = |members: &str| with_backend(&format!(r#""Network": "10.244.0.0/16", {members}"#));
    let v6 = |members: &str| {
        with_backend(&format!(
            r#""EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fc00::/48", {members}"#
        ))
    };
    for (text, wanted) in [
        (String::new(), "unexpected end of JSON input"),
        (r#"{"Network": "10.244"#.into(), "unexpected end of JSON input"),
        ("{} }".into(), "after top-level value at line 1 column 4"),
        (r#"{"Network": "10.244.0.0/16",}"#.into(), "invalid JSON: trailing comma at line 1 column 29"),
        ("{Network: 1}".into(), "invalid JSON: key must be a string at line 1 column 2"),
        ("[]".into(), "json: cannot unmarshal array into an object"),
        ("7".into(), "json: cannot unmarshal number into an object"),
        (
            with_backend(r#""SubnetLen": 24"#),
            "Network: please define a correct Network parameter in the flannel config",
        ),
        (with_backend(r#""Network": "0.0.0.0/0""#), "Network: please define a correct Network parameter"),
        (with_backend(r#""Network": "10.244.0.0/33""#), "Network: invalid CIDR address: 10.244.0.0/33"),
        (with_backend(r#""Network": "10.244.0.0""#), "Network: invalid CIDR address: 10.244.0.0"),
        (with_backend(r#""Network": null"#), "Network: invalid CIDR address: null"),
        (with_backend(r#""Network": 10"#), "Network: invalid CIDR address: 10"),
        (with_backend(r#""Network": "fc00::/48""#), "Network: invalid IPv4 CIDR format: fc00::/48"),
        (
            with_backend(r#""Network": "10.244.0.0/29""#),
            "Network: network is too small. Minimum useful network prefix is /28",
        ),
        (v4(r#""SubnetLen": 31"#), "SubnetLen must be less than /31"),
        (
            v4(r#""SubnetLen": 17"#),
            "SubnetLen: network must be able to accommodate at least four subnets: use 18 or more",
        ),
        (v4(r#""SubnetLen": -1"#), "SubnetLen: json: cannot unmarshal number -1 into a whole number"),
        (v4(r#""SubnetLen": {"a": 1}"#), "SubnetLen: json: cannot unmarshal object into a whole number"),
        (v4(r#""SubnetLen": "24""#), "SubnetLen: json: cannot unmarshal string into a whole number"),
        (v4(r#""SubnetLen": 24.5"#), "SubnetLen: json: cannot unmarshal number 24.5"),
        (v4(r#""SubnetMin": "10.245.0.0""#), "SubnetMin is not in the range of the Network"),
        (v4(r#""SubnetMax": "10.243.0.0""#), "SubnetMax is not in the range of the Network"),
        (
            v4(r#""SubnetMin": "10.244.1.7""#),
            "SubnetMin is not on a SubnetLen boundary: 10.244.1.7",
        ),
        (
            v4(r#""SubnetMax": "10.244.1.7""#),
            "SubnetMax is not on a SubnetLen boundary: 10.244.1.7",
        ),
        (v4(r#""SubnetMin": "banana""#), "SubnetMin: invalid IP address format: banana"),
        (
            v4(r#""SubnetMin": "10.244.9.0", "SubnetMax": "10.244.5.0""#),
            "SubnetMin: 10.244.9.0 is above SubnetMax 10.244.5.0",
        ),
        (v4(r#""EnableIPv4": "yes""#), "EnableIPv4: json: cannot unmarshal string into true or false"),
        (v4(r#""EnableIPv4": false"#), "EnableIPv4: none defined stack"),
        (
            v4(r#""EnableIPv6": true"#),
            "IPv6Network: please define a correct IPv6Network parameter in the flannel config",
        ),
        (v6(r#""IPv6Network": "10.0.0.0/8""#), "IPv6Network: invalid IPv6 CIDR format: 10.0.0.0/8"),
        (v6(r#""IPv6Network": "::/0""#), "IPv6Network: please define a correct IPv6Network parameter"),
        (
            v6(r#""IPv6Network": "fc00::/125""#),
            "IPv6Network is too small. Minimum useful network prefix is /124",
        ),
        (v6(r#""IPv6SubnetLen": 127"#), "IPv6SubnetLen must be less than /127"),
        (
            v6(r#""IPv6SubnetLen": 49"#),
            "IPv6SubnetLen: network must be able to accommodate at least four subnets",
        ),
        (
            v6(r#""IPv6SubnetMin": "fd00::""#),
            "IPv6SubnetMin is not in the range of the IPv6Network",
        ),
        (
            v6(r#""IPv6SubnetMax": "fd00::""#),
            "IPv6SubnetMax is not in the range of the IPv6Network",
        ),
        (
            v6(r#""IPv6SubnetMin": "fc00::5""#),
            "IPv6SubnetMin is not on a SubnetLen boundary: fc00::5",
        ),
        (
            v6(r#""IPv6SubnetMin": "fc00:0:0:9::", "IPv6SubnetMax": "fc00:0:0:5::""#),
            "IPv6SubnetMin: fc00:0:0:9:: is above IPv6SubnetMax fc00:0:0:5::",
        ),
        (
            v4(r#""NonMasqueradeCIDRs": ["10.0.0.0/40"]"#),
            "NonMasqueradeCIDRs: invalid CIDR address: 10.0.0.0/40",
        ),
        (
            v4(r#""NonMasqueradeCIDRs": "10.0.0.0/8""#),
            "NonMasqueradeCIDRs: json: cannot unmarshal string into a list",
        ),
        (
            r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fc00::/48"}"#.into(),
            "EnableIPv6: the backend udp (no Backend is given) carries IPv4 only; use vxlan, wireguard or host-gw for IPv6",
        ),
        (
            r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fc00::/48", "Backend": {"Type": "ipip"}}"#
                .into(),
            "EnableIPv6: the backend ipip carries IPv4 only; use vxlan, wireguard or host-gw for IPv6",
        ),
        (
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "udp", "Port": 65536}}"#.into(),
            "Backend.Port: 65536 is out of range: a whole number from 1 to 65535",
        ),
        (r#"{"Network": "10.244.0.0/16", "Backend": {}}"#.into(), "Backend.Type: unknown backend type: "),
        (r#"{"Network": "10.244.0.0/16", "Backend": null}"#.into(), "Backend.Type: unknown backend type: "),
        (
            r#"{"Network": "10.244.0.0/16", "Backend": "vxlan"}"#.into(),
            "Backend: error decoding Backend property of config: json: cannot unmarshal string",
        ),
        (
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": 5}}"#.into(),
            "Backend.Type: error decoding Backend property of config: json: cannot unmarshal number 5",
        ),
        (
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "geneve"}}"#.into(),
            "Backend.Type: unknown backend type: geneve",
        ),
        (
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "IPsec"}}"#.into(),
            "Backend.Type: backend type IPsec is not supported; use wireguard, which encrypts as well",
        ),
        (
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "extension"}}"#.into(),
            "Backend.Type: backend type extension is not supported; use vxlan or host-gw, or alloc",
        ),
        (
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "tencent-vpc"}}"#.into(),
            "Backend.Type: backend type tencent-vpc is not supported; use vxlan, or alloc",
        ),
        (
            with_wireguard(r#""PSK": "QUJDREVG""#),
            "Backend.PSK: not a WireGuard preshared key: write the base64 of 32 bytes, as `wg genpsk` prints it",
        ),
        (with_wireguard(r#""PSK": true"#), "Backend.PSK: json: cannot unmarshal bool into base64 of 32 bytes"),
        (with_wireguard(r#""ListenPort": 0"#), "Backend.ListenPort: 0 is out of range"),
        (with_wireguard(r#""ListenPortV6": 65536"#), "Backend.ListenPortV6: 65536 is out of range"),
        (
            with_wireguard(r#""PersistentKeepaliveInterval": 65536"#),
            "Backend.PersistentKeepaliveInterval: 65536 is out of range: a whole number from 0 to 65535",
        ),
        (with_wireguard(r#""MTU": 147"#), "Backend.MTU: 147 leaves no room for pods: at least 148 is needed"),
        (with_wireguard(r#""Mode": "both""#), "Backend.Mode: `both` is none of separate, auto, ipv4, ipv6"),
        (with_wireguard(r#""Mode": "ipv6""#), "Backend.Mode: ipv6 needs EnableIPv6; use auto or ipv4"),
        (
            with_wireguard(r#""ListenPort": 7000, "ListenPortV6": 7000"#).replacen('{', DUAL_STACK, 1),
            "Backend.ListenPortV6: 7000 is ListenPort too; in mode separate each device needs its own port",
        ),
        (
            with_vxlan(r#""VNI": 16777216"#),
            "Backend.VNI: 16777216 is out of range: a whole number from 0 to 16777215",
        ),
        (
            with_vxlan(r#""VNI": "1""#),
            "Backend.VNI: json: cannot unmarshal string into a whole number from 0 to 16777215",
        ),
        (with_vxlan(r#""VNI": 99999999999"#), "Backend.VNI: json: cannot unmarshal number 99999999999"),
        (with_vxlan(r#""Port": 65536"#), "Backend.Port: 65536 is out of range"),
        (with_vxlan(r#""Port": 0"#), "Backend.Port: 0 is out of range: a whole number from 1 to 65535"),
        (with_vxlan(r#""MTU": 0"#), "Backend.MTU: 0 leaves no room for pods: at least 118 is needed"),
        (with_vxlan(r#""MTU": 100"#), "Backend.MTU: 100 leaves no room for pods: at least 118 is needed"),
        (with_vxlan(r#""GBP": 1"#), "Backend.GBP: json: cannot unmarshal number 1 into true or false"),
        (
            with_vxlan(r#""TxChecksumOffload": "no""#),
            "Backend.TxChecksumOffload: `no` is none of auto, on, off",
        ),
    ] {
        let problems = problems(&text);
        assert!(problems.iter().any(|problem| problem.contains(wanted)), "{text}: {problems:?}");
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
    }
}

#[test]
fn ipv6_pods_need_the_1280_bytes_that_ipv6_needs() {
    let text = |mtu: u32| {
        format!(
            r#"{{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fc00::/48",
                 "Backend": {{"Type": "vxlan", "MTU": {mtu}}}}}"#
        )
    };
    assert_eq!(problems(&text(1349)), ["Backend.MTU: 1349 leaves no room for pods: at least 1350 is needed"]);
    parse(&text(1350));
    let text = |mtu| text(mtu).replace("vxlan", "wireguard");
    assert_eq!(problems(&text(1359)), ["Backend.MTU: 1359 leaves no room for pods: at least 1360 is needed"]);
    parse(&text(1360));
    for backend in ["udp", "ipip"] {
        let text = format!(r#"{DUAL_STACK}"Network": "10.244.0.0/16", "Backend": {{"Type": "{backend}"}}}}"#);
        assert_eq!(problems(&text).len(), 1, "{text}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = r#"{"EnableIPv6": true, "Network": "10.244.0.0/29", "IPv6Network": "banana", "SubnetMin": 5,
                   "Backend": {"Type": "vxlan", "VNI": -1, "Port": "x", "MTU": 5, "TxChecksumOffload": "?"}}"#;
    let keys: Vec<_> =
        NetConf::parse(text.as_bytes()).unwrap_err().0.into_iter().map(|problem| problem.key).collect();
    assert_eq!(
        keys,
        [
            "SubnetMin",
            "IPv6Network",
            "Backend.VNI",
            "Backend.Port",
            "Backend.MTU",
            "Backend.TxChecksumOffload"
        ]
    );
}

#[test]
fn the_configurations_of_upstreams_documentation_and_tests_are_accepted() {
    for text in [
        r#"{ "Network": "10.244.0.0/16", "EnableNFTables": false, "Backend": { "Type": "vxlan" } }"#,
        r#"{"Network": "10.0.0.0/8", "SubnetLen": 20, "SubnetMin": "10.10.0.0", "SubnetMax": "10.99.0.0", "Backend": {"Type": "host-gw"}}"#,
        r#"{"EnableNFTables": true, "Network": "10.42.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", "Backend": {"Type": "vxlan", "VNI": 1, "DirectRouting": true}}"#,
        r#"{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "2001:cafe:42::/56", "Backend": {"Type": "vxlan"}}"#,
        r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "alloc"}}"#,
    ] {
        parse(text);
    }
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = NetConf::parse(&bytes);
    }

    #[test]
    fn no_values_are_too_odd(
        network in "[0-9.:a-f]{0,12}/[0-9]{1,3}", v6 in "[0-9.:a-f]{0,12}/[0-9]{1,3}", len in any::<i32>(), min in "[0-9.:]{0,9}",
    ) {
        let text = format!(
            r#"{{"EnableIPv6": true, "Network": "{network}", "IPv6Network": "{v6}", "SubnetLen": {len}, "IPv6SubnetLen": {len},
                 "SubnetMin": "{min}", "IPv6SubnetMax": "{min}", "Backend": {{"Type": "vxlan", "VNI": {len}, "MTU": {len}}}}}"#
        );
        let _ = NetConf::parse(text.as_bytes());
    }

    #[test]
    fn what_is_written_out_reads_the_same(
        dual: bool, len in 18_u8..30, mtu in 1400_u16..9000, vni in 0_u32..0x0100_0000, flags in any::<[bool; 6]>(), backend in 0..3_usize, checksum in 0..3_usize,
    ) {
        let [nft, gbp, learning, direct, masq, random] = flags;
        let backend = ["alloc", "host-gw", "vxlan"][backend];
        let checksum = ["auto", "on", "off"][checksum];
        let text = format!(
            r#"{{"EnableIPv6": {dual}, "Network": "10.244.0.0/16", "IPv6Network": "fd00:10:244::/56", "SubnetLen": {len}, "EnableNFTables": {nft},
                 "NonMasqueradeCIDRs": ["10.0.0.0/8", "fd00::/8"], "IPMasq": {masq}, "IPMasqFullyRandom": {random},
                 "Backend": {{"Type": "{backend}", "VNI": {vni}, "MTU": {mtu}, "GBP": {gbp}, "Learning": {learning}, "DirectRouting": {direct}, "TxChecksumOffload": "{checksum}"}}}}"#
        );
        let conf = parse(&text);
        prop_assert_eq!(parse(&conf.to_json()), conf);
    }

    #[test]
    fn every_accepted_pool_lies_in_its_network(a in any::<u32>(), prefix in 0_u8..=32, len in 0_u32..=33) {
        let text = with_backend(&format!(r#""Network": "{}/{prefix}", "SubnetLen": {len}"#, std::net::Ipv4Addr::from(a)));
        if let Ok(conf) = NetConf::parse(text.as_bytes()) {
            let pool = conf.ipv4.unwrap();
            prop_assert!(pool.network.contains(&pool.subnet_min) && pool.network.contains(&pool.subnet_max));
            prop_assert!(pool.subnet_min <= pool.subnet_max && pool.subnet_len >= pool.network.prefix_len() + 2);
            for first in [pool.subnet_min, pool.subnet_max] {
                let subnet = ipnet::Ipv4Net::new(first, pool.subnet_len).unwrap();
                prop_assert_eq!(subnet.network(), first);
                prop_assert!(pool.network.contains(&subnet));
            }
        }
    }
}
