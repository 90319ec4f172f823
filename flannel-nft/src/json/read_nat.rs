//! NAT and transparent proxies from JSON.

use serde_json::Value;

use crate::json::error::{Node, Read, wrong};
use crate::json::read_map::Values;
use crate::json::read_value::key;
use crate::json::scope::Scope;
use crate::json::write::NAT_FLAGS;
use crate::model::datatype::Datatype;
use crate::model::element::Span;
use crate::model::family::Family;
use crate::model::statement::{Computed, IpRange, Nat, NatKind, Statement, Target, Tproxy};
use crate::uapi::*;

impl Scope<'_> {
    /// The type of an address, by the family of the table or by its text.
    pub(super) fn address(&self, value: &Value) -> Datatype {
        let is_v6 = value.to_string().contains("::") || value.as_str().is_some_and(|text| text.contains(':'));
        match self.family {
            Family::Ip => Datatype::Ipv4Addr,
            Family::Ip6 => Datatype::Ipv6Addr,
            _ if is_v6 => Datatype::Ipv6Addr,
            _ => Datatype::Ipv4Addr,
        }
    }

    pub(super) fn nat<'j>(&self, name: &str, inner: &'j Value) -> Read<'j, Statement> {
        if !inner.is_null() {
            inner.allow(&["family", "addr", "port", "flags", "type_flags"])?;
        }
        let mut flags = 0;
        for flag in inner.field("flags").map(Node::items).unwrap_or_default() {
            let name = flag.text()?;
            match NAT_FLAGS.iter().find(|(known, _)| *known == name) {
                Some((_, bit)) => flags |= bit,
                None => return wrong(flag, "random, fully-random, persistent or netmap"),
            }
        }
        for flag in inner.field("type_flags").map(Node::items).unwrap_or_default() {
            match flag.text()? {
                "prefix" => flags |= NF_NAT_RANGE_NETMAP,
                _ => return wrong(flag, "prefix"),
            }
        }
        let kind = match name {
            "masquerade" => NatKind::Masquerade,
            "redirect" => NatKind::Redirect,
            "snat" => NatKind::Snat,
            _ => NatKind::Dnat,
        };
        let (address, port) = (inner.field("addr"), inner.field("port"));
        let datatype = match (family_of(inner)?, address) {
            (Some(datatype), _) => datatype,
            (None, Some(address)) => self.address(address),
            (None, None) => Datatype::Ipv4Addr,
        };
        let computed = |target, family: u32| {
            let computed = Computed { family, target, nat: Nat { flags, ports: None } };
            Ok(Statement::Nat { kind, computed: Box::new(computed) })
        };
        let family = u32::from(nfproto(datatype));
        if let Some(map) = address.filter(|address| address.field("map").is_some()) {
            let (term, values) = self.map(map, Values::Addresses(datatype))?;
            let ends = values.and_then(Datatype::end);
            return match (values, ends) {
                (_, Some(ends)) if ends.parts().len() == 2 => computed(Target::Ranges(term), family),
                (Some(values), _) if values.parts().len() == 2 => computed(Target::Pair(term), family),
                _ if ends.is_some() || flags & NF_NAT_RANGE_NETMAP != 0 => {
                    computed(Target::Addresses(term), family)
                }
                _ => computed(Target::Address(term), family),
            };
        }
        if let Some(value) = address.filter(|address| {
            address.is_object() && address.field("range").is_none() && address.field("prefix").is_none()
        }) {
            return computed(Target::Address(self.term(value)?), family);
        }
        let range = match address {
            None => None,
            Some(address) => match key(datatype, address)? {
                Span::One(data) => Some(IpRange { first: data.clone(), last: data }),
                Span::Range(first, last) => Some(IpRange { first, last }),
                Span::CatchAll => return wrong(address, "an address"),
            },
        };
        let is_constant = |port: &Value| port.is_u64() || port.field("range").is_some();
        if let Some(value) = port.filter(|port| !is_constant(port)) {
            let term = self.value_of(value, Datatype::InetService)?;
            return match range {
                Some(range) => computed(Target::PortOf(range.first, term), family),
                None if matches!(kind, NatKind::Masquerade | NatKind::Redirect) => {
                    computed(Target::Port(term), NFPROTO_UNSPEC.into())
                }
                None => computed(Target::Port(term), self.family.number().into()),
            };
        }
        let ports = match port {
            None => None,
            Some(port) => match port.field("range").map(Node::list).transpose()? {
                None => Some(port.number()?..=port.number()?),
                Some([first, last]) => Some(first.number()?..=last.number()?),
                Some(_) => return wrong(port, "two ports"),
            },
        };
        let nat = Nat { flags, ports };
        Ok(match kind {
            NatKind::Masquerade => Statement::Masquerade(nat),
            NatKind::Redirect => Statement::Redirect(nat),
            NatKind::Snat => Statement::Snat { address: range, nat },
            NatKind::Dnat => Statement::Dnat { address: range, nat },
        })
    }

    pub(super) fn tproxy<'j>(&self, inner: &'j Value) -> Read<'j, Statement> {
        inner.allow(&["family", "addr", "port"])?;
        let address = inner.field("addr");
        let datatype = match (family_of(inner)?, address) {
            (Some(datatype), _) => Some(datatype),
            (None, Some(address)) => Some(self.address(address)),
            (None, None) => None,
        };
        let own = match self.family {
            Family::Ip => NFPROTO_IPV4,
            Family::Ip6 => NFPROTO_IPV6,
            _ => NFPROTO_UNSPEC,
        };
        let family = datatype.map_or(own, nfproto).into();
        let address = address
            .map(|address| self.value_of(address, datatype.unwrap_or(Datatype::Ipv4Addr)))
            .transpose()?;
        let port = inner.field("port").map(|port| self.value_of(port, Datatype::InetService)).transpose()?;
        Ok(Statement::Tproxy(Tproxy { family, address, port }))
    }
}

/// The type of addresses of the property `family`.
pub(super) fn family_of(inner: &Value) -> Read<'_, Option<Datatype>> {
    let Some(family) = inner.field("family") else { return Ok(None) };
    match family.text()? {
        "ip" => Ok(Some(Datatype::Ipv4Addr)),
        "ip6" => Ok(Some(Datatype::Ipv6Addr)),
        _ => wrong(family, "family ip or ip6"),
    }
}

pub(super) fn nfproto(datatype: Datatype) -> u8 {
    if datatype == Datatype::Ipv4Addr { NFPROTO_IPV4 } else { NFPROTO_IPV6 }
}
