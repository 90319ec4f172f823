//! The files that follow the desired state: subnet.env, and the state file for a start without the lease store.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::Reconciler;
use super::error::{Pass, PassError};
use super::repair_backoff::Subject;
use crate::run::machine_identity::Machine;
use crate::run::state_file::SavedState;
use crate::run::subnet_env::SubnetFileCheck;
use crate::status::readiness::{Condition, update};

/// How long changes of leases are collected before the state file is written. The file is written whole; with this much
/// more per peer, writing takes a few percent of a CPU at most.
const SAVE_DELAY: Duration = Duration::from_secs(5);
const SAVE_DELAY_PER_PEER: Duration = Duration::from_micros(100);

impl<R: flannel_nft::Kernel, L: flannel_vxlan::Kernel> Reconciler<R, L> {
    /// Has the thread for files write subnet.env, if it does not say this yet.
    pub(super) fn publish_subnet_env(&self) {
        let problem = self.spec.ipv6_problem();
        update(&self.outputs.readiness, |readiness| {
            if let Some(text) = &problem
                && !readiness.notes().any(|(_, noted)| noted == text)
            {
                warn!("{text}");
            }
            readiness.note("ipv6", problem);
        });
        self.outputs.subnet_env.send_replace(Some(self.spec.subnet_env(self.lease.key)));
    }

    /// Records a look at subnet.env that the thread for files had.
    pub(super) fn note_subnet_file(&mut self, check: SubnetFileCheck) {
        let SubnetFileCheck { began, result, restored } = check;
        let outcome = result.map(|()| Pass::Done).map_err(PassError::from);
        self.record_outcome(Condition::SubnetFile, began, outcome);
        if let Some(next_check) = restored {
            let object = format!("subnet file {}", self.config.asked.subnet_file.display());
            self.record_contest(Subject::SubnetFile, next_check, object);
        }
    }

    pub(super) fn save_delay(&self) -> Duration {
        SAVE_DELAY + SAVE_DELAY_PER_PEER * u32::try_from(self.leases.table().len()).unwrap_or(u32::MAX)
    }

    /// Hands over all that a start without the lease store needs, or later if the last state is still being written.
    pub(super) fn save_state(&mut self) {
        match self.outputs.state.try_reserve() {
            Ok(room) => {
                if let Some(saved) = self.saved_state() {
                    room.send(saved);
                }
            }
            Err(_busy) => self.due.state.at = Some(Instant::now() + self.save_delay()),
        }
    }

    /// Waits until the state can be handed over.
    pub(super) async fn save_state_and_wait(&self) {
        if let (Ok(room), Some(saved)) = (self.outputs.state.reserve().await, self.saved_state()) {
            room.send(saved);
        }
    }

    fn machine(&self) -> Machine {
        Machine::this(self.spec.facts.mac.map(|mac| mac.to_string()), &self.config.asked.host_name)
    }

    /// `None` before the first complete listing: half of it is worse than the file that is there.
    fn saved_state(&self) -> Option<SavedState> {
        self.leases.is_complete().then(|| SavedState {
            net_conf: self.spec.net_conf.clone(),
            psk_withheld: self.spec.net_conf.backend.has_psk(),
            machine: Some(self.machine()),
            key: self.lease.key,
            attributes: self.lease.attributes.clone(),
            node_public: self.config.node_public,
            peers: self.leases.table().shared().collect(),
            unswept: self.unswept(),
        })
    }
}
