//! The suite that every lease store passes, for stores of your own.
//!
//! Implement [`Harness`] for a store under test and name it in [`lease_store_conformance!`](crate::lease_store_conformance): each case
//! becomes a test of its own. The calling crate needs `tokio` with `macros` and `rt-multi-thread`.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]

mod attributes;
pub mod cases;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::{
    AllocationRange, BackendType, FamilyRange, LeaseAttributes, LeaseKey, LeaseRequest, LeaseStore, Timing,
    VxlanData,
};
use crate::{LeaseEvent, LeaseTable};
use tokio::sync::mpsc;

/// A store set up for one test.
pub trait Harness: Sized + Send + Sync + 'static {
    /// Whether a store that is [`Self::away`] can still be read.
    const READABLE_WHILE_AWAY: bool;

    /// An empty store.
    fn new() -> impl Future<Output = Self> + Send;
    /// A store value as a daemon's start makes it.
    fn open(&self, timing: Timing) -> impl Future<Output = Arc<dyn LeaseStore>> + Send;
    /// Writes an entry without end, as an operator would.
    fn put(&self, key: &str, json: &str) -> impl Future<Output = ()> + Send;
    /// Deletes an entry.
    fn delete(&self, key: &str) -> impl Future<Output = ()> + Send;
    /// The entry's JSON.
    fn read(&self, key: &str) -> impl Future<Output = Option<String>> + Send;
    /// Whether the entry ends by itself.
    fn ends(&self, key: &str) -> impl Future<Output = bool> + Send;
    /// Deletes all data and recreates an empty store while daemons use it.
    fn wipe(&self) -> impl Future<Output = ()> + Send;
    /// Makes the store useless for a while.
    fn away(&self, during: impl Future<Output = ()> + Send) -> impl Future<Output = ()> + Send;
}

/// Long enough for any test on a busy machine, short enough to fail.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Periods under which renewal and expiry can be waited for.
pub fn quick() -> Timing {
    Timing { recheck: Duration::from_millis(200), settle: Duration::from_secs(2), ..Timing::default() }
}

/// Waits for `future`, and fails with `what` after [`TIMEOUT`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, future).await.unwrap_or_else(|_| panic!("not within {TIMEOUT:?}: {what}"))
}

/// What node number `n` publishes.
pub fn node(n: u16) -> LeaseAttributes {
    let [high, low] = n.to_be_bytes();
    LeaseAttributes {
        public_ip: Some(Ipv4Addr::new(192, 0, high, low)),
        public_ipv6: None,
        backend_type: BackendType::Vxlan,
        backend_data: Some(
            VxlanData { vni: 1, vtep_mac: [2, 0, 0, 0, high, low] }.to_backend_data().unwrap(),
        ),
        backend_v6_data: None,
    }
}

/// The same node in a dual-stack or IPv6-only cluster.
pub fn node_v6(n: u16, v4: bool) -> LeaseAttributes {
    let plain = node(n);
    LeaseAttributes {
        public_ip: plain.public_ip.filter(|_| v4),
        public_ipv6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)),
        backend_v6_data: plain.backend_data.clone(),
        backend_data: plain.backend_data.filter(|_| v4),
        ..plain
    }
}

/// `10.244.0.0/16` in /24s, as net-conf.json's defaults make of it.
pub fn range_v4() -> AllocationRange {
    let v4 = FamilyRange {
        network: "10.244.0.0/16".parse().unwrap(),
        subnet_len: 24,
        min: Ipv4Addr::new(10, 244, 1, 0),
        max: Ipv4Addr::new(10, 244, 255, 0),
    };
    AllocationRange { v4: Some(v4), ..AllocationRange::default() }
}

/// The first `count` subnets of [`range_v4`].
pub fn first_v4(count: u8) -> AllocationRange {
    let mut range = range_v4();
    range.v4.as_mut().unwrap().max = Ipv4Addr::new(10, 244, count, 0);
    range
}

/// Adds the first `count` subnets of `fd00:10:244::/48` to a range.
pub fn with_v6(range: AllocationRange, count: u16) -> AllocationRange {
    let v6 = FamilyRange {
        network: "fd00:10:244::/48".parse().unwrap(),
        subnet_len: 64,
        min: Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, 0),
        max: Ipv6Addr::new(0xfd00, 0x10, 0x244, count, 0, 0, 0, 0),
    };
    AllocationRange { v6: Some(v6), ..range }
}

/// A request for a subnet of [`range_v4`], without a previous one.
pub fn request(attributes: LeaseAttributes) -> LeaseRequest {
    LeaseRequest { attributes, previous: None, former: None, range: range_v4() }
}

/// The key in this text, such as `10.244.1.0-24`.
pub fn key(text: &str) -> LeaseKey {
    text.parse().unwrap()
}

/// A daemon's view of the store: its watch, folded.
#[derive(Debug)]
pub struct Watcher {
    events: mpsc::Receiver<LeaseEvent>,
    /// The events, folded.
    pub table: LeaseTable,
    /// Every event seen, as short text.
    pub seen: Vec<String>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    /// Watches `store` in a task of its own.
    pub fn start(store: &Arc<dyn LeaseStore>) -> Self {
        let (sender, events) = mpsc::channel(64);
        let store = Arc::clone(store);
        let task = tokio::spawn(async move { store.watch(sender).await });
        Self { events, table: LeaseTable::default(), seen: Vec::new(), task }
    }

    /// The next event.
    pub async fn next(&mut self) -> LeaseEvent {
        let event = within("an event", self.events.recv()).await.expect("watch ended");
        self.seen.push(match &event {
            LeaseEvent::Upsert(lease) => format!("+{}", lease.key),
            LeaseEvent::Malformed { key, .. } => format!("?{key}"),
            LeaseEvent::Remove(key) => format!("-{key}"),
            LeaseEvent::Resync => "resync".into(),
            LeaseEvent::Settling => "settling".into(),
            LeaseEvent::Synced { .. } => "synced".into(),
        });
        let _ = self.table.apply(event.clone());
        event
    }

    /// Takes in events until the table satisfies `done`.
    pub async fn until(&mut self, what: &str, done: impl Fn(&LeaseTable) -> bool) {
        let reached = async {
            while !done(&self.table) {
                self.next().await;
            }
        };
        if tokio::time::timeout(TIMEOUT, reached).await.is_err() {
            panic!("{what} not reached; seen: {:?}", self.seen);
        }
    }

    /// What comes next within a moment; nothing if all is quiet.
    pub async fn next_is_quiet(&mut self) -> Option<LeaseEvent> {
        tokio::time::timeout(Duration::from_millis(300), self.next()).await.ok()
    }

    /// Takes in whatever comes during `time`.
    pub async fn listen(&mut self, time: Duration) {
        let _ = tokio::time::timeout(time, async {
            loop {
                self.next().await;
            }
        })
        .await;
    }

    /// The watch ends when the receiver is dropped.
    pub async fn stop(self) {
        drop(self.events);
        within("the end of the watch", self.task).await.unwrap();
    }
}

/// Makes a test of each case, in a module named after the store.
///
/// `lease_store_conformance!(mystore, crate::MyHarness)` runs all of them. A store whose subnets are
/// assigned by others, such as Kubernetes, has no ranges, reservations or renewals:
/// `lease_store_conformance!(mystore, crate::MyHarness, assigned)` leaves those cases out. A list of
/// attributes in braces goes on every test.
#[macro_export]
macro_rules! lease_store_conformance {
    (@one $harness:ty, $case:ident, { $($attribute:tt)* }) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $($attribute)*
        async fn $case() {
            $crate::conformance::cases::$case(<$harness as $crate::conformance::Harness>::new().await).await;
        }
    };
    (@all $store:ident, $harness:ty, $attributes:tt; $($case:ident)*) => {
        mod $store {
            $($crate::lease_store_conformance! { @one $harness, $case, $attributes })*
        }
    };
    ($store:ident, $harness:ty) => {
        $crate::lease_store_conformance! { @all $store, $harness, {};
            a_node_that_comes_back_gets_its_lease_back
            fifty_nodes_at_once_get_fifty_subnets
            dual_stack_nodes_at_once_share_no_subnet_of_either_family
            ipv6_only_nodes_get_different_subnets
            a_node_that_turns_dual_stack_keeps_its_ipv4_subnet
            the_previous_subnet_is_taken_again_if_free
            a_previous_subnet_that_another_holds_is_not_taken
            a_node_whose_address_changed_keeps_its_subnet
            a_lease_that_another_machine_took_along_is_given_up
            a_lease_outside_a_new_range_is_given_up
            a_full_range_says_out_of_subnets
            a_watch_tells_what_is_there_then_what_changes
            a_restart_with_nothing_new_tells_the_peers_nothing
            a_held_lease_is_renewed_without_a_word_to_the_peers
            a_lease_nobody_renews_ends_and_its_peers_hear_of_it
            an_updated_lease_reaches_the_peers
            each_backend_is_stored_as_upstream_does_and_reaches_the_peers
            an_update_of_a_lost_lease_is_refused
            an_update_to_what_another_node_publishes_is_refused
            a_lease_that_two_machines_share_does_not_get_what_a_third_publishes
            a_lease_stays_its_nodes_although_another_copies_what_it_publishes
            a_deleted_lease_is_reported_lost
            renewal_never_takes_a_subnet_that_another_node_holds
            a_reservation_is_kept_for_its_node_and_stays_one
            entries_that_are_no_leases_are_skipped_and_remove_nobody
            a_lease_whose_contents_break_stays_as_it_was
            what_a_lease_lacks_is_named_and_both_families_stay_in_it
            a_node_publishes_its_lease_again_when_another_hand_damages_it
            an_outage_removes_nobody_and_ends_in_a_catch_up
            a_wiped_store_fills_again_without_anybody_being_forgotten
            after_churn_every_watcher_agrees_with_the_store
        }
    };
    ($store:ident, $harness:ty, assigned) => {
        $crate::lease_store_conformance! { $store, $harness, assigned, {} }
    };
    ($store:ident, $harness:ty, assigned, $attributes:tt) => {
        $crate::lease_store_conformance! { @all $store, $harness, $attributes;
            a_node_that_comes_back_gets_its_lease_back
            fifty_nodes_at_once_get_fifty_subnets
            dual_stack_nodes_at_once_share_no_subnet_of_either_family
            ipv6_only_nodes_get_different_subnets
            a_watch_tells_what_is_there_then_what_changes
            a_restart_with_nothing_new_tells_the_peers_nothing
            an_updated_lease_reaches_the_peers
            each_backend_is_stored_as_upstream_does_and_reaches_the_peers
            entries_that_are_no_leases_are_skipped_and_remove_nobody
            an_outage_removes_nobody_and_ends_in_a_catch_up
            after_churn_every_watcher_agrees_with_the_store
        }
    };
}
