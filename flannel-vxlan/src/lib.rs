//! Converges VXLAN, IP-in-IP and WireGuard devices, their peers and routes to a desired state over netlink.
//!
//! Describe the desired device and its peers as an [`Overlay`]. This crate compares it with the kernel's state and
//! writes the difference, without the `ip`, `bridge`, `ethtool` and `wg` binaries.
//!
//! ```text
//! set_peer ─────▶ Overlay ─┐                 ┌─▶ Kernel::apply ─▶ Report: refused steps, by peer
//! remove_peer              ├─ diff ─▶ Plan ──┤
//! Kernel::observe ─────────┘                 └─▶ Display: `ip` and `bridge` commands
//!                     Monitor ─▶ Overlay::notice ─▶ Invalidation: what has to be repaired
//! ```
//!
//! # Guarantees
//! - **Converges.** [`Overlay::converge`] reaches the desired state from any state of the kernel. If nothing differs,
//!   it writes nothing, also after a restart.
//! - **Repairs.** The [`Monitor`] reports when another program deletes or changes a device, address, route, neighbor
//!   entry, FDB entry or nexthop object. The next flush restores it, without separate recovery code. The kernel does not
//!   report changes of WireGuard keys, ports and peers: call [`Overlay::converge`] periodically.
//! - **Keeps objects of other programs.** This crate's routes, nexthop objects and neighbor entries have the protocol
//!   number [`ROUTE_PROTOCOL`], its FDB entries the flag `extern_learn`. Apart from objects of upstream flannel
//!   (rules: [`Overlay::diff`]) it deletes nothing else. It never replaces a route or changes a device of another
//!   program.
//! - **Constant cost.** A change of one peer takes four messages in one datagram, in WireGuard one, with ten peers or a
//!   hundred thousand.
//! - **Isolates peers.** A peer that the kernel refuses, or that would harm this host ([`PeerConflict`]), is reported,
//!   kept and tried again. Other peers are not affected.
//!
//! # Limits
//! - Changes are not atomic, because rtnetlink has no transactions. A [`Plan`] is ordered so that each prefix of it is
//!   harmless, and every plan can be repeated.
//! - It does not know how nodes get their subnets, or which nodes exist: the caller sets the peers.
//! - One tunnel device per address family and [`Overlay`]; a WireGuard device may carry both ([`WireguardSpec::is_shared`]).
//!
//! # Example
//! Plan a host without an overlay, without changing it:
//!
//! ```
//! use flannel_vxlan::{
//!     DeviceSpec, Family, FamilySpec, Link, MacAddr, Observed, Overlay, Peer, UnderlayMtu, Via, Vni, VxlanSpec,
//! };
//!
//! let eth0 = Link { index: 2, name: "eth0".parse()? };
//! let mtu = UnderlayMtu::new(1500).inside_vxlan(Family::V4)?;
//! let vxlan = VxlanSpec::new(Vni::new(1)?, MacAddr::derived(b"node-1"));
//! let device = DeviceSpec::new(vxlan, eth0, "192.168.77.1".parse()?, "10.244.1.0".parse()?, mtu);
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
//! Write it to the kernel and keep it repaired, which needs `CAP_NET_ADMIN`:
//!
//! ```no_run
//! # let mut overlay = flannel_vxlan::Overlay::default();
//! use flannel_vxlan::{Monitor, Netlink};
//!
//! let mut kernel = Netlink::open()?;
//! let mut monitor = Monitor::open(&kernel)?; // before the first flush, so that no change is missed
//! let report = overlay.flush(&mut kernel)?;
//! for refused in &report.refused {
//!     eprintln!("{refused}");
//! }
//! if overlay.notice(&monitor.take()?).overlay {
//!     overlay.flush(&mut kernel)?; // observes the kernel and repairs it
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With [`FakeKernel`] instead of [`Netlink`] it runs without privileges and changes nothing.
//!
//! # Cargo features
//! - `tokio`: [`Monitor::into_stream`](Monitor), notifications as an async stream. Off by default.

mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod kernel;
mod model;
mod overlay;
mod plan;
mod wire;

pub use error::{ApplyError, ConvergeError, ObserveError, ReadError, StepRefusal, ValueError};
pub use flannel_netlink::{
    AskError, DumpError, Errno, LostReply, Malformed, OpenError, Refusal, TransactError,
};
pub use kernel::fake::FakeKernel;
#[cfg(feature = "tokio")]
pub use kernel::monitor::MonitorStream;
pub use kernel::monitor::{Monitor, Notification};
pub use kernel::netlink::Netlink;
pub use kernel::{Applied, Kernel};
pub use model::device::{DeviceKind, DeviceSpec, Link, NameTaken, ObservedDevice, ObservedKind};
pub use model::family::{Family, PerFamily};
pub use model::family_spec::{FamilySpec, Identity, Links};
pub use model::flannel_device::FlannelDevice;
pub use model::if_name::IfName;
pub use model::interface::{DefaultRoute, Interface, InterfaceAddress, RouteLookup};
pub use model::ipip::{IpipSpec, ObservedIpip};
pub use model::mac::MacAddr;
pub use model::mtu::{OverlayMtu, UnderlayMtu};
pub use model::objects::{
    BLACKHOLE_METRIC, FdbEntry, Neighbor, Nexthop, Observed, ObservedFdbEntry, ObservedNeighbor,
    ObservedNexthop, ObservedRoute, ObservedRouteTo, ROUTE_PROTOCOL, Route, RouteTo,
};
pub use model::peer::{Peer, Via};
pub use model::vni::Vni;
pub use model::vxlan::{ObservedVxlan, VxlanSpec};
pub use model::wireguard::{ObservedWireguard, ObservedWireguardPeer, WireguardPeer, WireguardSpec};
pub use model::wireguard_key::{PresharedKey, PrivateKey, PublicKey};
pub use overlay::Overlay;
pub use overlay::conflict::PeerConflict;
pub use overlay::invalidation::Invalidation;
pub use overlay::peer_status::{PeerStatus, PeerStatusChange};
pub use plan::Plan;
pub use plan::part::{Part, Written};
pub use plan::report::{RefusedStep, Report};
pub use plan::step::{DeviceStep, Step};

/// Compiles the example of README.md.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
