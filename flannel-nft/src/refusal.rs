//! Why the kernel refuses a message, and what to do about it.

use std::fmt;

use flannel_netlink::{Errno, Message, Refusal, attributes, messages};

use crate::model::family::Family;
use crate::uapi::*;
use crate::wire::message as kind;

/// The kernel's reason for refusing a message, with the usual meaning of the error number in
/// nf_tables.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct RefusalReason {
    refusal: Refusal,
    part: Part,
}

/// The part of a message that the kernel objects to.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    /// The whole batch.
    Batch,
    /// A new table.
    Table(Family),
    /// The type of a new chain, e.g. `nat`.
    ChainType(String),
    /// The hook of a new chain, with its device.
    ChainHook,
    /// An expression of a new rule, under the kernel's name.
    Expression(String, Family),
    /// A new set.
    Set,
    /// A new object; a new flowtable.
    Object,
    Flowtable,
    /// The name or number of an object, which is `the table`, `the chain`, ...
    Named(&'static str),
    Other,
}

impl RefusalReason {
    /// The reason of a kernel that does not tell which part it objects to.
    pub(crate) fn new(refusal: Refusal) -> Self {
        Self { refusal, part: Part::Other }
    }

    /// The reason for refusing a message of this batch, and the name of the attribute that the kernel objects to.
    pub(crate) fn of(batch: &[u8], refusal: Refusal) -> (Self, Option<&'static str>) {
        let number = usize::try_from(refusal.message).unwrap_or(usize::MAX);
        let Some(Ok(message)) = messages(batch).nth(number) else { return (Self::new(refusal), None) };
        let offset = refusal.offset.and_then(|offset| usize::try_from(offset).ok());
        let found = offset.and_then(|offset| attribute_at(&message, offset));
        let name = found.and_then(|attribute| name_of(message.kind, attribute));
        let part = part_of(&message, found, offset).or_else(|| named(name?)).unwrap_or(Part::Other);
        (Self { refusal, part }, name)
    }

    /// The error number.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.refusal.errno
    }

    /// What is missing from the kernel, if the refusal shows that.
    fn missing(&self) -> Option<String> {
        Some(match (self.errno(), &self.part) {
            // `nfnetlink_rcv_batch`: no such subsystem.
            (Errno::EOPNOTSUPP, Part::Batch) => lacks("nftables", "nf_tables", "CONFIG_NF_TABLES"),
            // `nft_supported_family`
            (Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT, Part::Table(family)) => format!(
                "this kernel lacks tables of family {family} ({}) or a flag of this table; use a kernel that has them",
                family_option(*family)
            ),
            // `nf_tables_chain_type_lookup`
            (Errno::ENOENT, Part::ChainType(kind)) if kind == "nat" => {
                lacks("nat chains", "nft_chain_nat", "CONFIG_NFT_NAT")
            }
            (Errno::ENOENT, Part::ChainType(kind)) => {
                format!("this kernel lacks {kind} chains in tables of this family; use a kernel that has them")
            }
            (Errno::ENOENT, Part::ChainHook) => {
                "the device of the chain does not exist; create the device first".to_owned()
            }
            (Errno::ENOENT, Part::Expression(name, family)) => match module_of(name, *family) {
                Some((module, option)) => lacks(&format!("`{name}`"), module, option),
                None => match referred_to(name) {
                    Some(what) => {
                        format!("the table has no {what} of this name; add it in the same transaction, before the rule")
                    }
                    None => format!("this kernel lacks `{name}`; use a newer kernel"),
                },
            },
            (Errno::ENOENT, Part::Named(what)) => format!("{what} does not exist; {READ_AGAIN}"),
            // `nft_ct_get_init`: one option for each of these keys.
            (Errno::EOPNOTSUPP, Part::Expression(name, _)) if name == "ct" => {
                "this kernel lacks a key of `ct`; use a kernel with CONFIG_NF_CONNTRACK_MARK, CONFIG_NF_CONNTRACK_LABELS and \
                 CONFIG_NF_CONNTRACK_ZONES"
                    .to_owned()
            }
            // `nft_select_set_ops`
            (Errno::EOPNOTSUPP, Part::Set) => {
                "this kernel has no kind of set for this key and these flags; ranges in concatenated keys need Linux 5.6 or \
                 later"
                    .to_owned()
            }
            // `nft_obj_type_get`, `nft_ct_helper_obj_init`
            (Errno::ENOENT, Part::Object) => {
                "this kernel lacks objects of this type, or the conntrack helper that it names; load their module".to_owned()
            }
            // `nft_flowtable_type_get`
            (Errno::ENOENT, Part::Flowtable) => format!(
                "{}; or a device of the flowtable does not exist",
                lacks("flowtables", "nf_flow_table_inet", "CONFIG_NF_FLOW_TABLE_INET")
            ),
            _ => return None,
        })
    }

    /// What the error number means for any object.
    fn meaning(&self) -> Option<&'static str> {
        Some(match self.errno() {
            // `nft_table_lookup`
            Errno::EPERM => {
                "if the process has it, another process owns the table (flag owner), and only that process can change it"
            }
            Errno::EBUSY => "a rule, set element or chain still uses the object: delete that first",
            Errno::ENOENT => {
                "the object, or an object that it refers to, does not exist; read the ruleset and commit the difference"
            }
            Errno::EEXIST => "an object of this name exists with other properties; delete it first",
            Errno::EOPNOTSUPP => {
                "this kernel lacks the feature, or does not allow it at the chain's type and hook; use a newer kernel or another \
                 chain"
            }
            Errno::ELOOP => "chains jump in a loop; remove a jump of it",
            Errno::EMLINK => "more than 16 chains jump to each other in a row; merge some of them",
            Errno::ENFILE => "the set is full; build it with a larger size",
            Errno::EINVAL => {
                "this kernel does not understand the object; use a newer kernel, or a simpler object"
            }
            _ => return None,
        })
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.refusal)?;
        let separator = if self.refusal.explanation().is_some() { ";" } else { ":" };
        match (self.missing(), self.meaning()) {
            (Some(missing), _) => write!(f, "{separator} {missing}"),
            (None, Some(meaning)) => write!(f, "{separator} {meaning}"),
            (None, None) => Ok(()),
        }
    }
}

const READ_AGAIN: &str = "read the ruleset and commit the difference";

/// The object whose name or number an attribute is.
fn named(attribute: &str) -> Option<Part> {
    Some(Part::Named(match attribute {
        "table" => "the table",
        "chain" => "the chain",
        "set" => "the set or map",
        "name" => "the object",
        "handle" | "position" => "the rule with this handle",
        _ => return None,
    }))
}

fn lacks(what: &str, module: &str, option: &str) -> String {
    format!(
        "this kernel lacks {what} ({option}); run `modprobe {module}` on the host, or use a kernel that has it"
    )
}

/// Module and option of an expression that is not built into nf_tables (net/netfilter/Makefile).
fn module_of(expression: &str, family: Family) -> Option<(&'static str, &'static str)> {
    Some(match (expression, family) {
        ("connlimit", _) => ("nft_connlimit", "CONFIG_NFT_CONNLIMIT"),
        ("counter", _) => ("nft_counter", "CONFIG_NFT_COUNTER"),
        ("ct" | "notrack", _) => ("nft_ct", "CONFIG_NFT_CT"),
        ("dup", Family::Ip) => ("nft_dup_ipv4", "CONFIG_NFT_DUP_IPV4"),
        ("dup", Family::Ip6) => ("nft_dup_ipv6", "CONFIG_NFT_DUP_IPV6"),
        ("dup", _) => ("nft_dup_netdev", "CONFIG_NFT_DUP_NETDEV"),
        ("fib", Family::Ip) => ("nft_fib_ipv4", "CONFIG_NFT_FIB_IPV4"),
        ("fib", Family::Ip6) => ("nft_fib_ipv6", "CONFIG_NFT_FIB_IPV6"),
        ("fib", Family::Netdev) => ("nft_fib_netdev", "CONFIG_NFT_FIB_NETDEV"),
        ("fib", _) => ("nft_fib_inet", "CONFIG_NFT_FIB_INET"),
        ("fwd", _) => ("nft_fwd_netdev", "CONFIG_NFT_FWD_NETDEV"),
        ("hash", _) => ("nft_hash", "CONFIG_NFT_HASH"),
        ("limit", _) => ("nft_limit", "CONFIG_NFT_LIMIT"),
        ("log", _) => ("nft_log", "CONFIG_NFT_LOG, and CONFIG_NF_LOG_SYSLOG or CONFIG_NETFILTER_NETLINK_LOG"),
        ("masq", _) => ("nft_masq", "CONFIG_NFT_MASQ"),
        ("match" | "target", _) => ("nft_compat", "CONFIG_NFT_COMPAT, and the extension of iptables"),
        ("nat", _) => ("nft_nat", "CONFIG_NFT_NAT"),
        ("numgen", _) => ("nft_numgen", "CONFIG_NFT_NUMGEN"),
        ("osf", _) => ("nft_osf", "CONFIG_NFT_OSF"),
        ("queue", _) => ("nft_queue", "CONFIG_NFT_QUEUE"),
        ("quota", _) => ("nft_quota", "CONFIG_NFT_QUOTA"),
        ("redir", _) => ("nft_redir", "CONFIG_NFT_REDIR"),
        ("reject", Family::Ip) => ("nft_reject_ipv4", "CONFIG_NFT_REJECT_IPV4"),
        ("reject", Family::Ip6) => ("nft_reject_ipv6", "CONFIG_NFT_REJECT_IPV6"),
        ("reject", Family::Bridge) => ("nft_reject_bridge", "CONFIG_NFT_BRIDGE_REJECT"),
        ("reject", Family::Netdev) => ("nft_reject_netdev", "CONFIG_NFT_REJECT_NETDEV"),
        ("reject", _) => ("nft_reject_inet", "CONFIG_NFT_REJECT_INET"),
        ("socket", _) => ("nft_socket", "CONFIG_NFT_SOCKET"),
        ("synproxy", _) => ("nft_synproxy", "CONFIG_NFT_SYNPROXY"),
        ("tproxy", _) => ("nft_tproxy", "CONFIG_NFT_TPROXY"),
        ("tunnel", _) => ("nft_tunnel", "CONFIG_NFT_TUNNEL"),
        ("xfrm", _) => ("nft_xfrm", "CONFIG_NFT_XFRM"),
        _ => return None,
    })
}

/// What an expression refers to. The kernel reports `ENOENT` if it does not exist.
fn referred_to(expression: &str) -> Option<&'static str> {
    Some(match expression {
        "dynset" | "lookup" => "set or map",
        "flow_offload" => "flowtable",
        "immediate" => "chain",
        "objref" => "counter or other object",
        _ => return None,
    })
}

fn family_option(family: Family) -> &'static str {
    match family {
        Family::Arp => "CONFIG_NF_TABLES_ARP",
        Family::Bridge => "CONFIG_NF_TABLES_BRIDGE",
        Family::Inet => "CONFIG_NF_TABLES_INET",
        Family::Ip => "CONFIG_NF_TABLES_IPV4",
        Family::Ip6 => "CONFIG_NF_TABLES_IPV6",
        Family::Netdev => "CONFIG_NF_TABLES_NETDEV",
    }
}

fn part_of(message: &Message<'_>, attribute: Option<u16>, offset: Option<usize>) -> Option<Part> {
    let family = || Family::from_number(*message.payload.first()?);
    Some(match (message.kind, attribute) {
        (kind::BATCH_BEGIN, _) => Part::Batch,
        (kind::NEWTABLE, _) => Part::Table(family()?),
        (kind::NEWCHAIN, Some(NFTA_CHAIN_TYPE)) => {
            let mut all = attributes(message.payload.get(HEADER..)?).filter_map(Result::ok);
            let found = all.find(|attribute| attribute.kind == NFTA_CHAIN_TYPE)?;
            Part::ChainType(found.text().ok()?.to_owned())
        }
        (kind::NEWCHAIN, Some(NFTA_CHAIN_HOOK)) => Part::ChainHook,
        (kind::NEWRULE, Some(NFTA_RULE_EXPRESSIONS)) => {
            Part::Expression(expression_at(message, offset?)?, family()?)
        }
        (kind::NEWSET, None) => Part::Set,
        (kind::NEWOBJ, None | Some(NFTA_OBJ_TYPE)) => Part::Object,
        (kind::NEWFLOWTABLE, None) => Part::Flowtable,
        _ => return None,
    })
}

/// Bytes of `struct nlmsghdr`, then of `struct nfgenmsg`.
const NETLINK_HEADER: usize = 16;
const HEADER: usize = 4;

/// The type of the outermost attribute at this offset from the start of the message.
fn attribute_at(message: &Message<'_>, offset: usize) -> Option<u16> {
    let mut at = NETLINK_HEADER + HEADER;
    for attribute in attributes(message.payload.get(HEADER..)?) {
        let attribute = attribute.ok()?;
        let end = at + 4 + attribute.payload.len().next_multiple_of(4);
        if (at..end).contains(&offset) {
            return Some(attribute.kind);
        }
        at = end;
    }
    None
}

/// The name of the expression at this offset, if the kernel objects to an expression and not to the list.
fn expression_at(message: &Message<'_>, offset: usize) -> Option<String> {
    let mut at = NETLINK_HEADER + HEADER;
    for attribute in attributes(message.payload.get(HEADER..)?) {
        let attribute = attribute.ok()?;
        let mut inner = at + 4;
        at += 4 + attribute.payload.len().next_multiple_of(4);
        if attribute.kind != NFTA_RULE_EXPRESSIONS {
            continue;
        }
        for element in attribute.nested() {
            let element = element.ok()?;
            let end = inner + 4 + element.payload.len().next_multiple_of(4);
            if (inner..end).contains(&offset) {
                let name =
                    element.nested().filter_map(Result::ok).find(|part| part.kind == NFTA_EXPR_NAME)?;
                return Some(name.text().ok()?.to_owned());
            }
            inner = end;
        }
    }
    None
}

fn name_of(message: u16, attribute: u16) -> Option<&'static str> {
    Some(match (message, attribute) {
        (kind::NEWTABLE | kind::DELTABLE, NFTA_TABLE_NAME) => "name",
        (kind::NEWTABLE, NFTA_TABLE_FLAGS) => "flags",
        // The same number for all objects in a table.
        (_, NFTA_CHAIN_TABLE) => "table",
        (kind::NEWCHAIN | kind::DELCHAIN, NFTA_CHAIN_NAME) => "name",
        (kind::NEWCHAIN, NFTA_CHAIN_HOOK) => "hook",
        (kind::NEWCHAIN, NFTA_CHAIN_POLICY) => "policy",
        (kind::NEWCHAIN, NFTA_CHAIN_TYPE) => "type",
        (kind::NEWRULE | kind::DELRULE, NFTA_RULE_CHAIN) => "chain",
        (kind::NEWRULE | kind::DELRULE, NFTA_RULE_HANDLE) => "handle",
        (kind::NEWRULE, NFTA_RULE_EXPRESSIONS) => "expressions",
        (kind::NEWRULE, NFTA_RULE_POSITION) => "position",
        (kind::NEWSETELEM | kind::DELSETELEM, NFTA_SET_ELEM_LIST_SET) => "set",
        (kind::NEWSETELEM | kind::DELSETELEM, NFTA_SET_ELEM_LIST_ELEMENTS) => "elements",
        (kind::NEWSET | kind::DELSET, NFTA_SET_NAME) => "name",
        (kind::NEWOBJ | kind::DELOBJ, NFTA_OBJ_NAME) => "name",
        (kind::NEWSET, NFTA_SET_FLAGS) => "flags",
        (kind::NEWSET, NFTA_SET_KEY_TYPE | NFTA_SET_KEY_LEN) => "key type",
        (kind::NEWSET, NFTA_SET_DATA_TYPE | NFTA_SET_DATA_LEN) => "value type",
        (kind::NEWSET, NFTA_SET_TIMEOUT) => "timeout",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(errno: Errno, part: Part) -> String {
        let text = RefusalReason { refusal: Refusal::new(1, errno), part }.to_string();
        text.split_once("): ").unwrap().1.to_owned()
    }

    #[test]
    fn a_missing_feature_is_named_with_its_module_and_option() {
        let expression = |name: &str, family| text(Errno::ENOENT, Part::Expression(name.to_owned(), family));
        for (found, module, option) in [
            (text(Errno::EOPNOTSUPP, Part::Batch), "nf_tables", "CONFIG_NF_TABLES"),
            (text(Errno::ENOENT, Part::ChainType("nat".to_owned())), "nft_chain_nat", "CONFIG_NFT_NAT"),
            (text(Errno::ENOENT, Part::Flowtable), "nf_flow_table_inet", "CONFIG_NF_FLOW_TABLE_INET"),
            (expression("masq", Family::Ip), "nft_masq", "CONFIG_NFT_MASQ"),
            (expression("ct", Family::Ip), "nft_ct", "CONFIG_NFT_CT"),
            (expression("fib", Family::Inet), "nft_fib_inet", "CONFIG_NFT_FIB_INET"),
            (expression("fib", Family::Ip6), "nft_fib_ipv6", "CONFIG_NFT_FIB_IPV6"),
            (expression("reject", Family::Bridge), "nft_reject_bridge", "CONFIG_NFT_BRIDGE_REJECT"),
        ] {
            assert!(found.contains(&format!("({option})")), "{found}");
            assert!(found.contains(&format!("`modprobe {module}`")), "{found}");
        }
        assert_eq!(
            text(Errno::ENOENT, Part::ChainType("nat".to_owned())),
            "this kernel lacks nat chains (CONFIG_NFT_NAT); run `modprobe nft_chain_nat` on the host, or use a kernel that has it"
        );
        let inet = text(Errno::EOPNOTSUPP, Part::Table(Family::Inet));
        assert!(inet.contains("family inet (CONFIG_NF_TABLES_INET)"), "{inet}");
        let log = expression("log", Family::Ip);
        assert!(log.contains("CONFIG_NFT_LOG, and CONFIG_NF_LOG_SYSLOG"), "{log}");
        assert!(expression("newer", Family::Ip).contains("use a newer kernel"));
    }

    #[test]
    fn an_expression_that_names_what_does_not_exist_is_no_missing_feature() {
        for (name, what) in
            [("immediate", "chain"), ("lookup", "set or map"), ("objref", "counter or other object")]
        {
            let found = text(Errno::ENOENT, Part::Expression(name.to_owned(), Family::Ip));
            assert!(found.starts_with(&format!("the table has no {what} of this name; ")), "{found}");
        }
    }
}
