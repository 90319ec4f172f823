//! What changes on the host around the overlay.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_interface_that_returns_is_taken_at_once_however_long_it_was_gone() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let (interfaces, defaults) = node
        .links
        .with(|kernel| (std::mem::take(&mut kernel.interfaces), std::mem::take(&mut kernel.default_routes)));
    let gone = || vec![Notification::LinkGone { index: 2 }];
    node.alive.1.send(gone()).await.unwrap();
    node.until(|readiness| readiness.reason(Condition::Interface).is_some()).await;
    for _ in 0..40 {
        sleep(Duration::from_millis(3_777)).await;
        node.links.with(|kernel| {
            kernel.interfaces.clone_from(&interfaces);
            kernel.default_routes.clone_from(&defaults);
        });
        // Any change of an interface that is not ours.
        node.alive.1.send(vec![Notification::LinkGone { index: 999 }]).await.unwrap();
        sleep(Duration::from_millis(20)).await;
        assert_eq!(node.readiness.borrow().reason(Condition::Interface), None);
        node.links.with(|kernel| kernel.interfaces.clear());
        node.alive.1.send(gone()).await.unwrap();
        sleep(Duration::from_millis(20)).await;
        assert!(node.readiness.borrow().reason(Condition::Interface).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_virtual_address_that_comes_to_the_interface_is_not_the_nodes() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let local = || node.links.with(|kernel| kernel.devices.values().next().unwrap().vxlan().unwrap().local);
    let own = Some(IpAddr::from([192, 168, 77, 1]));
    assert_eq!(local(), own);
    let virtual_address = IpAddr::from([192, 168, 77, 100]);
    node.links.with(|kernel| {
        let addresses = &mut kernel.interfaces[0].addresses;
        addresses[0].permanent = false; // from DHCP
        addresses.push(InterfaceAddress { address: virtual_address, permanent: true, ..addresses[0] });
    });
    let change = Notification::Address { interface: 2, address: virtual_address, gone: false };
    node.alive.1.send(vec![change]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(local(), own);

    // Once its own has gone, the node takes what is left.
    let address = node.links.with(|kernel| kernel.interfaces[0].addresses.remove(0).address);
    node.alive.1.send(vec![Notification::Address { interface: 2, address, gone: true }]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(local(), Some(virtual_address));
}

#[tokio::test(start_paused = true)]
async fn which_peers_are_direct_is_decided_again_when_routes_change() {
    let mut node = Node::start();
    node.tell(listing([2, 3])).await;
    node.until(Readiness::is_ready).await;
    let peers = [2, 3].map(|n| IpAddr::from([192, 168, 77, n]));
    let interfaces = || {
        let of = |n: u8| node.links.with(|kernel| kernel.routes[&(IpNet::from(subnet(n)), 0)].interface);
        [of(2) == 2, of(3) == 2]
    };
    let way = |gateway| RouteLookup { interface: 2, source: None, gateway };
    node.links.with(|kernel| kernel.route_lookups.insert(peers[0], way(None)));
    let (done, outcome) = oneshot::channel();
    let text = br#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": true}}"#;
    let net_conf = NetConf::parse(text).unwrap();
    node.reloads.send(Reload { net_conf, done }).await.unwrap();
    assert_eq!(outcome.await.unwrap(), Ok(true));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(interfaces(), [true, false]);

    node.links.with(|kernel| {
        kernel.route_lookups.insert(peers[0], way(Some(IpAddr::from([192, 168, 77, 254]))));
        kernel.route_lookups.insert(peers[1], way(None));
    });
    let to = ObservedRouteTo::Gateway { gateway: IpAddr::from([192, 168, 77, 254]), onlink: false };
    let both = "192.168.77.0/24".parse().unwrap();
    let route =
        ObservedRoute { subnet: both, protocol: 3, metric: 0, interface: 2, to, no_extra_attrs: true };
    node.alive.1.send(vec![Notification::Route { route, gone: false }]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(interfaces(), [false, true]);
}

/// A pod's end of a link, and a route of somebody else's.
fn foreign_link() -> Notification {
    Notification::Link(Box::new(ObservedDevice {
        name: "veth0".parse().unwrap(),
        index: 50,
        up: true,
        mac: None,
        mtu: 1500,
        kind: flannel_vxlan::ObservedKind::Other("veth".to_owned()),
        addresses: Vec::new(),
        accept_ra: None,
        tx_checksum: None,
        master: 0,
    }))
}

fn foreign_route(subnet: &str) -> Notification {
    let to = ObservedRouteTo::Gateway { gateway: IpAddr::from([192, 168, 77, 9]), onlink: false };
    let subnet = subnet.parse().unwrap();
    let route = ObservedRoute { subnet, protocol: 4, metric: 0, interface: 2, to, no_extra_attrs: true };
    Notification::Route { route, gone: false }
}

#[tokio::test(start_paused = true)]
async fn what_happens_on_the_host_costs_the_same_among_ten_peers_as_among_eight_thousand() {
    /// Questions, plans and steps for: a pod's link, a route that leads to no peer, one that leads to a peer.
    async fn cost(peers: u16) -> Vec<[usize; 3]> {
        let mut node = Node::start();
        node.tell([LeaseEvent::Resync]).await;
        node.tell((0..peers).map(|n| LeaseEvent::Upsert(small_lease(n)))).await;
        node.tell([LeaseEvent::Synced { unreadable: Vec::new() }]).await;
        node.until(Readiness::is_ready).await;
        let (done, outcome) = oneshot::channel();
        let text = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": true}}"#;
        let net_conf = NetConf::parse(text.as_bytes()).unwrap();
        node.reloads.send(Reload { net_conf, done }).await.unwrap();
        assert_eq!(outcome.await.unwrap(), Ok(true));
        let (_, notifications, _) = &node.alive;
        // The first look at the host reads its default routes too.
        notifications.send(vec![foreign_link()]).await.unwrap();
        sleep(Duration::from_secs(10)).await;

        let way = RouteLookup { interface: 2, source: None, gateway: None };
        node.links.with(|kernel| kernel.route_lookups.insert(IpAddr::from([172, 16, 0, 5]), way));
        let spent = || node.links.with(|kernel| [kernel.reads, kernel.applied_plans, kernel.applied_steps]);
        let mut costs = Vec::new();
        for event in [foreign_link(), foreign_route("10.99.0.0/16"), foreign_route("172.16.0.5/32")] {
            let before = spent();
            notifications.send(vec![event]).await.unwrap();
            sleep(Duration::from_secs(1)).await;
            let after = spent();
            costs.push([after[0] - before[0], after[1] - before[1], after[2] - before[2]]);
        }
        let fifth = small_lease(5).key.v4().unwrap().into();
        let to = node.links.with(|kernel| kernel.routes.get(&(fifth, 0)).map(|route| route.to));
        let direct = ObservedRouteTo::Gateway { gateway: IpAddr::from([172, 16, 0, 5]), onlink: false };
        assert_eq!(to, Some(direct));
        costs
    }
    let among_ten = cost(10).await;
    assert_eq!(among_ten, [[1, 0, 0], [1, 0, 0], [2, 1, 4]]);
    assert_eq!(cost(8_000).await, among_ten);
}

#[tokio::test(start_paused = true)]
async fn another_default_route_counts_only_once_the_interface_in_use_is_of_no_use() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let (_, notifications, _) = &node.alive;
    let local = || {
        let device = node.links.with(|kernel| kernel.devices.values().next().cloned());
        device.and_then(|device| device.vxlan()?.local)
    };
    let eth1 = Interface {
        index: 3,
        name: "eth1".to_owned(),
        ..fake_links_at(Ipv4Addr::new(192, 168, 78, 1)).interfaces.remove(0)
    };
    node.links.with(|kernel| {
        kernel.interfaces.push(eth1);
        kernel.default_routes.insert(Family::V4, DefaultRoute { interface: 3, metric: 0 });
    });
    notifications.send(vec![foreign_link(), foreign_route("10.99.0.0/16")]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    notifications.send(vec![foreign_route("0.0.0.0/0")]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(local(), Some(IpAddr::from([192, 168, 77, 1])), "a VPN client's route changes nothing");

    // `ip link set eth0 down` reports nothing about the routes through it, and its address stays.
    node.links.with(|kernel| kernel.interfaces[0].up = false);
    notifications.send(vec![foreign_link()]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(local(), Some(IpAddr::from([192, 168, 78, 1])));

    node.links.with(|kernel| {
        kernel.interfaces[0].up = true;
        kernel.interfaces.truncate(1);
        kernel.default_routes.insert(Family::V4, DefaultRoute { interface: 2, metric: 0 });
    });
    notifications.send(vec![Notification::LinkGone { index: 3 }]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(local(), Some(IpAddr::from([192, 168, 77, 1])));
}

#[test]
fn default_routes_are_read_only_where_they_have_a_say() {
    let folder = tempfile::tempdir().unwrap();
    let Ok(Command::Run(config)) = Command::read(&Arguments(folder.path().to_owned(), VXLAN)) else {
        unreachable!()
    };
    let net_conf = config.net_conf.clone().unwrap();
    let reads = |interfaces: &[&str]| {
        let mut config: Config = *config.clone();
        config.selection.interfaces = interfaces.iter().map(ToString::to_string).collect();
        let mut links = fake_links();
        let before = links.reads;
        let facts = find_facts(&resolved(config), &net_conf, Present::default(), &mut links).unwrap();
        assert_eq!(facts.interface, "eth0");
        links.reads - before
    };
    assert_eq!(reads(&["eth0"]), 1, "the interfaces alone");
    assert_eq!(reads(&[]), 3, "and the default routes of both families");
    assert_eq!(reads(&["192.168.77.1"]), 3, "an address may be one of `lo`");
}
