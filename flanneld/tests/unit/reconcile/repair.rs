//! What others break, what the kernel refuses, and what the status reports about it.

use super::*;

#[tokio::test(start_paused = true)]
async fn who_keeps_flushing_is_left_to_end_and_then_everything_is_back() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let before = node.links.with(|kernel| kernel.applied_plans);
    let device = || node.links.with(|kernel| kernel.devices.values().next().cloned());
    let (_, notifications, _) = &node.alive;
    for _ in 0..200 {
        if let Some(found) = device() {
            node.links.with(|kernel| kernel.delete_device(found.name));
            notifications.send(vec![Notification::LinkGone { index: found.index }]).await.unwrap();
        }
        sleep(Duration::from_millis(1)).await;
    }
    let repairs = node.links.with(|kernel| kernel.applied_plans) - before;
    assert!((4..12).contains(&repairs), "{repairs} repairs in 200 ms of somebody undoing each");
    sleep(Duration::from_millis(50)).await;
    assert!(device().is_some());

    // Later the next one is repaired at once again.
    sleep(Duration::from_secs(1)).await;
    let found = device().unwrap();
    node.links.with(|kernel| kernel.delete_device(found.name));
    notifications.send(vec![Notification::LinkGone { index: found.index }]).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert!(device().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_refused_peer_delays_no_other_and_comes_in_when_the_kernel_takes_it() {
    let mut node = Node::start();
    node.links.with(|kernel| kernel.refused_peers.insert(subnet(3).into()));
    node.tell(listing([2, 3, 4])).await;
    node.until(Readiness::is_ready).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(2)), subnet(4).into()]);

    sleep(Duration::from_secs(600)).await;
    let tries = node.links.with(|kernel| kernel.applied_plans);
    assert!(tries < 600, "it pauses longer and longer: {tries} plans in ten minutes");

    // What others do does not try it, and is counted as if it were not there.
    let refusals = node.links.with(|kernel| kernel.refused_steps);
    for n in 5..105 {
        node.tell([LeaseEvent::Upsert(lease(n))]).await;
        sleep(Duration::from_millis(1)).await;
    }
    let tried = node.links.with(|kernel| kernel.refused_steps) - refusals;
    assert!(tried <= 12, "by its own timer and the full reading, four steps each: {tried}");
    assert_eq!(node.routes().len(), 102);
    node.links.with(|kernel| kernel.routes.retain(|(there, _), _| *there != IpNet::from(subnet(4))));
    sleep(Duration::from_secs(120)).await;
    assert_eq!(node.routes().len(), 102);
    let status = node.status_query.ask(false).await.unwrap();
    assert_eq!(
        status.repairs.len(),
        1,
        "that was a repair, tries of the refused are none: {:?}",
        status.repairs
    );
    assert!(
        status.notes.values().any(|note| note.starts_with("the kernel refuses 1 of the peers, ")),
        "{:?}",
        status.notes
    );

    node.links.with(|kernel| kernel.refused_peers.clear());
    sleep(Duration::from_secs(10)).await;
    assert_eq!(node.routes().len(), 103);
    assert!(node.status_query.ask(false).await.unwrap().notes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_every_peer_is_refused_is_not_ready() {
    let mut node = Node::start();
    node.links.with(|kernel| kernel.refused_peers.extend([IpNet::from(subnet(2)), subnet(3).into()]));
    node.tell(listing([2, 3])).await;
    node.until(|readiness| readiness.reason(Condition::Device).is_none()).await;
    let reason = node.readiness.borrow().reason(Condition::Peers).unwrap().to_owned();
    assert!(reason.starts_with("none is programmed: peer 10.244.2.0/24"), "{reason}");
    node.links.with(|kernel| kernel.refused_peers.remove(&subnet(3).into()));
    node.until(Readiness::is_ready).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(3))]);
}

#[tokio::test(start_paused = true)]
async fn refused_rules_make_the_node_unready_until_they_are_in() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    node.rules.with(|kernel| {
        kernel.flush();
        kernel.refuse_next(0, Errno::ENOMEM);
    });
    node.rule_changes.send_modify(|commits| commits.ours += 1);
    node.until(|readiness| readiness.reason(Condition::Rules).is_some()).await;
    node.until(Readiness::is_ready).await;
    assert_eq!(node.rules.with(|kernel| kernel.tables().len()), 1);
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_events_commits_nothing() {
    let mut node = Node::start();
    node.tell(listing([2, 3])).await;
    node.until(Readiness::is_ready).await;
    let before = (node.rules.with(|kernel| kernel.commits()), node.links.with(|kernel| kernel.applied_steps));
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(
        (node.rules.with(|kernel| kernel.commits()), node.links.with(|kernel| kernel.applied_steps)),
        before
    );
}

#[tokio::test(start_paused = true)]
async fn a_changed_configuration_is_taken_where_that_is_possible_and_refused_by_key_elsewhere() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let tell = async |text: &str| {
        let (done, outcome) = oneshot::channel();
        let net_conf = NetConf::parse(text.as_bytes()).unwrap();
        node.reloads.send(Reload { net_conf, done }).await.unwrap();
        outcome.await.unwrap()
    };
    let base = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
    assert_eq!(tell(base).await, Ok(false));

    let live = r#"{"Network": "10.244.0.0/16", "NonMasqueradeCIDRs": ["10.0.0.0/8"], "Backend": {"Type": "vxlan", "MTU": 1400}}"#;
    let commits = node.rules.with(|kernel| kernel.commits());
    assert_eq!(tell(live).await, Ok(true));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        node.links.with(|kernel| kernel.devices.values().map(|device| device.mtu).collect::<Vec<_>>()),
        [1350]
    );
    assert_eq!(node.rules.with(|kernel| kernel.commits()), commits + 1);
    assert_eq!(node.routes(), [IpNet::from(subnet(2))]);

    let refused = tell(&live.replace("vxlan\"", "vxlan\", \"VNI\": 7")).await.unwrap_err();
    assert!(refused.starts_with("Backend.VNI 1 -> 7 "), "{refused}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(node.rules.with(|kernel| kernel.commits()), commits + 1);
    assert!(node.readiness.borrow().is_ready());
}

#[tokio::test(start_paused = true)]
async fn the_status_names_each_peer_and_what_became_of_it() {
    let mut node = Node::start();
    node.links.with(|kernel| kernel.refused_peers.insert(subnet(3).into()));
    node.tell(listing([2, 3])).await;
    node.until(Readiness::is_ready).await;

    let status = node.status_query.ask(true).await.unwrap();
    assert_eq!(status.peers, PeerCounts { leases: 2, programmed: 1, pending: 1, skipped: 0 });
    let states: Vec<_> = status.peer_list.iter().map(|peer| (peer.subnet, peer.state)).collect();
    assert_eq!(states, [(subnet(2).into(), PeerState::Programmed), (subnet(3).into(), PeerState::Pending)]);
    assert_eq!(status.lease.ipv4, Some(subnet(1)));
    assert_eq!(status.devices.first().map(|device| device.name.as_str()), Some("flannel.1"));
    assert!(status.ready && status.rules.right, "{status:?}");

    node.links.with(|kernel| kernel.refused_peers.clear());
    sleep(Duration::from_secs(10)).await;
    node.tell([LeaseEvent::Upsert(lease(4))]).await;
    sleep(Duration::from_secs(1)).await;
    let status = node.status_query.ask(false).await.unwrap();
    assert_eq!(status.peers.programmed, 3);
    assert_eq!(status.repairs, [], "what was asked for, now or at the start, repairs nothing");
}

#[tokio::test(start_paused = true)]
async fn what_others_break_is_a_repair_and_says_how_it_was_found_and_who_did_it() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;

    node.rules.with(FakeNft::flush);
    node.rule_changes.send_modify(|commits| commits.culprit = Some(("nft".to_owned(), 4711)));
    sleep(Duration::from_millis(10)).await;
    node.links.with(|kernel| kernel.routes.clear());
    sleep(Duration::from_secs(120)).await;

    let status = node.status_query.ask(false).await.unwrap();
    let repairs: Vec<_> =
        status.repairs.iter().map(|repair| (repair.object.as_str(), repair.cause)).collect();
    assert_eq!(repairs, [("overlay", Cause::Check), ("rules", Cause::Notification)], "newest first");
    let rules = status.repairs.last().unwrap();
    assert!(rules.what.ends_with("last changed by \"nft\", process 4711"), "{}", rules.what);
    assert_eq!(node.routes(), [IpNet::from(subnet(2))]);
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_waits_for_calm_is_not_booked_as_found_by_the_check_that_falls_into_its_pause() {
    let first_check = tokio::time::Instant::now() + Duration::from_secs(5);
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;

    for before in [8, 7, 1] {
        tokio::time::sleep_until(first_check - Duration::from_millis(before)).await;
        node.links.with(|kernel| kernel.routes.clear());
        node.alive.1.send(vec![Notification::Overflow]).await.unwrap();
    }
    tokio::time::sleep_until(first_check + Duration::from_millis(5)).await;
    assert_eq!(node.routes(), [], "not yet repaired");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(2))]);

    let status = node.status_query.ask(false).await.unwrap();
    let causes: Vec<_> = status.repairs.iter().map(|repair| repair.cause).collect();
    assert_eq!(causes, [Cause::Notification; 3]);
}

#[tokio::test(start_paused = true)]
async fn thirty_changes_and_thirty_repairs_a_minute_are_logged_and_then_once_that_there_are_more() {
    let (lines, _capturing) = capture_log();
    // Lines of each write, and of more than 30 requested ones and repairs, since the last call.
    let logged = || {
        let text = std::mem::take(&mut *lines.lock().unwrap());
        ["devices, peers and routes written", "made flanneld write rules", "repaired more than 30 times"]
            .map(|line| text.matches(line).count())
    };
    let mut node = Node::start();
    node.tell(listing(2..42)).await;
    node.until(Readiness::is_ready).await;
    sleep(Duration::from_secs(65)).await;
    logged();
    for n in 100..140 {
        node.tell([LeaseEvent::Upsert(lease(n))]).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(logged(), [30, 1, 0]);
    for n in 2..42 {
        let gone = node.links.with(|kernel| kernel.routes.remove(&(subnet(n).into(), 0)));
        let gone = Notification::Route { route: gone.unwrap(), gone: true };
        node.alive.1.send(vec![gone]).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(logged(), [30, 0, 1]);
}
