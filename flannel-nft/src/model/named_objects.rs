//! Objects in order, found by name in constant time.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use crate::model::chain::Chain;
use crate::model::set::Set;
use crate::model::table::Counter;

pub(crate) trait Named {
    fn name(&self) -> &str;
}

impl Named for Chain {
    fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl Named for Set {
    fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl Named for Counter {
    fn name(&self) -> &str {
        self.name.as_str()
    }
}

/// Objects of a table, in order. Names are unique: an object replaces the object of the same name.
///
/// Code that changes an object in place must keep its name.
#[derive(Clone, Debug)]
pub(crate) struct ByName<T> {
    items: Vec<T>,
    places: HashMap<Box<str>, usize>,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self { items: Vec::new(), places: HashMap::new() }
    }
}

impl<T: Named> ByName<T> {
    pub(crate) fn find(&self, name: &str) -> Option<&T> {
        self.places.get(name).and_then(|place| self.items.get(*place))
    }

    pub(crate) fn find_mut(&mut self, name: &str) -> Option<&mut T> {
        self.places.get(name).and_then(|place| self.items.get_mut(*place))
    }

    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// Adds the object at the end, or in the place of the object of the same name, which it
    /// returns.
    pub(crate) fn insert(&mut self, item: T) -> Option<T> {
        if let Some(old) = self.find_mut(item.name()) {
            return Some(std::mem::replace(old, item));
        }
        self.places.insert(item.name().into(), self.items.len());
        self.items.push(item);
        None
    }

    /// Removes an object in constant time: the last object takes its place.
    pub(crate) fn remove(&mut self, name: &str) -> Option<T> {
        let place = self.places.remove(name)?;
        let removed = self.items.swap_remove(place);
        if let Some(moved) = self.items.get(place)
            && let Some(to) = self.places.get_mut(moved.name())
        {
            *to = place;
        }
        Some(removed)
    }
}

impl<T> ByName<T> {
    pub(crate) fn into_vec(self) -> Vec<T> {
        self.items
    }
}

impl<T> Deref for ByName<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<T> DerefMut for ByName<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items
    }
}

impl<'a, T> IntoIterator for &'a ByName<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl<T: Named> FromIterator<T> for ByName<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut all = Self::default();
        for item in items {
            all.insert(item);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChainName, Comment};

    #[test]
    fn names_stay_findable_when_objects_are_replaced_and_removed() {
        let chain = |name: &str| Chain::regular(ChainName::new(name).unwrap());
        let mut chains: ByName<Chain> = ["a", "b", "c"].into_iter().map(chain).collect();
        assert!(chains.insert(chain("b").comment(Comment::new("new").unwrap())).is_some());
        assert!(chains.remove("a").is_some() && chains.remove("a").is_none());
        chains.insert(chain("d"));
        let names: Vec<&str> = chains.iter().map(|chain| chain.name.as_str()).collect();
        assert_eq!(names, ["c", "b", "d"]);
        for name in names {
            assert_eq!(chains.find(name).unwrap().name.as_str(), name);
        }
        assert!(chains.find("b").unwrap().comment.is_some() && chains.find("a").is_none());
    }
}
