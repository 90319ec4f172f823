//! The only access to the kernel: the trait, the real kernel, the fake kernel, and notifications of changes.

pub(crate) mod apply;
mod explain;
pub(crate) mod fake;
pub(crate) mod monitor;
pub(crate) mod netlink;

use std::net::IpAddr;

use crate::error::{ApplyError, ObserveError, StepRefusal};
use crate::model::family::{Family, PerFamily};
use crate::model::family_spec::Links;
use crate::model::if_name::IfName;
use crate::model::interface::{DefaultRoute, Interface, RouteLookup};
use crate::model::objects::Observed;
use crate::model::wireguard::ObservedWireguard;
use crate::plan::Plan;

/// A kernel with VXLAN devices and routes.
///
/// [`Netlink`](crate::Netlink) is the real kernel; [`FakeKernel`](crate::FakeKernel) is for tests and dry runs.
pub trait Kernel {
    /// Reads the devices of `links` and everything on them; see [`Observed`].
    ///
    /// # Errors
    /// [`ObserveError`] if anything could not be read completely. Nothing is changed.
    fn observe(&mut self, links: &[Links]) -> Result<Observed, ObserveError>;

    /// Applies the steps in order. A refused step does not stop the others. Steps that need a device that does not
    /// exist are skipped.
    ///
    /// # Errors
    /// [`ApplyError`] if it is unknown which steps were applied.
    fn apply(&mut self, plan: &Plan) -> Result<Applied, ApplyError>;

    /// Lists the interfaces of the network namespace with their addresses.
    ///
    /// # Errors
    /// [`ObserveError`].
    ///
    /// # Kernel
    /// `ip addr show`
    fn interfaces(&mut self) -> Result<Vec<Interface>, ObserveError>;

    /// Reads the default routes of the main table, lowest metric first.
    ///
    /// # Errors
    /// [`ObserveError`].
    ///
    /// # Kernel
    /// `ip route show default table main`
    fn default_routes(&mut self, family: Family) -> Result<Vec<DefaultRoute>, ObserveError>;

    /// Looks up the route that the kernel uses for packets to `address`; `None` if it has none.
    ///
    /// # Errors
    /// [`ObserveError`]. An unreachable address is not an error.
    ///
    /// # Kernel
    /// `ip route get ADDRESS`
    fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteLookup>, ObserveError>;

    /// Reads a WireGuard device with its private key and its peers; `None` if there is no WireGuard device with this name.
    ///
    /// # Errors
    /// [`ObserveError`], e.g. without `CAP_NET_ADMIN`.
    ///
    /// # Kernel
    /// `wg show DEVICE dump`
    fn wireguard(&mut self, device: IfName) -> Result<Option<ObservedWireguard>, ObserveError>;
}

/// The result of applying a plan.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Applied {
    /// Refused steps.
    pub refused: Vec<StepRefusal>,
    /// Families whose device does not exist, so that steps that need it were skipped.
    pub without_device: Vec<Family>,
    /// Indexes of the devices; 0 for a device that was not looked up.
    pub devices: PerFamily<u32>,
}
