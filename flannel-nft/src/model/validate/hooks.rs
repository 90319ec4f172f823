//! The types of chains and hooks at which statements and fields are valid (`nft_chain_validate`,
//! net/netfilter/nf_tables_api.c).

use flannel_netlink::Errno;

use crate::error::InvalidRule;
use crate::model::chain::{Base, Chain, ChainKind, Hook};
use crate::model::family::Family;
use crate::model::field::{Field, Kind, meta};
use crate::model::matching::Source;
use crate::model::rule::Rule;
use crate::model::set::Maps;
use crate::model::statement::{NatKind, Reject, Statement};
use crate::model::table::Table;
use crate::model::validate::Fault;
use crate::model::validate::jumps::targets;
use crate::uapi::*;

/// Checks the place of each statement that packets reach from the base chains of a table. `places_of` selects the
/// rules whose statements are checked.
pub(crate) fn check_places(table: &Table, places_of: impl Fn(&Rule) -> bool) -> Result<(), Fault<'_>> {
    for (chain, base) in table.chains.iter().filter_map(|chain| Some((chain, chain.base.as_ref()?))) {
        check_places_below(table, chain, base, &places_of)?;
    }
    Ok(())
}

fn check_places_below<'t>(
    table: &'t Table,
    base_chain: &'t Chain,
    base: &Base,
    places_of: impl Fn(&Rule) -> bool,
) -> Result<(), Fault<'t>> {
    let mut seen = vec![false; table.chains.len()];
    let mut reached = vec![base_chain];
    while let Some(chain) = reached.pop() {
        for rule in &chain.rules {
            let mut wrong = None;
            for statement in rule.statements.iter().filter(|_| places_of(rule)) {
                Place::each(statement, table, |place| {
                    if wrong.is_none() && !place.allows(base) {
                        wrong = Some(place);
                    }
                });
            }
            if let Some(place) = wrong {
                let invalid = InvalidRule::WrongPlace {
                    statement: place.statement,
                    needs: place.to_string(),
                    chain: base_chain.name.to_string(),
                    kind: base.kind.name(),
                    hook: base.hook.name(),
                };
                let invalid = (invalid, Some(Errno::EOPNOTSUPP));
                return Err(Fault { chain, rule: Some(rule), invalid });
            }
            if !rule.may_jump() {
                continue;
            }
            for target in targets(table, rule) {
                let place = table.chains.place(target.name.as_str());
                if let Some(seen) = place.and_then(|place| seen.get_mut(place))
                    && !std::mem::replace(seen, true)
                {
                    reached.push(target);
                }
            }
        }
    }
    Ok(())
}

/// The base chains in which the kernel accepts a statement.
struct Place {
    statement: &'static str,
    nat: bool,
    hooks: &'static [Hook],
}

impl Place {
    /// Calls `found` for what the kernel does not accept in all chains (`struct nft_expr_ops`, `validate`): the statement, and
    /// the fields that it reads.
    fn each(statement: &Statement, table: &Table, mut found: impl FnMut(Self)) {
        let family = table.id.family;
        Self::of(statement, table).into_iter().for_each(&mut found);
        statement.each_term(&mut |term| {
            term.each_field(&mut |field| Self::of_field(field, family).into_iter().for_each(&mut found));
        });
    }

    fn of(statement: &Statement, table: &Table) -> Option<Self> {
        use Hook::{Forward, Ingress, Input, Output, Postrouting, Prerouting};
        const SYNPROXY: (&str, bool, &[Hook]) = ("synproxy", false, &[Input, Forward]);
        let family = table.id.family;
        let (statement, nat, hooks): (_, _, &'static [Hook]) = match statement {
            Statement::Masquerade(_) | Statement::Nat { kind: NatKind::Masquerade, .. } => {
                ("masquerade", true, &[Postrouting])
            }
            Statement::Redirect(_) | Statement::Nat { kind: NatKind::Redirect, .. } => {
                ("redirect", true, &[Prerouting, Output])
            }
            Statement::Snat { .. } | Statement::Nat { kind: NatKind::Snat, .. } => {
                ("snat", true, &[Postrouting, Input])
            }
            Statement::Dnat { .. } | Statement::Nat { kind: NatKind::Dnat, .. } => {
                ("dnat", true, &[Prerouting, Output])
            }
            Statement::Reject(kind) => {
                let name = if *kind == Reject::TcpReset { "reject with tcp reset" } else { "reject" };
                let hooks: &'static [Hook] = match family {
                    Family::Bridge => &[Prerouting, Input],
                    Family::Netdev => &[Ingress],
                    _ => &[Prerouting, Input, Forward, Output, Ingress],
                };
                (name, false, hooks)
            }
            Statement::FlowAdd(_) => ("flow add", false, &[Forward]),
            Statement::Queue(_) => ("queue", false, &[Prerouting, Input, Forward, Output, Postrouting]),
            Statement::Synproxy(_)
            | Statement::Object { kind: NFT_OBJECT_SYNPROXY, .. }
            | Statement::ObjectMap { kind: Some(NFT_OBJECT_SYNPROXY), .. } => SYNPROXY,
            Statement::ObjectMap { source: Source::Named(map), .. }
                if table.find_set(map).is_some_and(|map| map.maps == Maps::Object(NFT_OBJECT_SYNPROXY)) =>
            {
                SYNPROXY
            }
            Statement::Set { field: meta::PKTTYPE, .. } => {
                let hooks: &'static [Hook] = match family {
                    Family::Arp => &[],
                    Family::Netdev => &[Ingress],
                    _ => &[Prerouting],
                };
                ("meta pkttype set", false, hooks)
            }
            Statement::Tproxy(_) => ("tproxy", false, &[Prerouting]),
            _ => return None,
        };
        Some(Self { statement, nat, hooks })
    }

    fn of_field(field: Field, family: Family) -> Option<Self> {
        use Hook::{Egress, Forward, Ingress, Input, Output, Postrouting, Prerouting};
        let is_inet = matches!(family, Family::Inet | Family::Ip | Family::Ip6);
        let inet = |hooks: &'static [Hook]| if is_inet { hooks } else { &[] };
        let or_device = |hooks, device| if family == Family::Netdev { device } else { inet(hooks) };
        let arriving = &[Prerouting, Input, Forward];
        let leaving = &[Forward, Output, Postrouting];
        let (statement, hooks): (_, &'static [Hook]) = match field.0 {
            // Before 6.10, `fib oif` without `iif` only at prerouting.
            Kind::Fib { result, flags } => match result {
                _ if flags & NFTA_FIB_F_IIF != 0 => ("fib with iif", or_device(arriving, &[Ingress])),
                NFT_FIB_RESULT_ADDRTYPE if flags & NFTA_FIB_F_OIF != 0 => {
                    ("fib with oif", or_device(leaving, &[Egress]))
                }
                NFT_FIB_RESULT_OIF | NFT_FIB_RESULT_OIFNAME => ("fib oif", or_device(arriving, &[Ingress])),
                _ => {
                    let all = &[Prerouting, Input, Forward, Output, Postrouting];
                    ("fib", or_device(all, &[Ingress, Egress]))
                }
            },
            Kind::Meta(NFT_META_SDIF | NFT_META_SDIFNAME) => ("meta sdif", inet(&[Input, Forward])),
            Kind::Meta(NFT_META_SECPATH) => ("meta ipsec", or_device(arriving, &[Ingress])),
            Kind::Osf { .. } => ("osf", inet(arriving)),
            Kind::Rt(NFT_RT_TCPMSS) => ("rt mtu", inet(leaving)),
            Kind::Rt(_) if !is_inet => ("rt", &[]),
            Kind::Socket { .. } => ("socket", inet(&[Prerouting, Input, Output])),
            Kind::Xfrm { direction: XFRM_POLICY_IN, .. } => ("ipsec in", inet(arriving)),
            Kind::Xfrm { .. } => ("ipsec out", inet(leaving)),
            _ => return None,
        };
        Some(Self { statement, nat: false, hooks })
    }

    fn allows(&self, base: &Base) -> bool {
        (!self.nat || base.kind == ChainKind::Nat) && self.hooks.contains(&base.hook)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.hooks {
            [] => "a table of another family",
            _ if self.nat => "a nat chain",
            _ => "a chain",
        })?;
        for (at, hook) in self.hooks.iter().enumerate() {
            let glue = match at {
                0 => " at hook",
                _ if at + 1 == self.hooks.len() => " or",
                _ => ",",
            };
            write!(f, "{glue} {}", hook.name())?;
        }
        Ok(())
    }
}
