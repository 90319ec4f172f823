//! Leases that lack something, and the node's own lease among those of the store.

use flannel_lease::Gaps;

use super::*;

/// The lease of node 2 without an address, as a store reports it.
fn gap() -> LeaseEvent {
    let gaps = Gaps { ipv4: Some("node \"b\": annotation x is missing".to_owned()), ipv6: None };
    let attributes = LeaseAttributes { public_ip: None, ..lease(2).attributes };
    LeaseEvent::Upsert(Lease { attributes, gaps, ..lease(2) })
}

fn malformed() -> LeaseEvent {
    LeaseEvent::Malformed { key: lease(2).key, problem: "node \"b\": annotation y is missing".to_owned() }
}

fn note_of(node: &Node) -> Option<String> {
    let body = node.readiness.borrow().body();
    body.lines().find_map(|line| line.strip_prefix("note: leases: ")).map(str::to_owned)
}

#[tokio::test(start_paused = true)]
async fn what_a_lease_lacks_is_noted_and_shown_with_its_peer_until_it_ends() {
    let mut node = Node::start();
    node.tell(listing([2, 3])).await;
    node.until(Readiness::is_ready).await;
    let steps = || node.links.with(|kernel| kernel.applied_steps);
    let before = steps();
    for (event, text) in [(gap(), "annotation x"), (malformed(), "annotation y")] {
        node.tell([event.clone()]).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(steps(), before);
        assert_eq!(
            note_of(&node),
            Some(format!(
                "node \"b\": {text} is missing (public address 192.168.77.2): 10.244.2.0/24 stays as it was"
            ))
        );
        assert!(node.readiness.borrow().is_ready());
        let status = node.status_query.ask(true).await.unwrap();
        let peer = status.peer_list.iter().find(|peer| peer.subnet == IpNet::from(subnet(2))).unwrap();
        assert_eq!(peer.state, PeerState::Programmed);
        assert!(peer.reason.as_ref().unwrap().contains(text), "{peer:?}");
        // A listing that shows it so again changes nothing.
        let mut again = listing([3]);
        again.insert(1, event);
        node.tell(again).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!((steps(), note_of(&node).is_some()), (before, true));
        node.tell([LeaseEvent::Upsert(lease(2))]).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!((steps(), note_of(&node)), (before, None));
    }
    node.tell([gap(), LeaseEvent::Remove(lease(2).key)]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!((node.routes(), note_of(&node)), (vec![IpNet::from(subnet(3))], None));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_was_a_peer_is_noted_until_it_is_one_or_gone() {
    let mut node = Node::start();
    node.tell(listing([3])).await;
    node.until(Readiness::is_ready).await;
    for event in [gap(), malformed()] {
        let noted = async || {
            node.tell([event.clone()]).await;
            sleep(Duration::from_secs(1)).await;
            assert_eq!(node.routes(), [IpNet::from(subnet(3))]);
            let note = note_of(&node).unwrap();
            assert!(note.ends_with("10.244.2.0/24 cannot be reached"), "{note}");
        };
        noted().await;
        node.tell([LeaseEvent::Upsert(lease(2))]).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!((node.routes().len(), note_of(&node)), (2, None));
        for gone in [vec![LeaseEvent::Remove(lease(2).key)], listing([3])] {
            node.tell([LeaseEvent::Remove(lease(2).key)]).await;
            noted().await;
            node.tell(gone).await;
            sleep(Duration::from_secs(1)).await;
            assert_eq!(note_of(&node), None);
        }
    }
}

/// What becomes of the peer of node 2 when its lease names this backend, and the store reports this gap.
async fn after_change(backend: &str, gap: Option<&str>) -> (usize, Option<String>) {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let attributes = LeaseAttributes { backend_type: backend.into(), ..lease(2).attributes };
    let gaps = Gaps { ipv4: gap.map(str::to_owned), ipv6: None };
    node.tell([LeaseEvent::Upsert(Lease { attributes, gaps, ..lease(2) })]).await;
    sleep(Duration::from_secs(1)).await;
    (node.routes().len(), note_of(&node))
}

#[tokio::test(start_paused = true)]
async fn a_lease_without_a_backend_type_keeps_its_peer_unless_that_is_how_its_backend_publishes() {
    let note =
        Some("the type is missing (public address 192.168.77.2): 10.244.2.0/24 stays as it was".to_owned());
    assert_eq!(after_change("", Some("the type is missing")).await, (1, note));
    assert_eq!(after_change("", None).await, (0, None), "backend udp");
    assert_eq!(after_change("host-gw", Some("the address is missing")).await, (0, None));
}

#[tokio::test(start_paused = true)]
async fn the_nodes_own_lease_is_no_peer_whatever_its_subnet() {
    let mut node = Node::start();
    let own = |n: u8| Lease { attributes: node.own.clone(), ..lease(n) };
    let (new, newest) = (own(7), own(8));
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    // The store names it before it is adopted, and the former one after that.
    node.tell([LeaseEvent::Upsert(new.clone())]).await;
    sleep(Duration::from_secs(1)).await;
    let status = node.status_query.ask(true).await.unwrap();
    assert_eq!((status.peers.leases, status.peer_list.len()), (1, 1), "{:?}", status.peer_list);
    node.alive.0.send(new.clone()).unwrap();
    sleep(Duration::from_secs(1)).await;
    node.tell([LeaseEvent::Upsert(new)]).await;
    node.alive.0.send(newest).unwrap();
    sleep(Duration::from_secs(1)).await;
    let status = node.status_query.ask(true).await.unwrap();
    assert_eq!((status.peers.leases, status.lease.ipv4), (1, Some(subnet(8))), "{:?}", status.peer_list);
    // Another node that takes the former subnet is one.
    node.tell([LeaseEvent::Upsert(lease(7))]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.status_query.ask(true).await.unwrap().peers.programmed, 2);
}

#[tokio::test(start_paused = true)]
async fn the_nodes_own_lease_is_known_by_the_nodes_name_where_the_store_has_one() {
    let mut node = Node::start();
    let named = |n: u8, name: &str| Lease { node: Some(name.to_owned()), ..lease(n) };
    node.alive.0.send(named(1, "a")).unwrap();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    // An operator may have it publish another address than its own.
    node.tell([LeaseEvent::Upsert(named(7, "a")), LeaseEvent::Upsert(named(9, "b"))]).await;
    sleep(Duration::from_secs(1)).await;
    let status = node.status_query.ask(true).await.unwrap();
    let peers: Vec<IpNet> = status.peer_list.iter().map(|peer| peer.subnet).collect();
    assert_eq!(peers, [IpNet::from(subnet(2)), subnet(9).into()]);
    let key: LeaseKey = "10.244.1.0-24".parse().unwrap();
    node.tell([LeaseEvent::Malformed { key, problem: "its own".to_owned() }]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(note_of(&node), None, "it is published again");
}
