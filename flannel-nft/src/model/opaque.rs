//! Attributes that this crate has no types for. It keeps them and writes them back unchanged.

/// Unknown attributes: type and payload.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Extra(pub(crate) Vec<(u16, Box<[u8]>)>);

impl Extra {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is an attribute of this type.
    pub(crate) fn has(&self, attribute: u16) -> bool {
        self.0.iter().any(|(kind, _)| *kind == attribute)
    }
}
