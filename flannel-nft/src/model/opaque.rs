//! What the kernel gave and this crate does not understand: kept, and written back unchanged.

/// Attributes that we do not know, as they came.
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
