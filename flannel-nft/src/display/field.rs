//! Fields.

use std::fmt::{self, Formatter};

use crate::display::NftVersion;
use crate::model::exthdr::Exthdr;
use crate::model::field::{self, Field, Inner, Kind};
use crate::uapi::*;

pub(super) fn write_offset(offset: u32, f: &mut Formatter<'_>) -> fmt::Result {
    if offset > 0 { write!(f, " offset {offset}") } else { Ok(()) }
}

fn write_named(prefix: &str, named: Option<&field::Named>, key: u32, f: &mut Formatter<'_>) -> fmt::Result {
    match named {
        Some(named) => write!(f, "{prefix}{}", named.name),
        None => write!(f, "{prefix}{key}"),
    }
}

pub(super) fn write_field(of: Field, f: &mut Formatter<'_>) -> fmt::Result {
    match of.0 {
        Kind::Payload(payload) => write!(f, "{} {}", payload.header.name(), payload.name),
        Kind::Inner { tunnel, inner: Inner::Payload(payload) } => {
            write!(f, "{} ", tunnel.name())?;
            if tunnel.header() != Some(payload.header) {
                write!(f, "{} ", payload.header.name())?;
            }
            f.write_str(payload.name)
        }
        Kind::Inner { tunnel, inner: Inner::Meta(key) } => {
            write!(f, "{} ", tunnel.name())?;
            write_named("meta ", field::meta(key), key, f)
        }
        Kind::Raw { base, offset, length } => write!(f, "@{},{offset},{length}", payload_base(base)),
        Kind::Exthdr(exthdr) => write_exthdr(exthdr, f),
        Kind::Meta(key) => {
            let unqualified = matches!(
                key,
                NFT_META_IIF
                    | NFT_META_OIF
                    | NFT_META_IIFNAME
                    | NFT_META_OIFNAME
                    | NFT_META_IIFGROUP
                    | NFT_META_OIFGROUP
            );
            write_named(if unqualified { "" } else { "meta " }, field::meta(key), key, f)
        }
        Kind::Ct { key, direction } => {
            let prefix = match direction {
                None => "ct ",
                Some(IP_CT_DIR_ORIGINAL) => "ct original ",
                Some(_) => "ct reply ",
            };
            write_named(prefix, field::ct(key), key, f)
        }
        Kind::Rt(key) => write_named("rt ", field::named(field::RT, key), key, f),
        Kind::Socket { key, level } => {
            write_named("socket ", field::named(field::SOCKET, key), key, f)?;
            level.iter().try_for_each(|level| write!(f, " level {level}"))
        }
        Kind::Xfrm { key, direction, number } => {
            f.write_str(if direction == XFRM_POLICY_IN { "ipsec in " } else { "ipsec out " })?;
            if number > 0 {
                write!(f, "spnum {number} ")?;
            }
            write_named("", field::named(field::XFRM, key), key, f)
        }
        Kind::Osf { flags, ttl } => {
            let ttl = match ttl {
                0 => "",
                1 => " ttl loose",
                _ => " ttl skip",
            };
            write!(f, "osf{ttl} {}", if flags & NFT_OSF_F_VERSION != 0 { "version" } else { "name" })
        }
        Kind::Numgen { kind, modulus, offset } => {
            let kind = if kind == NFT_NG_RANDOM { "random" } else { "inc" };
            write!(f, "numgen {kind} mod {modulus}")?;
            write_offset(offset, f)
        }
        Kind::Symhash { modulus, offset } => {
            write!(f, "symhash mod {modulus}")?;
            write_offset(offset, f)
        }
        Kind::Fib { result, flags } => {
            let names = [
                (NFTA_FIB_F_SADDR, "saddr"),
                (NFTA_FIB_F_DADDR, "daddr"),
                (NFTA_FIB_F_MARK, "mark"),
                (NFTA_FIB_F_IIF, "iif"),
                (NFTA_FIB_F_OIF, "oif"),
            ];
            let names: Vec<&str> =
                names.into_iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| name).collect();
            let result = match result {
                NFT_FIB_RESULT_OIF => "oif",
                NFT_FIB_RESULT_OIFNAME => "oifname",
                _ => "type",
            };
            let result = match NftVersion::of(f) {
                NftVersion::V1_1 if flags & NFTA_FIB_F_PRESENT != 0 => "check",
                _ => result,
            };
            write!(f, "fib {} {result}", names.join(" . "))
        }
    }
}

fn write_exthdr(exthdr: Exthdr, f: &mut Formatter<'_>) -> fmt::Result {
    let Exthdr { op, kind, header, name, offset, length, .. } = exthdr;
    f.write_str(match op {
        NFT_EXTHDR_OP_IPV4 => "ip option ",
        NFT_EXTHDR_OP_TCPOPT => "tcp option ",
        NFT_EXTHDR_OP_SCTP => "sctp chunk ",
        _ if name.is_empty() => "exthdr ",
        _ => "",
    })?;
    match (header, name) {
        ("", "@") => write!(f, "@{kind},{offset},{length}"),
        ("", _) => write!(f, "{kind}"),
        (header, "") => f.write_str(header),
        (header, name) => write!(f, "{header} {name}"),
    }
}

/// nft's name of the header at which a raw payload expression begins.
pub(crate) fn payload_base(base: u32) -> &'static str {
    match base {
        NFT_PAYLOAD_LL_HEADER => "ll",
        NFT_PAYLOAD_NETWORK_HEADER => "nh",
        NFT_PAYLOAD_TRANSPORT_HEADER => "th",
        _ => "ih",
    }
}
