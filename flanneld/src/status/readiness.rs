//! What must hold for a node to be ready: what `/readyz` answers, and why.
//!
//! As upstream, a node becomes ready. Beyond upstream, it stops being so when something stops being true.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use flannel_lease::codec::printable;
use tokio::sync::watch;

/// Something that must be true for the node to be ready.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Condition {
    /// There is an interface to other nodes, with the addresses it needs.
    Interface,
    /// A subnet is leased to this node.
    Lease,
    /// The kernel holds the desired devices and routes.
    Device,
    /// Masquerade and forward rules are in the kernel.
    Rules,
    /// subnet.env is written.
    SubnetFile,
    /// The peers that the store listed are programmed.
    Peers,
    /// No other process keeps undoing what this daemon writes.
    Uncontested,
    /// No thread is blocked in a call, so that everything else was checked of late.
    Progress,
    /// No bridge of pods has an address that makes new pods fail. Only an operator can cure that.
    PodBridge,
}

impl Condition {
    pub(crate) const ALL: [Self; 9] = [
        Self::Interface,
        Self::Lease,
        Self::Device,
        Self::Rules,
        Self::SubnetFile,
        Self::Peers,
        Self::Uncontested,
        Self::Progress,
        Self::PodBridge,
    ];

    /// The work that brings it about, as metrics call it.
    pub(crate) fn work(self) -> &'static str {
        match self {
            Self::Device | Self::Peers => "overlay",
            // The bridge is read with the interfaces.
            Self::Interface | Self::PodBridge => Self::Interface.label(),
            Self::Lease | Self::Rules | Self::SubnetFile | Self::Uncontested | Self::Progress => self.label(),
        }
    }

    /// As metrics call it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::SubnetFile => "subnet_file",
            Self::PodBridge => "pod_bridge",
            _ => self.name(),
        }
    }

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Lease => "lease",
            Self::Device => "device",
            Self::Rules => "rules",
            Self::SubnetFile => "subnet file",
            Self::Peers => "peers",
            Self::Uncontested => "uncontested",
            Self::Progress => "progress",
            Self::PodBridge => "pod bridge",
        }
    }
}

/// What holds now and what does not, with the reason.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Readiness {
    unmet: BTreeMap<Condition, String>,
    notes: BTreeMap<&'static str, String>,
}

/// Updates the readiness. Receivers wake only if it changes.
pub(crate) fn update(readiness: &watch::Sender<Readiness>, change: impl FnOnce(&mut Readiness)) {
    readiness.send_if_modified(|readiness| {
        let before = readiness.clone();
        change(readiness);
        *readiness != before
    });
}

impl Readiness {
    /// At start nothing holds yet: the lease store is asked, and all else waits for its answer.
    #[must_use]
    pub fn starting() -> Self {
        let reason = |condition| match condition {
            Condition::Lease => "asking the lease store",
            Condition::Interface => "chosen together with the lease",
            Condition::PodBridge => "checked once there is a lease",
            _ => "waits for the lease",
        };
        let holds = [Condition::Uncontested, Condition::Progress];
        let made = Condition::ALL.into_iter().filter(|condition| !holds.contains(condition));
        let unmet = made.map(|condition| (condition, reason(condition).to_owned()));
        Self { unmet: unmet.collect(), notes: BTreeMap::new() }
    }

    /// Interface and lease are there; what has to know the other nodes waits for them.
    pub(crate) fn started(&mut self) {
        self.set(Condition::Interface, Ok(()));
        self.set(Condition::Lease, Ok(()));
        for condition in [Condition::Device, Condition::Peers] {
            self.set(condition, Err("waits until the lease store has listed the other nodes".to_owned()));
        }
    }

    /// Records that `condition` holds, or why not.
    pub fn set(&mut self, condition: Condition, state: Result<(), String>) {
        match state {
            Ok(()) => self.unmet.remove(&condition),
            Err(reason) => self.unmet.insert(condition, printable(&reason)),
        };
    }

    /// Records something worth knowing that does not make the node unready, e.g. a store that is away; `None`
    /// removes it.
    pub fn note(&mut self, subject: &'static str, text: Option<String>) {
        match text {
            Some(text) => self.notes.insert(subject, printable(&text)),
            None => self.notes.remove(subject),
        };
    }

    /// Whether every condition holds.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.unmet.is_empty()
    }

    /// Whether everything holds that flanneld itself brings about. What waits for an operator must not keep a service
    /// manager or the scheduler waiting.
    #[must_use]
    pub fn is_set_up(&self) -> bool {
        self.unmet.keys().all(|condition| *condition == Condition::PodBridge)
    }

    /// Why `condition` does not hold; `None` if it does.
    #[must_use]
    pub fn reason(&self, condition: Condition) -> Option<&str> {
        self.unmet.get(&condition).map(String::as_str)
    }

    /// What does not hold, and why.
    pub(crate) fn unmet(&self) -> impl Iterator<Item = (Condition, &str)> {
        self.unmet.iter().map(|(condition, reason)| (*condition, reason.as_str()))
    }

    /// Notes: worth knowing, without effect on readiness.
    pub(crate) fn notes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.notes.iter().map(|(subject, text)| (*subject, text.as_str()))
    }

    /// All of it in words: the verdict, then one line for each condition that does not hold and for each note.
    #[must_use]
    pub fn body(&self) -> String {
        let mut body =
            String::from(if self.is_ready() { "flanneld is ready" } else { "flanneld is not ready yet" });
        for (condition, reason) in &self.unmet {
            let _infallible = write!(body, "\n{}: {reason}", condition.name());
        }
        for (subject, text) in &self.notes {
            let _infallible = write!(body, "\nnote: {subject}: {text}");
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Readiness {
        let mut readiness = Readiness::starting();
        for condition in Condition::ALL {
            readiness.set(condition, Ok(()));
        }
        readiness
    }

    #[test]
    fn ready_only_when_every_condition_holds() {
        let mut readiness = Readiness::starting();
        let holds = [Condition::Uncontested, Condition::Progress];
        for condition in Condition::ALL.into_iter().filter(|condition| !holds.contains(condition)) {
            assert!(!readiness.is_ready(), "before {condition:?}");
            readiness.set(condition, Ok(()));
        }
        assert!(readiness.is_ready());
    }

    #[test]
    fn ready_ends_when_a_condition_stops_holding_and_the_body_says_which() {
        let mut readiness = ready();
        readiness.set(Condition::Rules, Err("table ip flannel-ipv4 is gone".to_owned()));
        assert!(!readiness.is_ready());
        assert_eq!(readiness.body(), "flanneld is not ready yet\nrules: table ip flannel-ipv4 is gone");
    }

    #[test]
    fn a_bridge_that_an_operator_has_to_remove_makes_it_unready_but_it_is_set_up() {
        let mut readiness = ready();
        readiness.set(Condition::PodBridge, Err("bridge cni0 has the address 10.244.1.1/24".to_owned()));
        assert!(!readiness.is_ready() && readiness.is_set_up());
        readiness.set(Condition::Rules, Err("gone".to_owned()));
        assert!(!readiness.is_set_up());
    }

    #[test]
    fn what_others_wrote_forges_no_line() {
        let mut readiness = ready();
        readiness.note("leases", Some("node \u{1b}[2J\r\nrules: gone\u{202e}".to_owned()));
        readiness.set(Condition::Peers, Err("x\ny".to_owned()));
        let body = readiness.body();
        assert_eq!(body.lines().count(), 3, "{body}");
        assert!(
            body.chars().all(|c| c == '\n' || !flannel_lease::codec::is_obeyed(c)),
            "{}",
            body.escape_debug()
        );
    }

    #[test]
    fn a_note_does_not_make_it_unready() {
        let mut readiness = ready();
        readiness.note("store", Some("away for 12 s".to_owned()));
        assert!(readiness.is_ready());
        assert_eq!(readiness.body(), "flanneld is ready\nnote: store: away for 12 s");
    }

    #[test]
    fn a_node_that_starts_says_what_each_condition_waits_for() {
        assert_eq!(
            Readiness::starting().body(),
            "flanneld is not ready yet\ninterface: chosen together with the lease\nlease: asking the lease store\n\
             device: waits for the lease\nrules: waits for the lease\nsubnet file: waits for the lease\n\
             peers: waits for the lease\npod bridge: checked once there is a lease"
        );
        let mut readiness = Readiness::starting();
        readiness.started();
        assert_eq!(
            (readiness.reason(Condition::Interface), readiness.reason(Condition::Lease)),
            (None, None)
        );
        let reason = Some("waits until the lease store has listed the other nodes");
        assert_eq!([Condition::Device, Condition::Peers].map(|waits| readiness.reason(waits)), [reason; 2]);
    }

    #[test]
    fn metrics_call_conditions_and_their_work_as_the_documentation_does() {
        assert_eq!(
            Condition::ALL.map(|condition| (condition.label(), condition.work())),
            [
                ("interface", "interface"),
                ("lease", "lease"),
                ("device", "overlay"),
                ("rules", "rules"),
                ("subnet_file", "subnet_file"),
                ("peers", "overlay"),
                ("uncontested", "uncontested"),
                ("progress", "progress"),
                ("pod_bridge", "interface"),
            ]
        );
    }
}
