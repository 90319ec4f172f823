//! The one door to the kernel. Nothing else in this crate opens a socket.

pub(crate) mod apply;
pub(crate) mod fake;
pub(crate) mod interfaces;
pub(crate) mod monitor;
pub(crate) mod netlink;

use std::net::IpAddr;

use crate::kernel::interfaces::{DefaultRoute, Interface, RouteLookup};
use crate::{ApplyError, Family, Links, ObserveError, Observed, Plan, StepRefusal};

/// What this crate needs of a kernel. [`Netlink`](crate::Netlink) is the real one.
pub trait Kernel {
    /// Reads the devices named by `links` and everything on them; see [`Observed`].
    ///
    /// # Errors
    /// [`ObserveError`] if anything could not be read whole. Nothing is changed.
    fn observe(&mut self, links: &[Links]) -> Result<Observed, ObserveError>;

    /// Takes the steps in order. A refused one does not stop the others; only what stands on a device that could
    /// not be made is left out.
    ///
    /// # Errors
    /// [`ApplyError`] if it is unknown which steps were taken.
    fn apply(&mut self, plan: &Plan) -> Result<Applied, ApplyError>;

    /// Lists the interfaces of the namespace with their addresses.
    ///
    /// # Errors
    /// [`ObserveError`].
    ///
    /// # Kernel
    /// `ip addr show`
    fn interfaces(&mut self) -> Result<Vec<Interface>, ObserveError>;

    /// The default route with the lowest metric; `None` if there is none.
    ///
    /// # Errors
    /// [`ObserveError`].
    ///
    /// # Kernel
    /// `ip route show default table main`
    fn default_routes(&mut self, family: Family) -> Result<Vec<DefaultRoute>, ObserveError>;

    /// The way the kernel would send a packet to `address`; `None` if it would not.
    ///
    /// # Errors
    /// [`ObserveError`]; "unreachable" is not an error.
    ///
    /// # Kernel
    /// `ip route get ADDRESS`
    fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteLookup>, ObserveError>;
}

/// What came of a plan.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Applied {
    /// Steps that were refused.
    pub refused: Vec<StepRefusal>,
    /// Families whose device is not there, and whose steps were therefore not tried.
    pub without_device: Vec<Family>,
    /// Indexes of the devices that steps were about, IPv4's and IPv6's; 0 for one that was not looked up.
    pub devices: [u32; 2],
}
