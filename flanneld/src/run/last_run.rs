//! What the last run decides about this start.

use flannel_lease::{Lease, LeaseAttributes, LeaseKey, LeaseStore, StoreError};
use flannel_vxlan::Kernel;

use crate::config::{Backend, NetConf, ResolvedConfig, TxChecksumOffload};
use crate::node::{NodeFacts, Present};
use crate::reconcile::find_facts;
use crate::run::fatal::Fatal;
use crate::run::state_file::SavedState;

/// What of the last run decides whether and how the node can go on as it was.
#[derive(Debug, Default)]
pub(crate) struct LastRun {
    backend: Option<Backend>,
    attributes: LeaseAttributes,
    /// The lease of the last run, if this machine is known to be the one that had it.
    pub(crate) key: Option<LeaseKey>,
}

impl From<&SavedState> for LastRun {
    fn from(saved: &SavedState) -> Self {
        let key = saved.machine.as_ref().map(|_| saved.key);
        Self { backend: Some(saved.net_conf.backend.clone()), attributes: saved.attributes.clone(), key }
    }
}

impl LastRun {
    /// Whether the last run switched `tx-checksum` off on its device.
    pub(crate) fn turned_checksum_off(&self) -> bool {
        matches!(&self.backend, Some(Backend::Vxlan(vxlan)) if vxlan.tx_checksum_offload == TxChecksumOffload::Off)
    }

    /// The interface and addresses to go on with, and whether they carry what is configured.
    ///
    /// A `Backend.MTU` that the interface does not carry is refused, unless the last run had it too: then the link has
    /// shrunk since, and a node with pods on it must not be cut off by a restart.
    ///
    /// # Errors
    /// [`Fatal::Interface`], [`Fatal::Backend`].
    pub(crate) fn find_facts(
        &self,
        config: &ResolvedConfig,
        net_conf: &NetConf,
        links: &mut impl Kernel,
    ) -> Result<NodeFacts, Fatal> {
        // What was published is the interface's own address only if the operator did not choose another.
        let (chosen, public) = (&config.selection, &self.attributes);
        let present = Present {
            interface: None,
            ipv4: public.public_ip.filter(|_| chosen.public_ipv4.is_none()),
            ipv6: public.public_ipv6.filter(|_| chosen.public_ipv6.is_none()),
        };
        let facts = find_facts(config, net_conf, present, links).map_err(Fatal::Interface)?;
        if self.backend.as_ref().is_some_and(|former| former.mtu() == net_conf.backend.mtu()) {
            facts.warn_of_mtu(&net_conf.backend);
            return Ok(facts);
        }
        let backend = net_conf.backend.name();
        facts.carries(&net_conf.backend).map_err(|source| Fatal::Backend { backend, source })?;
        Ok(facts)
    }

    /// The lease of the last run, if the store still has it as it was then: this node's, whatever its address is now.
    pub(crate) async fn lease(&self, store: &dyn LeaseStore) -> Result<Option<Lease>, StoreError> {
        let found = store.find(&self.attributes).await?;
        Ok(found
            .filter(|lease| Some(lease.key) == self.key && lease.attributes.same_backend(&self.attributes)))
    }

    /// What this node published for `previous`, if that is known.
    pub(crate) fn published_for(&self, previous: Option<LeaseKey>) -> Option<LeaseAttributes> {
        (self.key.is_some() && self.key == previous).then(|| self.attributes.clone())
    }

    /// The interface and addresses that this node published, if the host still has them and something else was found first:
    /// without a state file a virtual address may rank higher. `None` if what was found is right.
    ///
    /// # Errors
    /// As [`Self::find_facts`].
    pub(crate) fn prefer_published(
        &self,
        found: &NodeFacts,
        published: &LeaseAttributes,
        config: &ResolvedConfig,
        net_conf: &NetConf,
        links: &mut impl Kernel,
    ) -> Result<Option<NodeFacts>, Fatal> {
        let same = published.public_ip == found.ipv4.map(|own| own.public)
            && published.public_ipv6 == found.ipv6.map(|own| own.public);
        if same {
            return Ok(None);
        }
        let former = Self { backend: self.backend.clone(), attributes: published.clone(), key: None };
        let facts = former.find_facts(config, net_conf, links)?;
        Ok((facts != *found).then_some(facts))
    }
}
