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

    pub(crate) fn remove(&mut self, attribute: u16) {
        self.0.retain(|(kind, _)| *kind != attribute);
    }

    /// The attributes up to this type, which is the last that this crate knows. Later ones, of a
    /// newer kernel, are preserved but not compared: a caller cannot have chosen them. An empty
    /// attribute stands for the absence of one that this crate would write.
    pub(crate) fn known(&self, last: u16) -> impl Iterator<Item = &(u16, Box<[u8]>)> {
        self.0.iter().filter(move |(kind, payload)| *kind <= last && !payload.is_empty())
    }

    /// Whether both have the same attributes up to this type.
    pub(crate) fn same(&self, other: &Self, last: u16) -> bool {
        self.known(last).eq(other.known(last))
    }
}
