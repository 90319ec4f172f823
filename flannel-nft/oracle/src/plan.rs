//! A table in words that all three libraries have.

use std::net::IpAddr;

use flannel_nft::ct::{self, State};
use flannel_nft::{
    Base, Chain, ChainKind, ChainName, Family, Hook, InterfaceName, NameError, Nat, Priority, Protocol, Rule,
    Ruleset, Table, TableName, ip, meta, tcp, udp,
};
use ipnet::IpNet;

/// A table.
#[derive(Clone, Debug)]
pub struct Plan {
    /// IPv6 instead of IPv4.
    pub ipv6: bool,
    /// Its name.
    pub name: String,
    /// Its chains, in the order in which they are made: targets of jumps first.
    pub chains: Vec<PlannedChain>,
}

/// A chain.
#[derive(Clone, Debug)]
pub struct PlannedChain {
    /// Its name.
    pub name: String,
    /// Hook and kind; `None` for a regular chain.
    pub base: Option<(ChainKind, Hook, i32)>,
    /// Its rules.
    pub rules: Vec<PlannedRule>,
}

/// A rule: conditions, perhaps a counter, an action.
#[derive(Clone, Debug)]
pub struct PlannedRule {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// Counts packets that meet the conditions.
    pub counter: bool,
    /// What then happens.
    pub action: Action,
}

/// What a packet must be.
#[derive(Clone, Debug)]
pub enum Condition {
    /// `meta mark & MASK == VALUE`.
    Mark {
        /// Value of the bits that count.
        value: u32,
        /// The bits that count.
        mask: u32,
    },
    /// `ip saddr NET` or `ip saddr != NET`.
    Source {
        /// A prefix of the table's family, longer than 0.
        net: IpNet,
        /// Anything but it.
        inverted: bool,
    },
    /// `ip daddr NET` or `ip daddr != NET`.
    Destination {
        /// A prefix of the table's family, longer than 0.
        net: IpNet,
        /// Anything but it.
        inverted: bool,
    },
    /// `tcp dport PORT` or `udp dport PORT`.
    Port {
        /// UDP instead of TCP.
        udp: bool,
        /// Destination port.
        port: u16,
    },
    /// `iifname NAME`.
    Input {
        /// At most 15 bytes.
        name: String,
    },
    /// `oifname NAME`.
    Output {
        /// At most 15 bytes.
        name: String,
    },
    /// `ct state STATE,..` or none of them.
    States {
        /// Each once.
        states: Vec<State>,
        /// Anything but these.
        inverted: bool,
    },
    /// `ct mark VALUE`.
    ConnectionMark {
        /// All 32 bits.
        value: u32,
    },
}

/// What happens to a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// `accept`.
    Accept,
    /// `drop`.
    Drop,
    /// `return`.
    Return,
    /// `jump CHAIN`.
    Jump(String),
    /// `goto CHAIN`.
    Goto(String),
    /// `masquerade`, in a nat chain at postrouting.
    Masquerade,
    /// `snat to ADDRESS`, in a nat chain at postrouting.
    Snat(IpAddr),
    /// `meta mark set VALUE`.
    SetMark(u32),
}

/// One instruction of the kernel's machine, as the other two libraries are told it. Worked out here from
/// net/netfilter/nft_*.c and what nft makes of the same rule, not from flannel-nft's encoder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Loads a field of the packet: base header (1 network, 2 transport), offset, length.
    Payload(u32, u32, u32),
    /// Loads the packet's mark.
    Mark,
    /// Loads the state of its connection.
    State,
    /// Loads the mark of its connection.
    ConnectionMark,
    /// Loads the input interface's name, 16 bytes.
    InputName,
    /// Loads the layer 4 protocol.
    L4Proto,
    /// Loads the output interface's name, 16 bytes.
    OutputName,
    /// Keeps the bits of a mask.
    Mask(Vec<u8>),
    /// Goes on if the register equals this, or does not.
    Compare(Vec<u8>, bool),
    /// Counts.
    Counter,
    /// Masquerades.
    Masquerade,
    /// Loads a constant.
    Load(Vec<u8>),
    /// Sets the packet's mark to what is loaded.
    SetMark,
    /// Changes the source to what is loaded: IPv6 instead of IPv4.
    Snat(bool),
    /// Ends here, or in that chain.
    Verdict(Action),
}

impl Plan {
    /// In `flannel-nft`'s words.
    ///
    /// # Errors
    /// If nftables cannot hold a name.
    pub fn ours(&self) -> Result<Ruleset, NameError> {
        let family = if self.ipv6 { Family::Ip6 } else { Family::Ip };
        let mut table = Table::new(family, TableName::new(&self.name)?);
        for planned in &self.chains {
            let name = ChainName::new(&planned.name)?;
            let mut chain = match planned.base {
                Some((kind, hook, priority)) => {
                    Chain::base(name, Base::new(kind, hook, Priority::new(priority)))
                }
                None => Chain::regular(name),
            };
            for rule in &planned.rules {
                chain = chain.rule(rule.ours()?);
            }
            table = table.chain(chain);
        }
        Ok(Ruleset::new().table(table))
    }
}

impl PlannedRule {
    fn ours(&self) -> Result<Rule, NameError> {
        let mut rule = Rule::new();
        for condition in &self.conditions {
            let unless = |inverted: bool, found: flannel_nft::Match| if inverted { !found } else { found };
            rule = rule.when(match condition {
                Condition::Mark { value, mask } => meta::mark_masked(*value, *mask),
                Condition::Source { net, inverted } => unless(*inverted, ip::saddr(*net)),
                Condition::Destination { net, inverted } => unless(*inverted, ip::daddr(*net)),
                Condition::Port { udp: false, port } => tcp::dport(*port),
                Condition::Port { udp: true, port } => udp::dport(*port),
                Condition::Input { name } => meta::iifname(&InterfaceName::new(name)?),
                Condition::Output { name } => meta::oifname(&InterfaceName::new(name)?),
                Condition::States { states, inverted } => {
                    unless(*inverted, ct::state(states.iter().copied()))
                }
                Condition::ConnectionMark { value } => ct::mark(*value),
            });
        }
        if self.counter {
            rule = rule.counter();
        }
        Ok(match &self.action {
            Action::Accept => rule.accept(),
            Action::Drop => rule.drop(),
            Action::Return => rule.return_(),
            Action::Jump(chain) => rule.jump(&ChainName::new(chain)?),
            Action::Goto(chain) => rule.goto(&ChainName::new(chain)?),
            Action::Masquerade => rule.masquerade(Nat::new()),
            Action::Snat(address) => rule.snat(*address, Nat::new()),
            Action::SetMark(value) => rule.set_mark(flannel_nft::Mark::To(*value)),
        })
    }

    /// As instructions.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut known = None;
        for condition in &self.conditions {
            match condition {
                Condition::Mark { value, mask } => {
                    steps.push(Step::Mark);
                    steps.push(Step::Mask(mask.to_ne_bytes().to_vec()));
                    steps.push(Step::Compare(value.to_ne_bytes().to_vec(), false));
                }
                Condition::Source { net, inverted } => address(&mut steps, *net, *inverted, 12, 8),
                Condition::Destination { net, inverted } => address(&mut steps, *net, *inverted, 16, 24),
                Condition::Port { udp, port } => {
                    let protocol = if *udp { Protocol::UDP } else { Protocol::TCP };
                    // As nft does: not twice in a row.
                    if known.replace(protocol) != Some(protocol) {
                        steps.push(Step::L4Proto);
                        steps.push(Step::Compare(vec![protocol.number()], false));
                    }
                    steps.push(Step::Payload(2, 2, 2));
                    steps.push(Step::Compare(port.to_be_bytes().to_vec(), false));
                }
                Condition::Input { name } => {
                    steps.push(Step::InputName);
                    steps.push(Step::Compare(padded(name), false));
                }
                Condition::Output { name } => {
                    steps.push(Step::OutputName);
                    steps.push(Step::Compare(padded(name), false));
                }
                Condition::States { states, inverted } => {
                    let bits = states.iter().fold(0, |bits, state| bits | state_bit(*state));
                    steps.push(Step::State);
                    steps.push(Step::Mask(bits.to_ne_bytes().to_vec()));
                    // Any of the bits: not equal to none of them.
                    steps.push(Step::Compare(vec![0; 4], !inverted));
                }
                Condition::ConnectionMark { value } => {
                    steps.push(Step::ConnectionMark);
                    steps.push(Step::Compare(value.to_ne_bytes().to_vec(), false));
                }
            }
        }
        if self.counter {
            steps.push(Step::Counter);
        }
        match &self.action {
            Action::Masquerade => steps.push(Step::Masquerade),
            Action::Snat(IpAddr::V4(address)) => {
                steps.extend([Step::Load(address.octets().to_vec()), Step::Snat(false)]);
            }
            Action::Snat(IpAddr::V6(address)) => {
                steps.extend([Step::Load(address.octets().to_vec()), Step::Snat(true)]);
            }
            Action::SetMark(value) => {
                steps.extend([Step::Load(value.to_ne_bytes().to_vec()), Step::SetMark]);
            }
            action => steps.push(Step::Verdict(action.clone())),
        }
        steps
    }
}

fn padded(name: &str) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(16, 0);
    padded
}

/// `NF_CT_STATE_BIT` and its exceptions (include/uapi/linux/netfilter/nf_conntrack_common.h).
fn state_bit(state: State) -> u32 {
    match state {
        State::Invalid => 1,
        State::Established => 2,
        State::Related => 4,
        State::New => 8,
        State::Untracked => 64,
    }
}

/// Whole bytes are compared as they are, anything else behind a mask.
fn address(steps: &mut Vec<Step>, net: IpNet, inverted: bool, offset4: u32, offset6: u32) {
    let (offset, network, mask) = match net {
        IpNet::V4(net) => (offset4, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
        IpNet::V6(net) => (offset6, net.network().octets().to_vec(), net.netmask().octets().to_vec()),
    };
    if net.prefix_len().is_multiple_of(8) {
        let length = net.prefix_len() / 8;
        steps.push(Step::Payload(1, offset, length.into()));
        steps.push(Step::Compare(network.into_iter().take(length.into()).collect(), inverted));
    } else {
        steps.push(Step::Payload(1, offset, if matches!(net, IpNet::V4(_)) { 4 } else { 16 }));
        steps.push(Step::Mask(mask));
        steps.push(Step::Compare(network, inverted));
    }
}
