//! Matches and targets of iptables in rules of iptables-nft (the kernel's nft_compat), and the comments of rules.

use std::borrow::Cow;

use flannel_netlink::attributes;

use crate::bytecode::expr::Expr;
use crate::model::name::Comment;
use crate::model::rule::Rule;
use crate::model::statement::Statement;
use crate::uapi::*;

/// Name and data of an iptables match or target. `NFTA_TARGET_NAME` and `_INFO` have the same
/// numbers as those of matches.
pub(crate) fn xt(data: &[u8]) -> Option<(&str, &[u8])> {
    let (mut name, mut info) = (None, &[][..]);
    for attribute in attributes(data) {
        let attribute = attribute.ok()?;
        match attribute.kind {
            NFTA_MATCH_NAME => name = Some(attribute.text().ok()?),
            NFTA_MATCH_INFO => info = attribute.payload,
            _ => {}
        }
    }
    Some((name?, info))
}

/// Whether a rule has this comment.
pub(crate) fn is_marked(rule: &Rule, mark: &Comment) -> bool {
    remark(rule).is_some_and(|remark| *remark == *mark.as_str())
}

/// The comment of a rule, from nft or iptables.
pub(crate) fn remark(rule: &Rule) -> Option<Cow<'_, str>> {
    let comment = rule.remark().map(|comment| Cow::Borrowed(comment.as_str()));
    comment.or_else(|| rule.statements.iter().find_map(by_iptables))
}

/// The comment of `iptables -m comment`.
pub(crate) fn by_iptables(statement: &Statement) -> Option<Cow<'_, str>> {
    let Statement::Other(Expr::Other(other)) = statement else { return None };
    let (_, text) = xt(&other.data).filter(|(name, _)| &*other.name == "match" && *name == "comment")?;
    Some(String::from_utf8_lossy(text.split(|byte| *byte == 0).next().unwrap_or_default()))
}
