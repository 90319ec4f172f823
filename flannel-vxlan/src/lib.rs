//! VXLAN devices, their peers and routes, converged to what was asked for.

pub mod underlay;
