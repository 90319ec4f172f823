//! What a change of one peer costs, with each kind of device: the same with ten peers and with thousands.

use std::net::{IpAddr, SocketAddr};

use flannel_vxlan::{
    Applied, ApplyError, DefaultRoute, DeviceSpec, FakeKernel, Family, IfName, Interface, IpipSpec, Kernel,
    Links, MacAddr, ObserveError, Observed, ObservedWireguard, Overlay, Peer, Plan, PrivateKey, PublicKey,
    RouteLookup, UnderlayMtu, Via, WireguardSpec,
};

use super::{device, eth0, family, ipip};

/// Counts the readings of the host and the steps. Each step is one message to the kernel.
struct Counting {
    kernel: FakeKernel,
    readings: usize,
    steps: usize,
}

impl Kernel for Counting {
    fn observe(&mut self, links: &[Links]) -> Result<Observed, ObserveError> {
        self.readings += 1;
        self.kernel.observe(links)
    }

    fn apply(&mut self, plan: &Plan) -> Result<Applied, ApplyError> {
        self.steps += plan.steps().len();
        self.kernel.apply(plan)
    }

    fn interfaces(&mut self) -> Result<Vec<Interface>, ObserveError> {
        self.kernel.interfaces()
    }

    fn default_routes(&mut self, family: Family) -> Result<Vec<DefaultRoute>, ObserveError> {
        self.kernel.default_routes(family)
    }

    fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteLookup>, ObserveError> {
        self.kernel.route_to(address)
    }

    fn wireguard(&mut self, device: IfName) -> Result<Option<ObservedWireguard>, ObserveError> {
        self.kernel.wireguard(device)
    }
}

/// A backend: its device, and how it reaches the node with an address and a number.
struct Backend {
    name: &'static str,
    device: Option<DeviceSpec>,
    via: fn(IpAddr, u16) -> Via,
    /// Messages for a new peer, for a peer with another public address, and for a peer that leaves.
    messages: [usize; 3],
}

fn mac(n: u16) -> MacAddr {
    let [high, low] = n.to_be_bytes();
    MacAddr::new([2, 0, 0, 0, high, low]).unwrap()
}

fn backends() -> [Backend; 5] {
    let outer = |underlay, _| Via::Outer { underlay };
    let wireguard = DeviceSpec::new(
        WireguardSpec::new(PrivateKey::new([1; 32])),
        eth0(),
        "192.168.77.1".parse().unwrap(),
        "10.244.1.0".parse().unwrap(),
        UnderlayMtu::new(1500).inside_wireguard(Family::V4).unwrap(),
    );
    [
        Backend {
            name: "vxlan",
            device: Some(device(1, "192.168.77.1", "10.244.1.0", mac(1))),
            via: |underlay, n| Via::Tunnel { mac: mac(n), underlay },
            messages: [4, 4, 4],
        },
        Backend {
            name: "host-gw",
            device: None,
            via: |gateway, _| Via::Direct { gateway },
            messages: [1, 1, 1],
        },
        Backend {
            name: "wireguard",
            device: Some(wireguard),
            via: |underlay, n| Via::Key {
                key: PublicKey::new([n.to_be_bytes(); 16].concat().try_into().unwrap()),
                endpoint: SocketAddr::new(underlay, 51820),
            },
            messages: [1, 1, 1],
        },
        Backend { name: "ipip", device: Some(ipip(IpipSpec::new())), via: outer, messages: [2, 2, 2] },
        Backend {
            name: "udp",
            device: Some(ipip(IpipSpec::new().fou(8285.try_into().unwrap()))),
            via: outer,
            messages: [2, 2, 2],
        },
    ]
}

/// Messages and readings of the host for a new peer, for its change and for its removal, next to `others`.
fn costs(backend: &Backend, others: u16) -> [(usize, usize); 3] {
    let mut spec = family(Family::V4);
    spec.device.clone_from(&backend.device);
    let mut overlay = Overlay::new([spec]);
    let peer = |n: u16, host: u8| Peer {
        subnet: format!("10.244.{}.{}/28", 16 + n / 16, n % 16 * 16).parse().unwrap(),
        via: (backend.via)(IpAddr::from([192, 168, host, u8::try_from(n % 256).unwrap()]), n),
    };
    let kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 16)]);
    let mut kernel = Counting { kernel, readings: 0, steps: 0 };
    for n in 2..others + 2 {
        overlay.set_peer(peer(n, 100 + u8::try_from(n / 256).unwrap())).unwrap();
    }
    assert!(overlay.converge(&mut kernel).unwrap().is_clean(), "{}", backend.name);
    let newcomer = peer(3000, 90);
    let changes: [&dyn Fn(&mut Overlay); 3] = [
        &|overlay| overlay.set_peer(newcomer).unwrap(),
        &|overlay| overlay.set_peer(peer(3000, 91)).unwrap(),
        &|overlay| assert!(overlay.remove_peer(newcomer.subnet)),
    ];
    changes.map(|change| {
        (kernel.readings, kernel.steps) = (0, 0);
        change(&mut overlay);
        assert!(overlay.flush(&mut kernel).unwrap().is_clean(), "{}", backend.name);
        (kernel.steps, kernel.readings)
    })
}

#[test]
fn a_change_of_one_peer_costs_the_same_next_to_ten_peers_and_next_to_two_thousand() {
    for backend in backends() {
        for others in [10, 2000] {
            let expected = backend.messages.map(|messages| (messages, 0));
            assert_eq!(costs(&backend, others), expected, "{} next to {others} peers", backend.name);
        }
    }
}
