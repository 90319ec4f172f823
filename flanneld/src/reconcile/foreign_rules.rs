//! Other programs' rules on this node: past those that drop what is forwarded, and upstream's leftovers away.

use std::time::Duration;

use flannel_nft::neighbours::{
    ForwardDrop, UPSTREAM, accept_forwarded, filter_tables, forward_drops, iptables_tables, remove_leftovers,
};
use flannel_nft::{Comment, ConvergeError, Generation, Kernel, Outcome, TableId, amend};
use ipnet::IpNet;
use tokio::time::Instant;
use tracing::{info, warn};

/// Least time between two looks at iptables' tables: others may change theirs many times a second.
const PAUSE: Duration = Duration::from_secs(1);
/// Least time between two looks at everybody's tables.
const SURVEY: Duration = Duration::from_secs(10);
/// A look is followed by at least this many times its own duration without one, so that tables with many thousand rules
/// cost little too.
const REST: u32 = 500;

/// What is known of others' rules.
#[derive(Debug)]
pub struct Neighbours {
    /// The comment of our rules in iptables' chains.
    mark: Comment,
    /// The generation at which everything was as it should be.
    right_at: Option<Generation>,
    /// Whether upstream's leftovers are gone.
    cleared: bool,
    next_look: Option<Instant>,
    /// What everybody's tables were last read at, and when they may be read again.
    surveyed: Option<(Generation, Instant)>,
    obstacles: Vec<ForwardDrop>,
}

/// When something that began at `began` and is done now may be done again.
fn rested(began: Instant, pause: Duration) -> Instant {
    Instant::now() + pause.max(began.elapsed().saturating_mul(REST))
}

impl Neighbours {
    /// Nothing is known yet; our rules in iptables' chains bear this comment.
    #[must_use]
    pub fn new(mark: Comment) -> Self {
        Self { mark, right_at: None, cleared: false, next_look: None, surveyed: None, obstacles: Vec::new() }
    }

    /// When it is worth looking again, if somebody changes something now.
    #[must_use]
    pub fn next_look(&self) -> Instant {
        self.next_look.unwrap_or_else(Instant::now)
    }

    /// Chains that still drop what is forwarded for pods.
    #[must_use]
    pub fn obstacles(&self) -> &[ForwardDrop] {
        &self.obstacles
    }

    /// Removes what upstream's iptables mode left, keeps rules that accept packets of `networks` in iptables' chains that
    /// would drop them, if `forward` says so, and finds other chains that do. Our own tables must be in place already: `ours`.
    ///
    /// Costs one question if nobody has changed any table since. Returns when it is to be called again even if nobody
    /// changes anything: everybody's tables are not read at each of their changes.
    ///
    /// # Errors
    /// [`ConvergeError`]; what others hold is as it was.
    pub fn look(
        &mut self,
        kernel: &mut impl Kernel,
        networks: &[IpNet],
        forward: bool,
        ours: &[TableId],
    ) -> Result<Option<Instant>, ConvergeError> {
        let began = Instant::now();
        let now = kernel.generation().map_err(ConvergeError::Observe)?;
        if self.right_at != Some(now) {
            if !self.cleared {
                let outcome =
                    amend(kernel, &iptables_tables(), |observed| remove_leftovers(observed, UPSTREAM))?;
                if let Outcome::Changed { changes, .. } = outcome {
                    info!(
                        changes,
                        "Cleaning-up unused traffic manager rules: those of iptables mode are removed"
                    );
                }
                self.cleared = true;
            }
            let mark = &self.mark;
            let accepted = if forward { networks } else { &[] };
            let outcome =
                amend(kernel, &filter_tables(), |observed| accept_forwarded(observed, accepted, mark))?;
            if let Outcome::Changed { changes, .. } = outcome {
                info!(changes, "Changing rules in iptables' chains that drop what is forwarded");
            }
            self.right_at = Some(outcome.generation());
        }
        self.next_look = Some(rested(began, PAUSE));
        self.survey(kernel, networks, ours)
    }

    fn survey(
        &mut self,
        kernel: &mut impl Kernel,
        networks: &[IpNet],
        ours: &[TableId],
    ) -> Result<Option<Instant>, ConvergeError> {
        let generation = kernel.generation().map_err(ConvergeError::Observe)?;
        match self.surveyed {
            Some((seen, _)) if seen == generation => return Ok(None),
            Some((_, next)) if Instant::now() < next => return Ok(Some(next)),
            _ => {}
        }
        let began = Instant::now();
        let tables = kernel.tables().map_err(ConvergeError::Observe)?;
        let observed = kernel.observe(&tables).map_err(ConvergeError::Observe)?;
        self.surveyed = Some((observed.generation, rested(began, SURVEY)));
        let found = forward_drops(&observed.ruleset, ours, &self.mark, networks);
        for obstacle in found.iter().filter(|found| !self.obstacles.contains(found)) {
            warn!(
                "{obstacle}: it may drop what pods send to other nodes, whatever flannel's own table accepts"
            );
        }
        self.obstacles = found;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use flannel_nft::{Base, Chain, ChainName, Family, Memory, Policy, Ruleset, Table, TableName, converge};

    use super::*;

    fn filter(policy: Policy) -> Ruleset {
        let forward = Chain::base(ChainName::new("FORWARD").unwrap(), Base::filter_forward().policy(policy));
        Ruleset::new().table(Table::new(Family::Ip, TableName::new("filter").unwrap()).chain(forward))
    }

    #[tokio::test(start_paused = true)]
    async fn a_chain_that_comes_to_drop_gets_rules_and_loses_them_when_it_does_not() {
        let mut kernel = Memory::default();
        let mut neighbours = Neighbours::new(Comment::new("ours").unwrap());
        let networks = ["10.244.0.0/16".parse().unwrap()];
        let rules = |kernel: &mut Memory| {
            let observed = kernel.observe(&iptables_tables()).unwrap();
            observed.ruleset.tables()[0].chains()[0].list().len()
        };
        converge(&mut kernel, &filter(Policy::Accept)).unwrap();
        neighbours.look(&mut kernel, &networks, true, &[]).unwrap();
        assert_eq!((rules(&mut kernel), neighbours.obstacles().len()), (0, 0));

        converge(&mut kernel, &filter(Policy::Drop)).unwrap();
        let again = neighbours.look(&mut kernel, &networks, true, &[]).unwrap();
        assert_eq!((rules(&mut kernel), neighbours.obstacles().len()), (2, 0));
        assert!(again.is_some_and(|at| at <= Instant::now() + SURVEY), "the others are still to be read");
        let commits = kernel.commits();
        neighbours.look(&mut kernel, &networks, true, &[]).unwrap();
        assert_eq!(kernel.commits(), commits, "nothing new, nothing done");

        // Not asked for any more.
        neighbours.right_at = None;
        neighbours.look(&mut kernel, &networks, false, &[]).unwrap();
        tokio::time::advance(SURVEY).await;
        neighbours.look(&mut kernel, &networks, false, &[]).unwrap();
        assert_eq!((rules(&mut kernel), neighbours.obstacles().len()), (0, 1));
    }
}
