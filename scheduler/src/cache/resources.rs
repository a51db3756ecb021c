//! Amounts of resources as integers, so that comparing nodes costs no parsing.

use std::collections::BTreeMap;

use meta::quantity::Quantity;

/// CPU in thousandths, memory and storage in bytes, the rest in whole units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Extended resources and huge pages; sorted by name, seldom any.
    pub scalars: Vec<(Box<str>, i64)>,
}

impl Resources {
    pub fn of(quantities: &BTreeMap<String, Quantity>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in quantities {
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.milli_value(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                "pods" => {}
                _ => resources
                    .scalars
                    .push((name.as_str().into(), quantity.value())),
            }
        }
        resources
    }

    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars
            .iter()
            .find(|(n, _)| &**n == name)
            .map_or(0, |(_, amount)| *amount)
    }

    pub fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_add(b));
    }

    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_sub(b));
    }

    /// The larger of both, resource by resource.
    pub fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            match self.scalars.iter_mut().find(|(n, _)| n == name) {
                Some((_, mine)) => *mine = with(*mine, *amount),
                None => self.scalars.push((name.clone(), with(0, *amount))),
            }
        }
    }

    /// Takes `other`'s amounts of the resources that `named` names.
    pub fn replace(&mut self, other: &Self, named: &BTreeMap<String, Quantity>) {
        for name in named.keys() {
            match name.as_str() {
                "cpu" => self.milli_cpu = other.milli_cpu,
                "memory" => self.memory = other.memory,
                name => {
                    let amount = other.scalar(name);
                    match self.scalars.iter_mut().find(|(n, _)| &**n == name) {
                        Some((_, mine)) => *mine = amount,
                        None => self.scalars.push((name.into(), amount)),
                    }
                }
            }
        }
    }
}
