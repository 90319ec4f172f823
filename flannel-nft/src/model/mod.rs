//! The vocabulary of rulesets, independent of their representation as bytes or text.

pub(crate) mod attached;
pub(crate) mod by_name;
pub(crate) mod chain;
pub(crate) mod data;
pub(crate) mod datatype;
pub(crate) mod element;
pub(crate) mod family;
pub(crate) mod ids;
pub(crate) mod matching;
pub(crate) mod name;
pub(crate) mod opaque;
pub(crate) mod operand;
pub(crate) mod patch;
pub(crate) mod protocol;
pub(crate) mod rule;
pub(crate) mod ruleset;
pub(crate) mod selector;
pub(crate) mod set;
pub(crate) mod statement;
pub(crate) mod table;
pub(crate) mod validate;
pub(crate) mod value;
pub(crate) mod verdict;
