//! VXLAN devices, their peers and routes, converged to what was asked for.
//!
//! Describe the device you want and the peers behind it as an [`Overlay`]. This crate compares that with what the
//! kernel has and writes the difference over rtnetlink, without the `ip`, `bridge` and `ethtool` binaries.
//!
//! ```text
//! set_peer ───▶ Overlay ──┐                  ┌─▶ kernel ─▶ Report: what was refused, peer by peer
//! remove_peer             ├─ diff ─▶ Plan ───┤
//! Kernel::observe ────────┘                  └─▶ Display: the same as `ip` and `bridge` commands
//!                             Monitor ─▶ Overlay::notice: must something be repaired?
//! ```
//!
//! # What it guarantees
//! - **Converges.** Whatever was there before, [`Overlay::converge`] leads to what was asked for. If it is there
//!   already, nothing at all is written; after a restart too.
//! - **Heals.** A device, address, route, neighbor, FDB entry or nexthop that others delete or change is
//!   noticed by the [`Monitor`] and comes back by the same pass. There is no special recovery code.
//! - **Leaves others alone.** Its routes, nexthops and neighbors have the protocol number [`ROUTE_PROTOCOL`], its
//!   FDB entries the mark `extern_learn`; nothing else is deleted, except what upstream flannel left
//!   ([`Overlay::diff`] has the rules). A route of others is never replaced, a device of others never touched.
//! - **Constant cost.** A change of one peer is four messages in one datagram, at ten peers and at a hundred thousand.
//! - **One peer is not the others' problem.** What the kernel refuses, or what would harm this host
//!   ([`PeerConflict`]), is named, kept in mind and tried again.
//!
//! It is not atomic, as rtnetlink has no transactions: a [`Plan`] is ordered so that each prefix of it is harmless,
//! and can be repeated. It knows nothing of leases or of who the peers are.
//!
//! # Example
//! What would be done on a host where nothing is yet, without touching it:
//!
//! ```
//! use flannel_vxlan::{DeviceSpec, Family, FamilySpec, Link, MacAddr, Observed, Overlay, Peer, UnderlayMtu, Via, Vni};
//!
//! let eth0 = Link { index: 2, name: "eth0".parse()? };
//! let mtu = UnderlayMtu::new(1500).inside_vxlan(Family::V4)?;
//! let mac = MacAddr::derived(b"node-1");
//! let device = DeviceSpec::new(Vni::new(1)?, eth0, "192.168.77.1".parse()?, "10.244.1.0".parse()?, mac, mtu);
//! let family = FamilySpec::new(eth0, "10.244.1.0/24".parse()?, vec!["10.244.0.0/16".parse()?]);
//!
//! let mut overlay = Overlay::new([family.device(device)]);
//! let via = Via::Tunnel { mac: "02:00:00:00:00:02".parse()?, underlay: "192.168.77.2".parse()? };
//! overlay.set_peer(Peer { subnet: "10.244.2.0/24".parse()?, via })?;
//!
//! let plan = overlay.diff(&Observed::default());
//! assert_eq!(plan.to_string().lines().last(), Some("ip route replace 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink proto 70"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! And for real, which needs `CAP_NET_ADMIN`:
//!
//! ```no_run
//! # let mut overlay = flannel_vxlan::Overlay::default();
//! use flannel_vxlan::{Monitor, Netlink};
//!
//! let mut kernel = Netlink::open()?;
//! let mut monitor = Monitor::open(&kernel)?; // before the first look, so that nothing falls in between
//! let report = overlay.flush(&mut kernel)?;
//! for refused in &report.refused {
//!     eprintln!("{refused}");
//! }
//! if overlay.notice(&monitor.take()?).overlay {
//!     overlay.flush(&mut kernel)?; // reads everything and repairs it
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Cargo features
//! - `tokio`: [`Monitor::into_stream`](Monitor), to await notifications. Off by default.

mod error;
mod kernel;
mod model;
mod overlay;
mod plan;
mod wire;

pub use error::{ApplyError, ConvergeError, ObserveError, ReadError, StepRefusal, ValueError};
pub use flannel_netlink::{Errno, OpenError};
pub use kernel::fake::FakeKernel;
pub use kernel::interfaces::{DefaultRoute, Interface, InterfaceAddress, RouteLookup};
#[cfg(feature = "tokio")]
pub use kernel::monitor::MonitorStream;
pub use kernel::monitor::{Monitor, Notification};
pub use kernel::netlink::Netlink;
pub use kernel::{Applied, Kernel};
pub use model::device::{DeviceSpec, Link, NameTaken, ObservedDevice, ObservedVxlan};
pub use model::family::{Family, FamilySpec};
pub use model::if_name::IfName;
pub use model::mac::MacAddr;
pub use model::mtu::{OverlayMtu, UnderlayMtu};
pub use model::objects::{
    BLACKHOLE_METRIC, FdbEntry, Neighbor, Nexthop, Observed, ObservedFdbEntry, ObservedNeighbor,
    ObservedNexthop, ObservedRoute, ObservedRouteTo, ROUTE_PROTOCOL, Route, RouteTo,
};
pub use model::peer::{Peer, PeerConflict, Via};
pub use model::vni::Vni;
pub use overlay::Overlay;
pub use overlay::hold::{Part, Written};
pub use overlay::notice::Invalidation;
pub use overlay::peer_status::{PeerStatus, PeerStatusChange};
pub use plan::report::{RefusedStep, Report};
pub use plan::{DeviceStep, Links, Plan, Step};
