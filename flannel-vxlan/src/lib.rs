//! VXLAN devices, their peers and routes, converged to what was asked for.

mod apply;
mod attention;
mod device;
mod diff;
mod entry;
mod error;
mod kernel;
mod monitor;
mod netlink;
mod nexthop;
mod overlay;
mod peer;
mod plan;
mod report;
mod types;
pub mod underlay;
mod wire;

pub use attention::Attention;
pub use device::{DeviceSpec, Link, NameTaken, ObservedDevice, ObservedVxlan};
pub use entry::{
    BLACKHOLE_METRIC, Forwarding, Neighbour, Nexthop, Observed, ObservedForwarding, ObservedNeighbour,
    ObservedNexthop, ObservedRoute, ObservedRouteTo, ROUTE_PROTOCOL, Route, RouteTo,
};
pub use error::{ApplyError, ConvergeError, ObserveError, ReadError, StepRefusal};
pub use flannel_netlink::{Errno, OpenError};
pub use kernel::{Applied, Kernel};
#[cfg(feature = "tokio")]
pub use monitor::NotificationStream;
pub use monitor::{Monitor, Notification};
pub use netlink::Netlink;
pub use overlay::{FamilySpec, Overlay};
pub use peer::{Peer, PeerConflict, Via};
pub use plan::{DeviceStep, Links, Plan, Step};
pub use report::{RefusedStep, Report};
pub use types::{Family, IfName, MacAddr, OverlayMtu, UnderlayMtu, ValueError, Vni};
