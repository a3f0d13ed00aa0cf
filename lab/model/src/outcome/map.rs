//! Cells, settings and evidence by name.

use std::fmt;

use serde::{Deserialize, Serialize};

use faultlab_base::limits;
use faultlab_base::text::Cell;

/// A map that keeps the order of insertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map<V>(pub Vec<(Cell, V)>);

impl<V> Default for Map<V> {
    fn default() -> Self {
        Self(vec![])
    }
}

impl<V> Map<V> {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&V> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Sets the value of a key, which keeps its position if it exists.
    pub fn insert(&mut self, key: impl Into<Cell>, value: impl Into<V>) {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some(entry) => entry.1 = value,
            None => self.0.push((key, value)),
        }
    }
}

impl<V> Map<Vec<V>> {
    /// Appends to the values of a key. Does nothing if there are no new values.
    pub fn extend(&mut self, key: &str, values: impl IntoIterator<Item = impl Into<V>>) {
        let mut values = values.into_iter().map(Into::into).peekable();
        if values.peek().is_none() {
            return;
        }
        match self.0.iter_mut().find(|(k, _)| k == key) {
            Some((_, known)) => known.extend(values),
            None => self.0.push((key.into(), values.collect())),
        }
    }
}

impl<V, K: Into<Cell>, W: Into<V>> FromIterator<(K, W)> for Map<V> {
    /// The keys must be distinct.
    fn from_iter<I: IntoIterator<Item = (K, W)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl<V: Serialize> Serialize for Map<V> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(k, v)| (k, v)))
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Map<V> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<V>(std::marker::PhantomData<V>);
        impl<'de, V: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<V> {
            type Value = Map<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut access: A) -> Result<Map<V>, A::Error> {
                let mut map = Map::default();
                while let Some((key, value)) = access.next_entry::<Cell, V>()? {
                    if map.0.len() == limits::ROWS {
                        let limit = format!("a map has more than {} entries", limits::ROWS);
                        return Err(serde::de::Error::custom(limit));
                    }
                    if map.get(&key).is_some() {
                        return Err(serde::de::Error::custom(format!("a map has the entry {key:?} twice")));
                    }
                    map.0.push((key, value));
                }
                Ok(map)
            }
        }
        deserializer.deserialize_map(Visitor(std::marker::PhantomData))
    }
}
