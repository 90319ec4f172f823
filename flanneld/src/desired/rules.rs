//! The nftables rules of a node: masquerade what leaves the cluster, accept what is forwarded for pods. Pure.
//!
//! Names, hooks and comments are upstream's (`pkg/trafficmngr/nftables`), so that its tables are taken over in place and
//! ours are cleaned up by it.

use std::fmt;
use std::str::FromStr;

use flannel_nft::iptables::is_about_others;
use flannel_nft::{
    Base, Chain, ChainName, Comment, Counter, CounterName, Datatype, Family, Match, NameError, Nat,
    Ownership, Rule, Ruleset, Set, SetName, Table, TableId, TableName, ip, meta,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The mark by which kube-proxy says that it will masquerade a packet itself.
const KUBE_PROXY_MARK: u32 = 0x4000;

/// Connections of pods that are masqueraded as they leave the cluster.
pub const MASQUERADED_FROM_PODS: &str = "masquerade-from-pods";
/// Connections from elsewhere that are masqueraded on their way to pods.
pub const MASQUERADED_TO_PODS: &str = "masquerade-to-pods";
/// Forwarded packets that come from pods.
pub const FORWARDED_FROM_PODS: &str = "forward-from-pods";
/// Forwarded packets to pods from elsewhere.
pub const FORWARDED_TO_PODS: &str = "forward-to-pods";

/// What distinguishes our tables and rules from those of another daemon on this host (`--table-prefix`). Default: `flannel`,
/// as upstream names them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TablePrefix(String);

impl TablePrefix {
    /// The one that a daemon takes by itself where another network's has `flannel`: named after its first network, so
    /// that it is the same after every restart. `flannel-10.60.0.0-16`, `flannel-fd00_60__-48`.
    #[must_use]
    pub fn of_networks(networks: &[IpNet]) -> Option<Self> {
        let net = networks.first()?;
        let address = net.network().to_string().replace(':', "_");
        Some(Self(format!("{}-{address}-{}", Self::default(), net.prefix_len())))
    }

    /// The one that this table belongs to, if a daemon may have chosen it by itself.
    #[must_use]
    pub fn chosen_for(table: &TableId) -> Option<Self> {
        let ending = if table.family == Family::Ip { "-ipv4" } else { "-ipv6" };
        let prefix = table.name.as_str().strip_suffix(ending)?;
        if prefix == Self::default().0 {
            return Some(Self::default());
        }
        let (address, length) = prefix.strip_prefix("flannel-")?.rsplit_once('-')?;
        let address = address.replace('_', ":").parse().ok()?;
        let chosen = Self::of_networks(&[IpNet::new(address, length.parse().ok()?).ok()?])?;
        (chosen.0 == prefix).then_some(chosen)
    }

    /// Those that a daemon of these networks may choose from by itself, the best first. `present` are the tables of
    /// all of [`Self::choices`] that there are; `former` the networks of its last run.
    ///
    /// Tables that it made under a name of its own stay in use. Tables that hold rules for networks apart from its own
    /// are another daemon's, whether that runs now or not, and left alone.
    #[must_use]
    pub fn candidates(networks: &[IpNet], former: &[IpNet], present: &Ruleset) -> Vec<Self> {
        let tables = |prefix: &Self| {
            let ids = prefix.tables();
            present
                .tables()
                .iter()
                .filter(move |table| ids.as_ref().is_ok_and(|ids| ids.contains(table.id())))
        };
        let known = [networks, former].concat();
        let is_foreign = |prefix: &Self| {
            let rules = tables(prefix).flat_map(Table::chains).flat_map(Chain::list);
            is_about_others(rules, &known)
        };
        let Some(own) = Self::of_networks(networks) else { return vec![Self::default()] };
        if tables(&own).next().is_some() || is_foreign(&Self::default()) {
            return vec![own];
        }
        vec![Self::default(), own]
    }

    /// Prefixes other than this one whose tables hold rules for a network that overlaps `known`, the daemon's networks of
    /// now and before: its own tables, from before it got this prefix.
    #[must_use]
    pub fn former(&self, known: &[IpNet], present: &Ruleset) -> Vec<Self> {
        let mut former: Vec<Self> = Vec::new();
        for table in present.tables() {
            let rules = || table.chains().iter().flat_map(Chain::list);
            let is_ours = rules().next().is_some() && !is_about_others(rules(), known);
            let prefix = Self::chosen_for(table.id()).filter(|prefix| is_ours && prefix != self);
            former.extend(prefix.filter(|prefix| !former.contains(prefix)));
        }
        former
    }

    /// Tables to observe for [`Self::candidates`].
    ///
    /// # Errors
    /// None in practice.
    pub fn choices(networks: &[IpNet]) -> Result<Vec<TableId>, NameError> {
        let own = Self::of_networks(networks).unwrap_or_default();
        Ok([Self::default().tables()?, own.tables()?].concat())
    }

    /// Names of the tables: IPv4's and IPv6's.
    ///
    /// # Errors
    /// None once the prefix is made.
    pub fn tables(&self) -> Result<[TableId; 2], NameError> {
        Ok([
            TableId::new(Family::Ip, TableName::new(&format!("{self}-ipv4"))?),
            TableId::new(Family::Ip6, TableName::new(&format!("{self}-ipv6"))?),
        ])
    }

    /// The comment of the rules that the daemon keeps in iptables' chains.
    ///
    /// # Errors
    /// None once the prefix is made.
    pub fn mark(&self) -> Result<Comment, NameError> {
        if *self == Self::default() {
            Comment::new("flanneld accept")
        } else {
            Comment::new(&format!("flanneld accept ({self})"))
        }
    }
}

impl Default for TablePrefix {
    fn default() -> Self {
        Self("flannel".to_owned())
    }
}

impl FromStr for TablePrefix {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let prefix = Self(text.to_owned());
        TableName::new(text)?;
        prefix.tables()?;
        prefix.mark()?;
        Ok(prefix)
    }
}

impl fmt::Display for TablePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What decides the rules of a node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RuleSpec {
    /// What the names of the tables begin with.
    pub prefix: TablePrefix,
    /// The cluster's network and this node's subnet; `None` if IPv4 is off.
    pub ipv4: Option<(Ipv4Net, Ipv4Net)>,
    /// The same for IPv6.
    pub ipv6: Option<(Ipv6Net, Ipv6Net)>,
    /// Masquerade what leaves the cluster.
    pub masquerade: bool,
    /// Choose masqueraded source ports at random.
    pub fully_random: bool,
    /// Accept forwarded pod traffic.
    pub forward: bool,
    /// Destinations that pods reach under their own address.
    pub no_masquerade: Vec<IpNet>,
    /// Which processes may change the tables. Default: every privileged process.
    pub ownership: Ownership,
    /// Prefixes that the node had before; their tables are to be gone. Default: none.
    pub former: Vec<TablePrefix>,
}

impl RuleSpec {
    /// The cluster's networks.
    #[must_use]
    pub fn networks(&self) -> Vec<IpNet> {
        let v4 = self.ipv4.map(|(cluster, _)| IpNet::from(cluster));
        let v6 = self.ipv6.map(|(cluster, _)| IpNet::from(cluster));
        v4.into_iter().chain(v6).collect()
    }
}

/// The tables `ip flannel-ipv4` and `ip6 flannel-ipv6`, for the families in use; the other one is to be gone.
///
/// # Errors
/// None in practice: the names are such that nftables can hold them.
pub fn ruleset(spec: &RuleSpec) -> Result<Ruleset, NameError> {
    let [ipv4, ipv6] = spec.prefix.tables()?;
    let multicast_v4 = Ipv4Net::new_assert([224, 0, 0, 0].into(), 4).into();
    let multicast_v6 = Ipv6Net::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8).into();
    let former = spec.former.iter().map(TablePrefix::tables).collect::<Result<Vec<_>, _>>()?;
    let mut rules = former.concat().into_iter().fold(Ruleset::new(), Ruleset::without);
    rules = match spec.ipv4 {
        Some((cluster, pods)) => rules.table(table(spec, ipv4, cluster.into(), pods.into(), multicast_v4)?),
        None => rules.without(ipv4),
    };
    Ok(match spec.ipv6 {
        Some((cluster, pods)) => rules.table(table(spec, ipv6, cluster.into(), pods.into(), multicast_v6)?),
        None => rules.without(ipv6),
    })
}

fn table(
    spec: &RuleSpec,
    id: TableId,
    cluster: IpNet,
    pods: IpNet,
    multicast: IpNet,
) -> Result<Table, NameError> {
    let comment = Comment::new(&format!("rules for {}", id.name))?;
    let mut table = Table::new(id.family, id.name).comment(comment).ownership(spec.ownership);
    if spec.masquerade {
        let exempt = SetName::new("no-masquerade")?;
        let same_family = |net: &&IpNet| net.addr().is_ipv4() == cluster.addr().is_ipv4();
        let mut elements: Vec<IpNet> = spec.no_masquerade.iter().filter(same_family).copied().collect();
        elements = IpNet::aggregate(&elements);
        let kind = if cluster.addr().is_ipv4() { Datatype::Ipv4Addr } else { Datatype::Ipv6Addr };
        let mut chain = Chain::base(ChainName::new("postrtg")?, Base::nat_postrouting())
            .comment(Comment::new("chain to manage traffic masquerading by flannel")?)
            // kube-proxy will masquerade this itself.
            .rule(Rule::new().when(meta::mark_masked(KUBE_PROXY_MARK, KUBE_PROXY_MARK)).return_());
        if !elements.is_empty() {
            chain = chain.rule(Rule::new().when(ip::daddr(addresses(&exempt, cluster))).return_());
            table = table.set(Set::new(exempt, kind).interval().elements(elements));
        }
        let counters = [CounterName::new(MASQUERADED_FROM_PODS)?, CounterName::new(MASQUERADED_TO_PODS)?];
        chain = chain.rules(masquerade(spec, cluster, pods, multicast, &counters));
        table = counters.into_iter().fold(table, |table, name| table.counter(Counter::new(name)));
        table = table.chain(chain);
    }
    if spec.forward {
        let [from, to] = [CounterName::new(FORWARDED_FROM_PODS)?, CounterName::new(FORWARDED_TO_PODS)?];
        let chain = Chain::base(ChainName::new("forward")?, Base::filter_forward())
            .comment(Comment::new("chain to accept flannel traffic")?)
            .rule(Rule::new().when(ip::saddr(cluster)).counter_named(&from).accept())
            .rule(Rule::new().when(ip::daddr(cluster)).counter_named(&to).accept());
        table = table.counter(Counter::new(from)).counter(Counter::new(to)).chain(chain);
    }
    Ok(table)
}

/// As upstream's iptables mode has it. Its nftables mode returns on `saddr != PODS daddr CLUSTER` in the third rule,
/// which makes the last one unreachable.
///
/// This chain sees the first packet of each connection only, so the counters count connections.
fn masquerade(
    spec: &RuleSpec,
    cluster: IpNet,
    pods: IpNet,
    multicast: IpNet,
    [from_pods, to_pods]: &[CounterName; 2],
) -> [Rule; 5] {
    let when = |source: Match, destination: Match| Rule::new().when(source).when(destination);
    let nat = || if spec.fully_random { Nat::new().fully_random() } else { Nat::new() };
    [
        when(ip::saddr(pods), ip::daddr(cluster)).return_(),
        when(ip::saddr(cluster), ip::daddr(pods)).return_(),
        when(!ip::saddr(cluster), ip::daddr(pods)).return_(),
        when(ip::saddr(cluster), !ip::daddr(multicast)).counter_named(from_pods).masquerade(nat()),
        when(!ip::saddr(cluster), ip::daddr(cluster)).counter_named(to_pods).masquerade(nat()),
    ]
}

fn addresses(set: &SetName, cluster: IpNet) -> flannel_nft::Addresses {
    if cluster.addr().is_ipv4() {
        flannel_nft::Addresses::v4_set(set)
    } else {
        flannel_nft::Addresses::v6_set(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dual_stack() -> RuleSpec {
        RuleSpec {
            prefix: TablePrefix::default(),
            ipv4: Some(("10.244.0.0/16".parse().unwrap(), "10.244.59.0/24".parse().unwrap())),
            ipv6: Some(("fd00:10:244::/48".parse().unwrap(), "fd00:10:244:5d::/64".parse().unwrap())),
            masquerade: true,
            fully_random: true,
            forward: true,
            no_masquerade: Vec::new(),
            ownership: Ownership::Shared,
            former: Vec::new(),
        }
    }

    #[test]
    fn the_rules_are_upstreams_with_its_two_mistakes_mended() {
        insta::assert_snapshot!(ruleset(&dual_stack()).unwrap().to_string());
    }

    #[test]
    fn daemons_with_different_prefixes_have_nothing_in_common() {
        let other: TablePrefix = "tenant-b".parse().unwrap();
        let theirs = ruleset(&RuleSpec { prefix: other.clone(), ipv6: None, ..dual_stack() }).unwrap();
        let ours = ruleset(&dual_stack()).unwrap();
        assert!(theirs.scope().iter().all(|id| !ours.scope().contains(id)));
        assert!(theirs.to_string().contains("table ip tenant-b-ipv4 {"));
        assert_ne!(other.mark().unwrap(), TablePrefix::default().mark().unwrap());
        for bad in ["", "1", "a b", "a;b", &"a".repeat(300)] {
            bad.parse::<TablePrefix>().unwrap_err();
        }
    }

    #[test]
    fn a_prefix_that_a_daemon_chooses_is_named_after_its_network_and_known_by_its_tables() {
        for (networks, name) in [
            ("10.60.0.0/16", "flannel-10.60.0.0-16"),
            ("fd00:60::/48", "flannel-fd00_60__-48"),
            ("::/0", "flannel-__-0"),
        ] {
            let chosen = TablePrefix::of_networks(&[networks.parse().unwrap()]).unwrap();
            assert_eq!(chosen.to_string(), name);
            assert_eq!(name.parse::<TablePrefix>().unwrap(), chosen, "nft can print it");
            for table in chosen.tables().unwrap() {
                assert_eq!(TablePrefix::chosen_for(&table), Some(chosen.clone()));
            }
        }
        let known =
            |name: &str| TablePrefix::chosen_for(&TableId::new(Family::Ip, TableName::new(name).unwrap()));
        assert_eq!(known("flannel-ipv4"), Some(TablePrefix::default()));
        for other in [
            "flannel-ipv6",
            "tenant-ipv4",
            "flannel-x-ipv4",
            "flannel-10.60.0.0-16",
            "flannel-10.60.0.1-16-ipv4",
        ] {
            assert_eq!(known(other), None, "{other}");
        }
    }

    #[test]
    fn a_daemon_leaves_another_networks_tables_alone_and_goes_on_with_its_own() {
        let nets = |text: &[&str]| text.iter().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
        let choose = |networks: &[&str], former: &[&str], present: &Ruleset| {
            let chosen = TablePrefix::candidates(&nets(networks), &nets(former), present);
            chosen.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let theirs = ruleset(&dual_stack()).unwrap();
        let (default, own) = ("flannel", "flannel-10.60.0.0-16");
        assert_eq!(choose(&["10.60.0.0/16"], &[], &Ruleset::new()), [default, own]);
        assert_eq!(choose(&["10.60.0.0/16"], &[], &theirs), [own]);
        assert_eq!(
            choose(&["10.60.0.0/16"], &["10.244.0.0/16"], &theirs),
            [default, own],
            "ours of the last run"
        );
        assert_eq!(choose(&["10.244.0.0/17"], &[], &theirs), [default, "flannel-10.244.0.0-17"]);
        let prefix = own.parse().unwrap();
        let ours = ruleset(&RuleSpec { prefix, ipv6: None, ..dual_stack() }).unwrap();
        assert_eq!(choose(&["10.60.0.0/16"], &[], &ours), [own], "also when `flannel` has become free");
        assert_eq!(choose(&["fd00:60::/48"], &[], &ours), [default, "flannel-fd00_60__-48"]);
        let v4_only = ruleset(&RuleSpec { ipv6: None, ..dual_stack() }).unwrap();
        assert_eq!(choose(&["fd00:60::/48"], &[], &v4_only), ["flannel-fd00_60__-48"]);
        let empty = ruleset(&RuleSpec { masquerade: false, forward: false, ..dual_stack() }).unwrap();
        assert_eq!(choose(&["10.60.0.0/16"], &[], &empty), [default, own]);
    }

    #[test]
    fn a_family_that_is_off_has_no_table_and_loses_the_one_it_had() {
        let rules = ruleset(&RuleSpec { ipv6: None, ..dual_stack() }).unwrap();
        assert_eq!(rules.tables().len(), 1);
        assert_eq!(rules.scope().len(), 2);
    }

    #[test]
    fn without_masquerade_and_forward_there_are_no_chains() {
        let rules = ruleset(&RuleSpec { masquerade: false, forward: false, ..dual_stack() }).unwrap();
        assert!(rules.tables().iter().all(|table| table.chains().is_empty()));
    }

    #[test]
    fn exempt_destinations_are_one_interval_set_for_each_family_that_has_some() {
        let no_masquerade =
            ["192.168.0.0/17", "192.168.128.0/17", "10.9.0.0/16"].map(|net| net.parse().unwrap());
        let rules = ruleset(&RuleSpec { no_masquerade: no_masquerade.to_vec(), ..dual_stack() }).unwrap();
        let text = rules.to_string();
        assert!(text.contains("ip daddr @no-masquerade return"), "{text}");
        assert!(!text.contains("ip6 daddr @no-masquerade"), "{text}");
        assert_eq!(rules.tables()[0].sets()[0].len(), 2, "adjacent prefixes are joined");
    }

    #[test]
    fn source_ports_are_kept_where_they_can_be_if_asked() {
        let rules = ruleset(&RuleSpec { fully_random: false, ..dual_stack() }).unwrap();
        assert!(!rules.to_string().contains("fully-random"));
    }
}
