//! Every scenario, by what it is about.

mod autoscaling;
mod budgets;
mod claims;
mod cronjobs;
mod daemonsets;
mod deployments;
mod garbage;
mod jobs;
mod migrations;
mod namespaces;
mod nodes;
mod policies;
mod pools;
mod replicasets;
mod selinux;
mod servers;
mod services;
mod statefulsets;
mod templates;
mod topology;
mod trustbundles;
mod volumes;

use std::future::Future;

use futures::future::BoxFuture;

use super::World;

/// Something that happens in a namespace.
pub struct Scenario {
    /// `subject/what-happens`.
    pub name: String,
    pub play: Box<dyn Fn(World) -> BoxFuture<'static, ()> + Send + Sync>,
    /// Every life of a manager begins its work anew: before one that is killed after every few
    /// writes it has no end.
    pub whole: bool,
}

/// Where scenarios are written down.
#[derive(Default)]
pub struct Book(Vec<Scenario>);

impl Book {
    /// One scenario.
    pub fn add<F>(
        &mut self,
        name: impl Into<String>,
        play: impl Fn(World) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.push(Scenario {
            name: name.into(),
            play: Box::new(move |world| Box::pin(play(world))),
            whole: false,
        });
    }

    /// The scenarios that are added by it are done in one life of a manager.
    pub fn whole(&mut self, add: impl FnOnce(&mut Self)) {
        let before = self.0.len();
        add(self);
        self.0[before..].iter_mut().for_each(|s| s.whole = true);
    }

    /// A scenario with what is special about it.
    pub fn with<P, F>(
        &mut self,
        name: impl Into<String>,
        of: P,
        play: impl Fn(World, P) -> F + Send + Sync + 'static,
    ) where
        P: Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.add(name, move |world| play(world, of.clone()));
    }
}

/// All of them.
pub fn all() -> Vec<Scenario> {
    let mut book = Book::default();
    // Those that wait longest begin first.
    cronjobs::write(&mut book);
    migrations::write(&mut book);
    nodes::write(&mut book);
    autoscaling::write(&mut book);
    budgets::write(&mut book);
    claims::write(&mut book);
    daemonsets::write(&mut book);
    deployments::write(&mut book);
    garbage::write(&mut book);
    jobs::write(&mut book);
    namespaces::write(&mut book);
    policies::write(&mut book);
    pools::write(&mut book);
    replicasets::write(&mut book);
    selinux::write(&mut book);
    servers::write(&mut book);
    services::write(&mut book);
    statefulsets::write(&mut book);
    topology::write(&mut book);
    trustbundles::write(&mut book);
    volumes::write(&mut book);
    book.0
}

/// Those whose names contain one of some words; all when there are no words.
pub fn chosen(mut scenarios: Vec<Scenario>, only: &[String]) -> Vec<Scenario> {
    let wanted = |name: &str| only.iter().any(|word| name.contains(word.as_str()));
    scenarios.retain(|scenario| only.is_empty() || wanted(&scenario.name));
    scenarios
}
