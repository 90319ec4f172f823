//! The configuration of a run: what the operator asked for, with what is settled at the start.

use std::net::{Ipv4Addr, Ipv6Addr};

use flannel_nft::Ownership;
use flannel_vxlan::PrivateKey;

use super::{Config, Selection};
use crate::desired::rules::TablePrefix;

/// A [`Config`] with the values that depend on the kernel, on other daemons of the host, and on the lease store.
#[derive(Clone, Debug)]
pub struct ResolvedConfig {
    /// As the operator wrote it.
    pub asked: Config,
    /// Which interface and addresses to use, with `node_public`.
    pub selection: Selection,
    /// Public addresses that the lease store gives this node. They take precedence over `--public-ip` and
    /// `--public-ipv6`. Default: none.
    pub node_public: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// Whether other processes may change flannel's tables.
    pub ownership: Ownership,
    /// Prefix of the names of flannel's tables.
    pub table_prefix: TablePrefix,
    /// The private key of this node's WireGuard devices. Default: none; only backend `wireguard` has one.
    pub wireguard_key: Option<PrivateKey>,
}

impl ResolvedConfig {
    /// A configuration to which the lease store has added nothing yet.
    #[must_use]
    pub fn new(asked: Config, ownership: Ownership, table_prefix: TablePrefix) -> Self {
        let selection = asked.selection.clone();
        let (node_public, wireguard_key) = ((None, None), None);
        Self { asked, selection, node_public, ownership, table_prefix, wireguard_key }
    }

    /// The same with the private key of this node's WireGuard devices.
    #[must_use]
    pub fn with_wireguard_key(mut self, key: Option<PrivateKey>) -> Self {
        self.wireguard_key = key;
        self
    }

    /// The same with the public addresses that the lease store gives this node.
    #[must_use]
    pub fn with_node_public(mut self, node_public: (Option<Ipv4Addr>, Option<Ipv6Addr>)) -> Self {
        self.node_public = node_public;
        self.selection.public_ipv4 = node_public.0.or(self.asked.selection.public_ipv4);
        self.selection.public_ipv6 = node_public.1.or(self.asked.selection.public_ipv6);
        self
    }
}
