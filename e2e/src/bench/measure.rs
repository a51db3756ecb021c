//! The two sides, and how work on them is measured: in turns, by the kernel's account
//! of the server's process.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::report::{Report, Result as CaseResult};
use super::{Options, seed};
use crate::stand::pki::Pki;
use crate::stand::{Apiserver, Connection, Endpoint, Etcd, copy_tree, etcd};

/// One API server over its own etcd.
pub struct Side {
    /// `ours` or `theirs`.
    pub name: &'static str,
    /// Its etcd.
    pub etcd: Etcd,
    /// The server.
    pub api: Apiserver,
    /// Where it is.
    pub endpoint: Endpoint,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headline {
    /// CPU time per operation.
    Cpu,
    /// Time per operation.
    Wall,
    /// The median operation's time.
    P50,
    /// The time that one operation of a hundred exceeds.
    P99,
    /// Resident memory.
    Resident,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its row in the list of goals.
    pub row: &'static str,
    /// What is done.
    pub what: String,
    /// What is compared.
    pub headline: Headline,
    /// The wanted ratio of theirs to ours, when there is one.
    pub goal: Option<f64>,
    /// What is wanted besides.
    pub also: Option<(Headline, f64)>,
    /// Whether the first turn only warms up.
    pub warm_up: bool,
}

impl Case {
    /// A case that is compared by CPU, after a warm-up.
    pub fn cpu(row: &'static str, what: impl Into<String>, goal: f64) -> Self {
        Self {
            row,
            what: what.into(),
            headline: Headline::Cpu,
            goal: Some(goal),
            also: None,
            warm_up: true,
        }
    }

    /// A further ratio that is wanted.
    pub fn also(self, what: Headline, goal: f64) -> Self {
        Self {
            also: Some((what, goal)),
            ..self
        }
    }
}

/// What work reports of itself.
#[derive(Debug, Default)]
pub struct Work {
    /// How many operations it was.
    pub operations: u64,
    /// How long each took, where that was taken.
    pub latencies: Vec<Duration>,
    /// What both sides must have answered alike.
    pub answer: String,
}

/// One turn of one side.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Operations.
    pub operations: u64,
    /// CPU time of the server per operation.
    pub cpu: Duration,
    /// Time per operation.
    pub wall: Duration,
    /// The median operation.
    pub p50: Duration,
    /// The slowest but one in a hundred.
    pub p99: Duration,
    /// Resident memory: the peak during the work, or, where memory is the headline,
    /// as the case says. Bytes.
    pub resident: u64,
    /// What both sides must have answered alike.
    pub answer: String,
}

impl Side {
    /// A new connection of the administrator's.
    ///
    /// # Errors
    ///
    /// When the server does not listen.
    pub async fn connect(&self) -> Result<Connection> {
        self.endpoint.connect().await
    }

    /// etcd itself.
    ///
    /// # Errors
    ///
    /// When it does not listen.
    pub async fn gateway(&self) -> Result<etcd::Gateway> {
        self.etcd.gateway(0).await
    }

    /// `kill -9` and a start; returns at once.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.api.kill();
        self.api.start()
    }

    /// Measures work on the running server.
    ///
    /// # Errors
    ///
    /// When the work fails, or the server ends.
    pub async fn measure(&self, work: impl AsyncFnOnce() -> Result<Work>) -> Result<Sample> {
        let process = self.api.process();
        process.forget_peak()?;
        let (cpu, start) = (process.cpu()?, Instant::now());
        let work = work().await?;
        let (wall, used) = (start.elapsed(), process.cpu()? - cpu);
        let mut latencies = work.latencies;
        latencies.sort_unstable();
        let divided = |time: Duration| time.div_f64(work.operations.max(1) as f64);
        Ok(Sample {
            operations: work.operations,
            cpu: divided(used),
            wall: divided(wall),
            p50: part(&latencies, 0.5),
            p99: part(&latencies, 0.99),
            resident: process.peak()?,
            answer: work.answer,
        })
    }
}

/// The value below which a part of sorted values are.
pub fn part(sorted: &[Duration], part: f64) -> Duration {
    let at = (sorted.len() as f64 * part) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(at.min(last)).copied().unwrap_or_default()
}

/// Both sides, running, and what was measured so far.
pub struct Bench {
    /// As given.
    pub options: Options,
    /// Ours, and theirs when there is one.
    pub sides: Vec<Side>,
    /// Bytes of all pods in etcd.
    pub stored: u64,
    /// Where things are kept.
    pub directory: std::path::PathBuf,
    /// Certificates.
    pub pki: Pki,
    report: Report,
    _temporary: Option<TempDir>,
}

impl Bench {
    /// Makes the data, copies it for each side and starts the servers.
    pub(super) async fn start(options: Options) -> Result<Self> {
        let (directory, temporary) = match &options.work {
            Some(directory) => (directory.clone(), None),
            None => {
                let temporary = tempfile::tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        std::fs::create_dir_all(&directory)?;
        let pki = Pki::make(&directory.join("pki"))?;
        let seed = seed::make(&options, &directory, &pki).await?;
        let mut bench = Self {
            sides: Vec::new(),
            stored: seed.stored,
            report: Report::new(&options),
            options,
            directory,
            pki,
            _temporary: temporary,
        };
        let mut binaries = vec![("ours", bench.options.ours.clone())];
        if let Some(theirs) = &bench.options.theirs {
            binaries.push(("theirs", theirs.clone()));
        }
        for (name, bin) in binaries {
            let home = bench.directory.join(name);
            if home.exists() {
                std::fs::remove_dir_all(&home)?;
            }
            copy_tree(&seed.data, &home.join("m0/data"))?;
            let mut side = bench.side(name, &bin)?;
            side.etcd.start().await?;
            side.api.start()?;
            side.api
                .ready(&side.endpoint)
                .await
                .with_context(|| name.to_owned())?;
            bench.sides.push(side);
        }
        Ok(bench)
    }

    /// A side with its files below a directory of that name, not started.
    ///
    /// # Errors
    ///
    /// When there are no free ports.
    pub fn side(&self, name: &'static str, bin: &std::path::Path) -> Result<Side> {
        let home = self.directory.join(name);
        std::fs::create_dir_all(&home)?;
        let etcd = Etcd::new(&home, 1, &etcd_flags(&self.options))?;
        let log = home.join("kube-apiserver.log");
        let flags = &self.options.flag;
        let api = Apiserver::new(bin, &etcd.servers(), &self.pki, &log, flags)?;
        Ok(Side {
            name,
            endpoint: Endpoint::new(api.port, &self.pki)?,
            etcd,
            api,
        })
    }

    /// Measures one case: every side in turn, as often as asked for.
    ///
    /// # Errors
    ///
    /// None of the work's own: a case that fails is reported as failed.
    pub async fn case(
        &mut self,
        case: Case,
        mut turn: impl AsyncFnMut(&mut Side, usize) -> Result<Sample>,
    ) -> Result<()> {
        self.cases(vec![case], async |side, pair| {
            Ok(vec![turn(side, pair).await?])
        })
        .await
    }

    /// Measures several cases with the same turns.
    ///
    /// # Errors
    ///
    /// Likewise.
    pub async fn cases(
        &mut self,
        cases: Vec<Case>,
        mut turn: impl AsyncFnMut(&mut Side, usize) -> Result<Vec<Sample>>,
    ) -> Result<()> {
        let mut results: Vec<_> = cases.into_iter().map(CaseResult::new).collect();
        let warm_up = usize::from(results.iter().any(|result| result.case.warm_up));
        'turns: for pair in 0..self.options.pairs + warm_up {
            for side in &mut self.sides {
                let taken = turn(side, pair).await.and_then(|samples| {
                    // A server that has gone has not answered rightly.
                    side.api.process().resident()?;
                    Ok(samples)
                });
                match taken {
                    Ok(samples) if pair >= warm_up => {
                        for (result, sample) in results.iter_mut().zip(samples) {
                            result.add(side.name, sample);
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        for result in &mut results {
                            result.failed = Some(format!("{}: {error:#}", side.name));
                        }
                        break 'turns;
                    }
                }
            }
        }
        for result in results {
            self.report.add(result);
        }
        Ok(())
    }

    /// A case that was measured once, on all sides at the same time.
    pub fn once(&mut self, case: Case, samples: &[Sample]) {
        let mut result = CaseResult::new(case);
        for (side, sample) in self.sides.iter().zip(samples) {
            result.add(side.name, sample.clone());
        }
        self.report.add(result);
    }

    /// A line that was measured in a way of its own.
    pub fn note(&mut self, row: &str, text: String) {
        self.report.note(row, text);
    }

    /// Prints the table and writes the file.
    pub(super) fn finish(mut self) -> Result<()> {
        for side in &mut self.sides {
            side.api.kill();
            side.etcd.stop()?;
        }
        self.report.print();
        if let Some(out) = &self.options.out {
            std::fs::write(out, format!("{:#}\n", self.report.json()))?;
        }
        Ok(())
    }
}

/// Flags of every etcd of a benchmark.
pub(super) fn etcd_flags(options: &Options) -> Vec<&'static str> {
    let mut flags = vec!["--quota-backend-bytes=8589934592"];
    if !options.fsync {
        flags.push("--unsafe-no-fsync");
    }
    flags
}
