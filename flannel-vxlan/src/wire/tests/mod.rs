//! What is encoded is decoded as the same values, and no input makes a decoder panic.

mod wg_messages;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::{Duration, SystemTime};

use flannel_netlink::{Batch, Flags, Message, messages};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::model::family::{Family, PerFamily};
use crate::model::mac::MacAddr;
use crate::model::objects::{
    FdbEntry, Neighbor, Nexthop, ObservedFdbEntry, ObservedNeighbor, ObservedNexthop, ObservedRoute,
    ObservedRouteTo, ROUTE_PROTOCOL, Route, RouteTo,
};
use crate::model::wireguard::{ObservedWireguard, ObservedWireguardPeer, WireguardPeer, WireguardSpec};
use crate::model::wireguard_key::{PresharedKey, PrivateKey, PublicKey};
use crate::plan::step::Step;
use crate::wire::decode::{any_neighbor, fdb_entry, interface_address, link, neighbor, nexthop, route};
use crate::wire::encode::{self, Indexes};
use crate::wire::uapi::*;
use crate::wire::{ethtool, fou, generic_netlink, wireguard};

fn sent(step: &Step) -> Vec<u8> {
    let mut batch = Batch::new();
    encode::step(&mut batch, step, &PerFamily::from_fn(|_| Indexes { device: 7, underlay: 2 }));
    batch.as_bytes().to_vec()
}

fn only(bytes: &[u8]) -> Message<'_> {
    let mut all = messages(bytes);
    let first = all.next().unwrap().unwrap();
    assert!(all.next().is_none());
    first
}

fn address_of(v4: bool, bits: u128) -> IpAddr {
    let [.., a, b, c, d] = bits.to_be_bytes();
    if v4 { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(bits).into() }
}

proptest! {
    #[test]
    fn encoded_objects_are_decoded_as_the_same_objects(v4 in any::<bool>(), a in any::<u128>(), b in any::<u128>(), m in any::<[u8; 5]>(), id in 1..u32::MAX) {
        let [m1, m2, m3, m4, m5] = m;
        let mac = MacAddr::new([2, m1, m2, m3, m4, m5]).unwrap();
        let (address, underlay) = (address_of(v4, a), address_of(v4, b));

        let step = Step::PutNeighbor(Neighbor { address, mac });
        let read = neighbor(&only(&sent(&step))).unwrap();
        let entry = ObservedNeighbor { neighbor: Neighbor { address, mac }, protocol: ROUTE_PROTOCOL };
        prop_assert_eq!(read, Some((7, entry)));

        let entry = FdbEntry { family: Family::of(underlay), mac, underlay };
        let read = fdb_entry(&only(&sent(&Step::PutFdbEntry(entry)))).unwrap();
        let wanted = ObservedFdbEntry {
            entry,
            ext_learned: true,
            permanent: true,
            no_extra_attrs: true,
            upstream_form: false,
        };
        prop_assert_eq!(read, Some((7, wanted)));

        if let IpAddr::V4(gateway) = address {
            let step = Step::PutNexthop { nexthop: Nexthop { id, gateway }, replace: false };
            let wanted = ObservedNexthop { id, protocol: ROUTE_PROTOCOL, interface: 7, gateway: Some(gateway) };
            prop_assert_eq!(nexthop(&only(&sent(&step))).unwrap(), wanted);
        }

        let subnet = IpNet::new(address, 24).unwrap().trunc();
        for (to, interface, observed) in [
            (RouteTo::Nexthop { id }, 0, ObservedRouteTo::Nexthop { id }),
            (RouteTo::Onlink { gateway: underlay }, 7, ObservedRouteTo::Gateway { gateway: underlay, onlink: true }),
            (RouteTo::Direct { gateway: underlay }, 2, ObservedRouteTo::Gateway { gateway: underlay, onlink: false }),
            (RouteTo::Blackhole, 0, ObservedRouteTo::Blackhole),
        ] {
            let wanted = Route { subnet, to };
            let bytes = sent(&Step::PutRoute { route: wanted, replace: true });
            let read = route(&only(&bytes)).unwrap().unwrap().route;
            let metric = wanted.metric();
            let protocol = ROUTE_PROTOCOL;
            let wanted = ObservedRoute { subnet, protocol, metric, interface, to: observed, no_extra_attrs: true };
            prop_assert_eq!(read, wanted);
        }
    }

    /// The kernel answers with the attributes that requests have.
    #[test]
    fn encoded_wireguard_peers_are_decoded_as_the_same_peers(
        key in any::<[u8; 32]>(),
        psk in any::<[u8; 32]>(),
        endpoint in any::<Option<SocketAddr>>(),
        keepalive in any::<u16>(),
        subnets in prop::collection::vec((any::<bool>(), any::<u128>(), 0..=32_u8), 0..5),
    ) {
        let subnets: Vec<IpNet> = subnets
            .into_iter()
            .map(|(v4, bits, length)| IpNet::new(address_of(v4, bits), length).unwrap().trunc())
            .collect();
        // A flow label or scope of an endpoint is not sent.
        let endpoint = endpoint.map(|endpoint| SocketAddr::new(endpoint.ip(), endpoint.port()));
        let key = PublicKey::new(key);
        let (psk, keepalive) = (PresharedKey::new(psk), NonZeroU16::new(keepalive));
        let peer = WireguardPeer { key, endpoint, subnets: subnets.clone(), replaces_subnets: true, psk, keepalive };
        let mut batch = Batch::new();
        wireguard::put_peer(&mut batch, 30, 7, &peer);
        let mut device = ObservedWireguard::default();
        wireguard::device(&mut device, &only(batch.as_bytes()), SystemTime::UNIX_EPOCH).unwrap();
        let wanted = ObservedWireguardPeer { endpoint, subnets, psk, keepalive, ..ObservedWireguardPeer::new(key) };
        prop_assert_eq!(&device.peers, &vec![wanted.clone()]);
        // The kernel continues a peer in the next message.
        wireguard::device(&mut device, &only(batch.as_bytes()), SystemTime::UNIX_EPOCH).unwrap();
        prop_assert_eq!(device.peers.len(), 1);
        prop_assert_eq!(device.peers[0].subnets.len(), 2 * wanted.subnets.len());
    }

    /// No bytes make a decoder panic.
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), kind in any::<u16>()) {
        let mut datagram = u32::try_from(bytes.len() + 16).unwrap().to_ne_bytes().to_vec();
        datagram.extend(kind.to_ne_bytes());
        datagram.extend([0; 10]);
        datagram.extend(bytes);
        read_all(&datagram);
    }

    /// Nor do messages that are almost valid.
    #[test]
    fn no_damaged_message_makes_a_decoder_panic(damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8)) {
        let mut bytes = link_and_entries();
        for (at, value) in damage {
            *at.get_mut(&mut bytes) = value;
        }
        read_all(&bytes);
    }
}

/// `ip` of the test machines may not know these options.
#[test]
fn options_of_newer_kernels_are_read() {
    let found = |option: &dyn Fn(&mut flannel_netlink::Attributes<'_>)| {
        let mut batch = Batch::new();
        batch.message(RTM_NEWLINK, Flags::NONE, &encode::ifinfomsg(7, 1, 0), |a| {
            a.text(IFLA_IFNAME, "flannel.1");
            a.nested(IFLA_LINKINFO, |a| {
                a.text(IFLA_INFO_KIND, "vxlan");
                a.nested(IFLA_INFO_DATA, option);
            });
        });
        let (_, device) = link(&only(batch.as_bytes())).unwrap();
        device.vxlan().map(|vxlan| (vxlan.resettable_options_differ, vxlan.fixed_options_differ))
    };
    assert_eq!(found(&|a| a.u8(IFLA_VXLAN_LOCALBYPASS, 1)), Some((false, false)));
    assert_eq!(found(&|a| a.u8(IFLA_VXLAN_LOCALBYPASS, 0)), Some((true, false)));
    assert_eq!(found(&|a| a.u32(IFLA_VXLAN_LABEL_POLICY, 1)), Some((true, false)));
    assert_eq!(found(&|a| a.u8(IFLA_VXLAN_VNIFILTER, 1)), Some((false, true)));
    assert_eq!(found(&|_before_them| ()), Some((false, false)));
}

#[test]
fn a_wireguard_device_and_the_time_of_a_handshake_are_read() {
    let spec = WireguardSpec::new(PrivateKey::new([7; 32]));
    let mut batch = Batch::new();
    wireguard::set_device(&mut batch, 30, 7, &spec);
    let mut device = ObservedWireguard::default();
    wireguard::device(&mut device, &only(batch.as_bytes()), SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!((device.private_key, device.port), (Some(spec.private_key), 51820));

    let age = |seconds: i64, now: u64| {
        let mut batch = Batch::new();
        batch.message(30, Flags::NONE, &[WG_CMD_GET_DEVICE, WG_GENL_VERSION, 0, 0], |a| {
            a.nested(WGDEVICE_A_PEERS, |a| {
                a.nested(0, |a| {
                    a.bytes(WGPEER_A_PUBLIC_KEY, &[1; 32]);
                    a.bytes(WGPEER_A_LAST_HANDSHAKE_TIME, &[seconds.to_ne_bytes(), [0; 8]].concat());
                });
            });
        });
        let mut device = ObservedWireguard::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        wireguard::device(&mut device, &only(batch.as_bytes()), now).unwrap();
        device.peers[0].handshake_age
    };
    assert_eq!(age(1000, 1010), Some(Duration::from_secs(10)));
    assert_eq!(age(0, 1010), None, "never");
    assert_eq!(age(1000, 990), Some(Duration::ZERO), "the clock was set back");
}

fn read_all(datagram: &[u8]) {
    for message in messages(datagram).flatten() {
        let _ignored = (link(&message), interface_address(&message), neighbor(&message), fdb_entry(&message));
        let _ignored = (nexthop(&message), route(&message), any_neighbor(&message));
        let mut device = ObservedWireguard::default();
        let _ignored = wireguard::device(&mut device, &message, SystemTime::UNIX_EPOCH);
        let _ignored =
            (ethtool::tx_checksum(&message), generic_netlink::family(&message), fou::ipip_port(&message));
    }
}

/// A VXLAN device and one object of each kind.
fn link_and_entries() -> Vec<u8> {
    let mut batch = Batch::new();
    batch.message(RTM_NEWLINK, Flags::NONE, &encode::ifinfomsg(7, 1, 0), |a| {
        a.text(IFLA_IFNAME, "flannel.1");
        a.u32(IFLA_MTU, 1450);
        a.bytes(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]);
        a.nested(IFLA_LINKINFO, |a| {
            a.text(IFLA_INFO_KIND, "vxlan");
            a.nested(IFLA_INFO_DATA, |a| {
                a.u32(IFLA_VXLAN_ID, 1);
                a.be16(IFLA_VXLAN_PORT, 8472);
                a.bytes(IFLA_VXLAN_LOCAL, &[192, 168, 77, 1]);
                a.u8(IFLA_VXLAN_LEARNING, 0);
            });
        });
    });
    let address = IpAddr::from([10, 244, 2, 0]);
    let mac = MacAddr::new([2, 0, 0, 0, 0, 2]).unwrap();
    let underlay = IpAddr::from([192, 168, 77, 2]);
    let subnet = IpNet::new(address, 24).unwrap();
    for step in [
        Step::PutNeighbor(Neighbor { address, mac }),
        Step::PutFdbEntry(FdbEntry { family: Family::V4, mac, underlay }),
        Step::PutNexthop {
            nexthop: Nexthop { id: 9, gateway: Ipv4Addr::new(10, 244, 2, 0) },
            replace: false,
        },
        Step::PutRoute { route: Route { subnet, to: RouteTo::Nexthop { id: 9 } }, replace: true },
        Step::PutRoute { route: Route { subnet, to: RouteTo::Onlink { gateway: address } }, replace: true },
    ] {
        encode::step(&mut batch, &step, &PerFamily::from_fn(|_| Indexes { device: 7, underlay: 2 }));
    }
    let peer = WireguardPeer {
        key: PublicKey::new([1; 32]),
        endpoint: Some(SocketAddr::new(underlay, 51820)),
        subnets: vec![subnet],
        replaces_subnets: true,
        psk: None,
        keepalive: None,
    };
    wireguard::put_peer(&mut batch, 30, 7, &peer);
    batch.as_bytes().to_vec()
}
