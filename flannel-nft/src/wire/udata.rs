//! Userdata: nft's own annotations of objects, as type, length and value (libnftnl/udata.h). The
//! kernel only stores them.

use flannel_netlink::{Attribute, Attributes};

use crate::model::name::Comment;
use crate::model::opaque::Extra;

// All objects except sets use the same number for comments.
pub(crate) const NFTNL_UDATA_TABLE_COMMENT: u8 = 0;
pub(crate) const NFTNL_UDATA_CHAIN_COMMENT: u8 = 0;
pub(crate) const NFTNL_UDATA_RULE_COMMENT: u8 = 0;
pub(crate) const NFTNL_UDATA_OBJ_COMMENT: u8 = 0;
pub(crate) const NFTNL_UDATA_SET_ELEM_COMMENT: u8 = 0;
pub(crate) const NFTNL_UDATA_SET_KEYBYTEORDER: u8 = 0;
pub(crate) const NFTNL_UDATA_SET_DATABYTEORDER: u8 = 1;
pub(crate) const NFTNL_UDATA_SET_MERGE_ELEMENTS: u8 = 2;
pub(crate) const NFTNL_UDATA_SET_KEY_TYPEOF: u8 = 3;
pub(crate) const NFTNL_UDATA_SET_DATA_TYPEOF: u8 = 4;
pub(crate) const NFTNL_UDATA_SET_TYPEOF_DATA: u8 = 1;
pub(crate) const NFTNL_UDATA_SET_DATA_INTERVAL: u8 = 6;
pub(crate) const NFTNL_UDATA_SET_COMMENT: u8 = 7;

/// Userdata under construction.
#[derive(Debug, Default)]
pub(crate) struct Userdata(Vec<u8>);

impl Userdata {
    pub(crate) fn text(&mut self, kind: u8, text: &Comment) {
        let text = text.as_bytes();
        self.0.extend([kind, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)]);
        self.0.extend(text);
        self.0.push(0);
    }

    pub(crate) fn u32(&mut self, kind: u8, value: u32) {
        self.0.extend([kind, 4]);
        self.0.extend(value.to_ne_bytes());
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Appends `attribute` with a comment, if there is one.
pub(crate) fn write_comment(attribute: u16, kind: u8, text: Option<&Comment>, a: &mut Attributes<'_>) {
    if let Some(text) = text {
        let mut userdata = Userdata::default();
        userdata.text(kind, text);
        a.bytes(attribute, userdata.as_bytes());
    }
}

/// Keeps an attribute that has no type here.
pub(crate) fn keep(extra: &mut Extra, attribute: &Attribute<'_>) {
    extra.0.push((attribute.kind, attribute.payload.into()));
}

/// Reads userdata: the comment. Other userdata is kept too.
pub(crate) fn comment(attribute: &Attribute<'_>, kind: u8, extra: &mut Extra) -> Option<Comment> {
    let comment = read_comment(attribute.payload, kind);
    if !is_only_comment(attribute.payload, kind, comment.as_ref()) {
        keep(extra, attribute);
    }
    comment
}

/// The entries of userdata: type and value.
pub(crate) fn read_udata(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[kind, length], rest) = bytes.split_first_chunk::<2>()?;
        let value = rest.get(..usize::from(length))?;
        bytes = rest.get(usize::from(length)..)?;
        Some((kind, value))
    })
}

/// Whether userdata consists of exactly what [`write_comment`] writes.
pub(crate) fn is_only_comment(bytes: &[u8], kind: u8, text: Option<&Comment>) -> bool {
    let mut written = Userdata::default();
    text.iter().for_each(|text| written.text(kind, text));
    written.as_bytes() == bytes
}

/// The comment in userdata.
pub(crate) fn read_comment(bytes: &[u8], kind: u8) -> Option<Comment> {
    let (_, text) = read_udata(bytes).find(|(found, _)| *found == kind)?;
    Some(Comment::observed(text.strip_suffix(b"\0").unwrap_or(text)))
}
