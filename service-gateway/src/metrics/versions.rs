use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

/// As many versions of a service are counted apart, [`NONE`] and [`OTHER`] among them.
pub(super) const VERSIONS: usize = 34;

/// The number of those without a version.
const NONE: usize = 0;

/// The number of all versions that have none of their own.
pub(super) const OTHER: usize = 1;

/// Longer ones are not for labels.
const LONGEST: usize = 64;

/// Versions that are gone lose their numbers when fewer than this many numbers are free.
const MIN_FREE: usize = 16;

/// A number for each version of a service. Versions come from the registry, and writing there must not
/// fill the memory of those who count: only so many versions have a number at a time. Reading is free
/// of locks.
#[derive(Debug)]
pub(super) struct Versions {
    table: ArcSwap<Table>,
    /// Held while the table is replaced.
    writing: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Table {
    /// By number.
    slots: [Option<Slot>; VERSIONS],
    /// Of the last slot that was filled.
    generation: u64,
}

/// A version's number, as long as it has one.
#[derive(Clone, Debug)]
struct Slot {
    name: Arc<str>,
    generation: u64,
}

/// The number of a version, and how often numbers had been given when it got that: what was counted
/// under the same number before is another version's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) index: usize,
    pub(super) generation: u64,
}

impl Default for Versions {
    fn default() -> Self {
        let mut slots = [const { None }; VERSIONS];
        for (index, name) in [(NONE, ""), (OTHER, "other")] {
            let name = name.into();
            slots[index] = Some(Slot {
                name,
                generation: 0,
            });
        }
        let generation = 0;
        Self {
            table: ArcSwap::from_pointee(Table { slots, generation }),
            writing: Mutex::default(),
        }
    }
}

impl Versions {
    /// The number of a version. There are few, so comparing them all costs less than hashing one.
    pub(super) fn number(&self, version: Option<&str>) -> Number {
        let version = version.unwrap_or_default();
        if version.is_empty() {
            return Number::of(NONE);
        }
        if version.len() > LONGEST {
            return Number::of(OTHER);
        }
        let table = self.table.load();
        match table.find(version) {
            Some(number) => number,
            None if table.free() == 0 => Number::of(OTHER),
            None => self.add(version),
        }
    }

    fn add(&self, version: &str) -> Number {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        if let Some(number) = table.find(version) {
            return number; // another worker was faster
        }
        let Some(index) = table.slots.iter().position(Option::is_none) else {
            return Number::of(OTHER);
        };
        table.generation += 1;
        let generation = table.generation;
        let name = version.into();
        table.slots[index] = Some(Slot { name, generation });
        self.table.store(Arc::new(table));
        Number { index, generation }
    }

    /// Whether numbers are about to run out.
    pub(super) fn is_short(&self) -> bool {
        self.table.load().free() < MIN_FREE
    }

    /// Takes the numbers away from all versions but these.
    pub(super) fn retain(&self, known: &HashSet<&str>) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        for slot in &mut table.slots[OTHER + 1..] {
            slot.take_if(|slot| !known.contains(&*slot.name));
        }
        self.table.store(Arc::new(table));
    }

    /// The versions that have a number, in their order.
    pub(super) fn names(&self) -> Vec<(Number, Arc<str>)> {
        let table = self.table.load();
        let slots = table.slots.iter().enumerate();
        let names = slots.filter_map(|(index, slot)| {
            let Slot { name, generation } = slot.clone()?;
            Some((Number { index, generation }, name))
        });
        names.collect()
    }
}

impl Table {
    fn find(&self, version: &str) -> Option<Number> {
        let mut slots = self.slots.iter().enumerate();
        slots.find_map(|(index, slot)| {
            let slot = slot.as_ref().filter(|slot| *slot.name == *version)?;
            let generation = slot.generation;
            Some(Number { index, generation })
        })
    }

    fn free(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_none()).count()
    }
}

impl Number {
    /// One that is never given back.
    pub(super) fn of(index: usize) -> Self {
        let generation = 0;
        Self { index, generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(versions: &Versions, version: &str) -> usize {
        versions.number(Some(version)).index
    }

    #[test]
    fn a_version_keeps_its_number() {
        let versions = Versions::default();
        let numbers = [None, Some("v1"), Some("v2"), Some("v1"), Some("")];
        let numbers = numbers.map(|version| versions.number(version).index);
        assert_eq!(numbers, [0, 2, 3, 2, 0]);
        let names = versions.names();
        let names: Vec<_> = names.iter().map(|(_, name)| &**name).collect();
        assert_eq!(names, ["", "other", "v1", "v2"]);
    }

    #[test]
    fn what_is_too_much_shares_a_number() {
        let versions = Versions::default();
        assert_eq!(index(&versions, &"v".repeat(65)), OTHER);
        let numbers: Vec<_> = (0..100)
            .map(|n| index(&versions, &format!("v{n}")))
            .collect();
        assert_eq!(numbers[..32], (2..34).collect::<Vec<_>>());
        assert!(numbers[32..].iter().all(|number| *number == OTHER));
        assert_eq!(index(&versions, "v31"), 33);
        assert_eq!(index(&versions, "other"), OTHER, "no series twice");
    }

    #[test]
    fn a_gone_version_gives_its_number_back() {
        let versions = Versions::default();
        for n in 0..100 {
            let name = format!("v{n}");
            assert_ne!(index(&versions, &name), OTHER, "{name}");
            if versions.is_short() {
                versions.retain(&[name.as_str()].into());
            }
        }
        let before = versions.number(Some("v99"));
        versions.retain(&[].into());
        let after = versions.number(Some("w"));
        assert!(after.generation > before.generation);
        assert_eq!(versions.names().len(), 3);
    }
}
