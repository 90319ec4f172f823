//! Another process keeps undoing what the reconciler writes.

use flannel_nft::{Base, Chain, ChainName, Policy, Table, TableName, converge};

use super::*;

fn contested(node: &Node) -> String {
    node.readiness.borrow().reason(Condition::Uncontested).unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn rules_that_are_flushed_all_the_time_cost_a_few_commits_and_are_back_soon_after_it_ends() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    sleep(Duration::from_secs(1)).await;
    let (rules, changes) = (node.rules.clone(), node.rule_changes.clone());
    let flush = || {
        rules.with(FakeNft::flush);
        changes.send_modify(|commits| commits.ours += 1);
    };
    let commits = || rules.with(|kernel| kernel.commits());
    let before = commits();
    flush();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(commits(), before + 1, "the first one is repaired at once");

    for _ in 0..10_000 {
        flush();
        sleep(Duration::from_millis(1)).await;
    }
    let fought = commits() - before;
    assert!((9..=13).contains(&fought), "{fought} commits in ten seconds");
    assert!(contested(&node).contains("keeps undoing table ip flannel-ipv4"), "{}", contested(&node));
    let status = node.status_query.ask(false).await.unwrap();
    assert!(!status.rules.right && !status.ready, "{status:?}");

    node.until(Readiness::is_ready).await;
    assert_eq!(node.rules.with(|kernel| kernel.tables().len()), 1);
    let (repaired, idle) = (commits(), 3600);
    sleep(Duration::from_secs(idle)).await;
    assert_eq!(commits(), repaired);
    flush();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(commits(), repaired + 1, "and again at once");
}

#[tokio::test(start_paused = true)]
async fn rules_that_are_flushed_for_an_hour_cost_one_commit_a_minute() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let before = node.rules.with(|kernel| kernel.commits());
    for _ in 0..36_000 {
        node.rules.with(FakeNft::flush);
        node.rule_changes.send_modify(|commits| commits.ours += 1);
        sleep(Duration::from_millis(100)).await;
    }
    let fought = node.rules.with(|kernel| kernel.commits()) - before;
    assert!((60..=80).contains(&fought), "{fought} commits in an hour");
}

#[tokio::test(start_paused = true)]
async fn one_peers_route_that_is_deleted_all_the_time_delays_no_other_peer() {
    let mut node = Node::start();
    node.tell(listing([2, 3])).await;
    node.until(Readiness::is_ready).await;
    sleep(Duration::from_secs(1)).await;
    let (links, notifications) = (node.links.clone(), node.alive.1.clone());
    let delete = async |n: u8| {
        let gone = links.with(|kernel| {
            let key = (IpNet::from(subnet(n)), 0);
            kernel.routes.remove(&key)
        });
        if let Some(route) = gone {
            notifications.send(vec![Notification::Route { route, gone: true }]).await.unwrap();
        }
    };
    let (steps, reads) = node.links.with(|kernel| (kernel.applied_steps, kernel.reads));
    for turn in 0..10_000 {
        delete(2).await;
        if turn == 5_000 {
            delete(3).await;
        }
        sleep(Duration::from_millis(1)).await;
        if turn == 6_010 {
            assert!(node.routes().contains(&subnet(3).into()), "within a second");
        }
    }
    let now = node.links.with(|kernel| (kernel.applied_steps, kernel.reads));
    assert!(now.0 - steps <= 16, "{} steps in ten seconds", now.0 - steps);
    assert!(now.1 - reads <= 60, "{} readings in ten seconds", now.1 - reads);
    assert!(
        contested(&node).contains("keeps undoing peer 10.244.2.0/24 (`ip route replace"),
        "{}",
        contested(&node)
    );
    let status = node.status_query.ask(true).await.unwrap();
    let state = |n: u8| status.peer_list.iter().find(|peer| peer.subnet == subnet(n).into()).unwrap().state;
    assert_eq!([state(2), state(3)], [PeerState::Pending, PeerState::Programmed]);

    node.until(Readiness::is_ready).await;
    assert_eq!(node.routes().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_another_process_undoes_every_few_seconds_is_repaired_at_once_each_time() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    for _ in 0..100 {
        sleep(Duration::from_secs(3)).await;
        node.rules.with(FakeNft::flush);
        node.rule_changes.send_modify(|commits| commits.ours += 1);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(node.rules.with(|kernel| kernel.tables().len()), 1);
        assert_eq!(contested(&node), "");
    }
}

#[tokio::test(start_paused = true)]
async fn accept_rules_that_are_deleted_all_the_time_cost_a_few_commits_and_are_named() {
    let forward =
        Chain::base(ChainName::new("FORWARD").unwrap(), Base::filter_forward().policy(Policy::Drop));
    let filter = Table::new(flannel_nft::Family::Ip, TableName::new("filter").unwrap()).chain(forward);
    let without = Ruleset::new().table(filter);
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let before = node.rules.states().len();
    for _ in 0..200 {
        node.rules.with(|kernel| converge(kernel, &without).map(drop)).unwrap();
        node.rule_changes.send_modify(|commits| commits.others += 1);
        sleep(Duration::from_millis(100)).await;
    }
    let written = node.rules.states().len() - before;
    assert!((4..=9).contains(&written), "{written} commits in 20 seconds");
    assert!(
        contested(&node).contains("keeps undoing the accept rules in iptables' chains"),
        "{}",
        contested(&node)
    );
    node.until(Readiness::is_ready).await;
    let text =
        node.rules.with(|kernel| FakeNft::tables(kernel).iter().map(ToString::to_string).collect::<String>());
    assert_eq!(text.matches("flanneld accept").count(), 2, "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_contested_peer_follows_its_lease_at_once() {
    let mut node = Node::start();
    node.tell(listing([2, 3])).await;
    node.until(Readiness::is_ready).await;
    let notifications = node.alive.1.clone();
    let delete = async |links: &Shared<FakeKernel>| {
        let gone = links.with(|kernel| kernel.routes.remove(&(IpNet::from(subnet(2)), 0)));
        if let Some(route) = gone {
            notifications.send(vec![Notification::Route { route, gone: true }]).await.unwrap();
        }
        sleep(Duration::from_millis(50)).await;
    };
    for _ in 0..20 {
        delete(&node.links).await;
    }
    assert!(contested(&node).contains("keeps undoing peer 10.244.2.0/24"), "{}", contested(&node));
    delete(&node.links).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(3))], "it is left as it is");

    let mut moved = lease(2);
    moved.attributes.public_ip = Some(Ipv4Addr::new(192, 168, 77, 22));
    notifications.send(vec![Notification::Overflow]).await.unwrap();
    node.tell([LeaseEvent::Upsert(moved)]).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(node.routes().len(), 2);
    let underlays: Vec<IpAddr> =
        node.links.with(|kernel| kernel.fdb.values().map(|found| found.entry.underlay).collect());
    assert!(underlays.contains(&Ipv4Addr::new(192, 168, 77, 22).into()), "{underlays:?}");
}

#[tokio::test(start_paused = true)]
async fn contested_rules_follow_this_nodes_lease_although_the_kernel_refuses_them_once() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let (rules, changes) = (node.rules.clone(), node.rule_changes.clone());
    let flush = async || {
        rules.with(FakeNft::flush);
        changes.send_modify(|commits| commits.ours += 1);
        sleep(Duration::from_millis(100)).await;
    };
    for _ in 0..200 {
        flush().await;
    }
    assert!(contested(&node).contains("keeps undoing table ip flannel-ipv4"), "{}", contested(&node));
    assert_eq!(rules.with(|kernel| kernel.tables().len()), 0);

    rules.with(|kernel| kernel.refuse_next(0, Errno::EBUSY));
    node.alive.0.send_replace(lease(9));
    for _ in 0..30 {
        sleep(Duration::from_millis(100)).await;
        changes.send_modify(|commits| commits.ours += 1);
    }
    let text =
        rules.with(|kernel| FakeNft::tables(kernel).iter().map(ToString::to_string).collect::<String>());
    assert!(text.contains("10.244.9.0/24"), "{text}");
}
