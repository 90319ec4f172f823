//! What the reconciler makes of leases, and of the peers that it remembers.

use super::*;

#[tokio::test(start_paused = true)]
async fn it_is_ready_once_everything_is_there_and_not_before_the_first_listing() {
    let mut node = Node::start();
    node.tell([LeaseEvent::Resync, LeaseEvent::Upsert(lease(2))]).await;
    sleep(Duration::from_secs(120)).await;
    assert!(!node.readiness.borrow().is_ready());
    assert_eq!(node.readiness.borrow().reason(Condition::Rules), None, "the rules do not wait for peers");
    assert_eq!(
        node.links.with(|kernel| kernel.applied_plans),
        0,
        "what looks stale may belong to a peer not yet named"
    );

    node.tell([LeaseEvent::Synced { unreadable: Vec::new() }]).await;
    node.until(Readiness::is_ready).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(2))]);
}

pub(super) fn direct_route(subnet: &str, metric: u32) -> ((IpNet, u32), ObservedRoute) {
    let subnet = subnet.parse().unwrap();
    let to = ObservedRouteTo::Gateway { gateway: "192.168.77.9".parse().unwrap(), onlink: false };
    let protocol = flannel_vxlan::ROUTE_PROTOCOL;
    ((subnet, metric), ObservedRoute { subnet, protocol, metric, interface: 2, to, no_extra_attrs: true })
}

#[tokio::test(start_paused = true)]
async fn a_sweep_of_another_network_takes_no_peer_away_and_is_verified_before_the_node_is_ready() {
    let vxlan = |network: &str| format!(r#"{{"Network": "{network}", "Backend": {{"Type": "vxlan"}}}}"#);
    for before in ["10.240.0.0/12", "10.244.0.0/18", "10.0.0.0/8"] {
        let links = Shared::new(fake_links());
        let outside = direct_route("10.247.9.0/24", 0);
        links.with(|kernel| {
            kernel.routes.extend([outside, direct_route("10.244.9.0/24", 0)]);
            kernel.lost_with_route.insert(outside.0.0, subnet(3).into());
        });
        let mut node = Node::start_after(Some(&vxlan(before)), None, links, Shared::default());
        node.tell(listing([2, 3])).await;
        node.until(Readiness::is_ready).await;
        let swept = before != "10.244.0.0/18";
        let left = (!swept).then_some(outside.0.0);
        let wanted: Vec<IpNet> = [subnet(2).into(), subnet(3).into()].into_iter().chain(left).collect();
        assert_eq!(node.routes(), wanted, "network {before} before");
        assert_eq!(node.status_query.ask(false).await.unwrap().peers.programmed, 2);
        // Nothing is left to the verification every 60 seconds.
        let steps = node.links.with(|kernel| kernel.applied_steps);
        sleep(Duration::from_secs(150)).await;
        assert_eq!(node.links.with(|kernel| kernel.applied_steps), steps, "network {before} before");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_swept_yet_is_remembered_for_the_next_start() {
    let before = r#"{"Network": "10.240.0.0/12", "Backend": {"Type": "host-gw"}}"#;
    let restored =
        RestoredPeers { peers: vec![(lease(2).key, Arc::new(lease(2).attributes))], confirmed: false };
    let links = Shared::new(fake_links());
    let mut node = Node::start_after(Some(before), Some(restored), links, Shared::default());
    let memory = timeout(Duration::from_secs(60), node.saved.recv()).await.unwrap().unwrap();
    assert_eq!(memory.unswept, [NetConf::parse(before.as_bytes()).unwrap()]);
    node.tell(listing([2])).await;
    let memory = timeout(Duration::from_millis(1), node.saved.recv()).await.unwrap().unwrap();
    assert_eq!(memory.unswept, [], "swept once all leases are known, and remembered at once");
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_leases_is_one_plan() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let before = node.links.with(|kernel| kernel.applied_plans);
    for n in 3..203 {
        node.leases.try_send(LeaseEvent::Upsert(lease(n))).unwrap();
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(node.routes().len(), 201);
    assert_eq!(node.links.with(|kernel| kernel.applied_plans), before + 1);
}

#[tokio::test(start_paused = true)]
async fn one_lease_costs_the_kernel_the_same_among_ten_peers_as_among_eight_thousand() {
    /// Questions, plans and steps that each of these events takes: a lease comes, changes and goes.
    async fn cost(peers: u16) -> Vec<[usize; 3]> {
        let mut node = Node::start();
        node.tell([LeaseEvent::Resync]).await;
        node.tell((0..peers).map(|n| LeaseEvent::Upsert(small_lease(n)))).await;
        node.tell([LeaseEvent::Synced { unreadable: Vec::new() }]).await;
        node.until(Readiness::is_ready).await;
        assert_eq!(node.routes().len(), usize::from(peers));
        let spent = || node.links.with(|kernel| [kernel.reads, kernel.applied_plans, kernel.applied_steps]);
        let (new, mut moved) = (small_lease(8_191), small_lease(8_191));
        moved.attributes.public_ip = Some(Ipv4Addr::new(172, 17, 0, 1));
        let mut costs = Vec::new();
        for event in [LeaseEvent::Upsert(new.clone()), LeaseEvent::Upsert(moved), LeaseEvent::Remove(new.key)]
        {
            let before = spent();
            node.tell([event]).await;
            // Long enough for whatever a change is followed by, such as the state file.
            sleep(Duration::from_secs(20)).await;
            let after = spent();
            costs.push([after[0] - before[0], after[1] - before[1], after[2] - before[2]]);
        }
        costs
    }
    let among_ten = cost(10).await;
    assert_eq!(among_ten, [[0, 1, 4], [0, 1, 4], [0, 1, 4]]);
    assert_eq!(cost(8_000).await, among_ten);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_turns_malformed_keeps_its_peer_until_it_is_good_again_or_gone() {
    let mut node = Node::start();
    node.tell(listing([2, 3])).await;
    node.until(Readiness::is_ready).await;
    let steps = || node.links.with(|kernel| kernel.applied_steps);
    let before = steps();
    let told = |attributes: &str| {
        let attributes = LeaseAttributes::from_json(attributes.as_bytes()).unwrap();
        LeaseEvent::Upsert(Lease { attributes, ..lease(2) })
    };
    for malformed in [
        r#"{"PublicIP": "192.168.77.2", "BackendType": "vxlan", "BackendData": {"VNI": 1}}"#,
        r#"{"PublicIP": "192.168.77.2", "BackendType": "vxlan", "BackendData": {"VNI": 1, "VtepMAC": "nonsense"}}"#,
        r#"{"PublicIP": "192.168.77.2", "BackendType": "vxlan"}"#,
        r#"{"BackendType": "vxlan", "BackendData": {"VNI": 1, "VtepMAC": "02:00:00:00:00:02"}}"#,
    ] {
        node.tell([told(malformed)]).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(steps(), before, "{malformed}");
        let mut again = listing([3]);
        again.insert(1, told(malformed));
        node.tell(again).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(node.routes().len(), 2, "{malformed}");
    }
    // What it says clearly is followed.
    let other = r#"{"PublicIP": "192.168.77.2", "BackendType": "host-gw"}"#;
    node.tell([told(other)]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(3))]);
    node.tell([LeaseEvent::Upsert(lease(2))]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.routes().len(), 2);
    node.tell([told(r#"{"BackendType": "vxlan"}"#), LeaseEvent::Remove(lease(2).key)]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(3))]);
}

#[tokio::test(start_paused = true)]
async fn only_what_the_store_says_is_gone_is_removed() {
    let mut node = Node::start();
    node.tell(listing([2, 3, 4])).await;
    node.until(Readiness::is_ready).await;
    node.tell([LeaseEvent::Resync, LeaseEvent::Upsert(lease(2))]).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(node.routes().len(), 3, "a listing that never ends removes nobody");

    node.tell(listing([2, 4])).await;
    node.tell([LeaseEvent::Remove(lease(4).key)]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(2))]);
}

fn restored(peers: impl IntoIterator<Item = u8>) -> Option<RestoredPeers> {
    let peers = peers.into_iter().map(|n| (lease(n).key, Arc::new(lease(n).attributes))).collect();
    Some(RestoredPeers { peers, confirmed: false })
}

#[tokio::test(start_paused = true)]
async fn recalled_peers_are_repaired_at_once_and_nobody_is_swept_before_the_store_has_spoken() {
    let mut before = Node::start();
    before.tell(listing([2, 3, 4])).await;
    before.until(Readiness::is_ready).await;
    let links = before.links.clone();
    drop(before);
    links.with(|kernel| {
        kernel.routes.retain(|(net, _), _| *net != IpNet::from(subnet(2)));
        kernel.neighbors.clear();
    });

    let mut node = Node::start_with(restored([2, 3]), links);
    node.until(Readiness::is_ready).await;
    assert_eq!(node.routes().len(), 3, "2 is repaired, 4 is not known and not swept");
    assert_eq!(node.links.with(|kernel| kernel.neighbors.len()), 2);
    sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(node.routes().len(), 3, "however long the store is away");

    node.tell(listing([3, 5])).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(3)), subnet(5).into()]);
}

#[tokio::test(start_paused = true)]
async fn with_no_peer_remembered_the_device_is_there_and_nobody_is_swept() {
    let mut before = Node::start();
    before.tell(listing([2, 3])).await;
    before.until(Readiness::is_ready).await;
    let mut node = Node::start_with(restored([]), before.links.clone());
    node.until(Readiness::is_ready).await;
    assert_eq!(node.routes().len(), 2);
    node.tell(listing([2])).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(2))]);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_changes_is_remembered_every_few_seconds_and_half_a_listing_not_at_all() {
    let mut node = Node::start();
    node.tell([LeaseEvent::Resync, LeaseEvent::Upsert(lease(2))]).await;
    sleep(Duration::from_secs(60)).await;
    assert!(node.saved.try_recv().is_err());
    node.tell([LeaseEvent::Synced { unreadable: Vec::new() }]).await;
    sleep(Duration::from_secs(6)).await;
    let first = node.saved.try_recv().unwrap();
    assert_eq!(first.peers, [(lease(2).key, Arc::new(lease(2).attributes))]);

    let mut times = 0;
    for n in 3..203 {
        node.tell([LeaseEvent::Upsert(lease(n))]).await;
        sleep(Duration::from_millis(100)).await;
        times += u32::from(node.saved.try_recv().is_ok());
    }
    assert!((2..=5).contains(&times), "{times} in 20 s");
    sleep(Duration::from_secs(6)).await;
    assert_eq!(node.saved.try_recv().unwrap().peers.len(), 201);
}

#[tokio::test(start_paused = true)]
async fn the_last_change_is_remembered_at_the_end_though_the_file_is_slow_to_write() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    sleep(Duration::from_secs(6)).await;
    node.tell([LeaseEvent::Upsert(lease(3))]).await;
    sleep(Duration::from_secs(60)).await;
    let (_own, _links, stop) = node.alive;
    stop.send(()).unwrap();
    let mut remembered = Vec::new();
    while let Some(memory) = node.saved.recv().await {
        remembered.push(memory.peers.len());
    }
    assert_eq!(remembered, [1, 2]);
}

/// As after a revocation, if another node took the MAC address meanwhile.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_taken_again_with_another_mac_address_changes_the_device() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let mac = |node: &Node| node.links.with(|kernel| kernel.devices.values().next().unwrap().mac);
    let published = Some([2, 0, 0, 0, 0, 1]);
    assert_ne!(mac(&node).map(|mac| mac.bytes()), published);

    node.alive.0.send_replace(lease(1));
    sleep(Duration::from_secs(1)).await;

    assert_eq!(mac(&node).map(|mac| mac.bytes()), published);
}

/// A clone of this machine, with a lease of its own, publishes what this node publishes until the address of either changes.
#[tokio::test(start_paused = true)]
async fn a_lease_that_looks_like_the_nodes_own_becomes_a_peer_once_the_nodes_address_changes() {
    let mut node = Node::start();
    let mut events = listing([]);
    for (key, created) in [(lease(1).key, 8), (lease(2).key, 5)] {
        events.insert(1, LeaseEvent::Upsert(Lease { created, ..Lease::new(key, node.own.clone(), None) }));
    }
    node.tell(events).await;
    node.until(Readiness::is_ready).await;
    assert_eq!(node.routes(), []);

    let address = Ipv4Addr::new(192, 168, 77, 9).into();
    node.links.with(|kernel| kernel.interfaces[0].addresses[0].address = address);
    node.alive.1.send(vec![Notification::Address { interface: 2, address, gone: false }]).await.unwrap();
    // Until the next check, the clone's lease has this node's MAC address, which the younger of the two changes.
    sleep(Duration::from_secs(61)).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(2))]);
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_with_one_mac_address_the_younger_takes_another() {
    for (own, peer, is_younger) in [(8, 5, true), (5, 8, false)] {
        let mut node = Node::start();
        let mac = |node: &Node| node.links.with(|kernel| kernel.devices.values().next().unwrap().mac);
        let mut events = listing([]);
        let twin = LeaseAttributes { backend_data: node.own.backend_data.clone(), ..lease(2).attributes };
        let leases = [(lease(1).key, node.own.clone(), own), (lease(2).key, twin, peer)];
        for (key, attributes, created) in leases {
            events.insert(1, LeaseEvent::Upsert(Lease { created, ..Lease::new(key, attributes, None) }));
        }
        node.tell(events).await;
        node.until(|readiness| readiness.reason(Condition::Rules).is_none()).await;
        sleep(Duration::from_secs(1)).await;
        let before = mac(&node);
        sleep(Duration::from_secs(61)).await;
        assert_eq!(mac(&node) != before, is_younger, "created {own}, the other lease {peer}");
        let routes: &[IpNet] = if is_younger { &[subnet(2).into()] } else { &[] };
        assert_eq!(node.routes(), routes, "created {own}, the other lease {peer}");
    }
}
