//! What came of all rounds.

use crate::host::Machine;
use crate::measure::{Measure, Metric, Spread};
use crate::target::Target;
use crate::targets;
use crate::workloads::Workload;

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) quick: bool,
    pub(crate) pinned: bool,
    pub(crate) rounds: u64,
    /// Seconds since 1970.
    pub(crate) at: u64,
    /// What other work took of the machine meanwhile, in percent.
    pub(crate) others: f64,
    pub(crate) workloads: Vec<WorkloadResults>,
}

/// The rounds of a workload.
#[derive(Debug)]
pub(crate) struct WorkloadResults {
    pub(crate) workload: Workload,
    pub(crate) contenders: Vec<ContenderResults>,
}

/// The rounds of a contender, in order.
#[derive(Debug)]
pub(crate) struct ContenderResults {
    pub(crate) name: &'static str,
    pub(crate) rounds: Vec<Measure>,
}

impl WorkloadResults {
    pub(crate) fn contender(&self, name: &str) -> Option<&ContenderResults> {
        self.contenders.iter().find(|contender| contender.name == name)
    }
}

impl ContenderResults {
    /// A metric over the rounds.
    pub(crate) fn spread(&self, metric: Metric) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| round.get(metric)))
    }
}

impl Results {
    pub(crate) fn workload(&self, name: &str) -> Option<&WorkloadResults> {
        self.workloads.iter().find(|results| results.workload.name == name)
    }

    /// The figure of a target in each round, if its workload was run.
    pub(crate) fn figure(&self, target: &Target) -> Option<Spread> {
        let Target { workload, metric, of, against, .. } = *target;
        match against {
            Some(against) => self.ratio(workload, metric, of, against),
            None => self.workload(workload)?.contender(of)?.spread(metric),
        }
    }

    /// The ratio of two contenders in each round.
    pub(crate) fn ratio(
        &self,
        workload: &str,
        metric: Metric,
        of: &str,
        against: &str,
    ) -> Option<Spread> {
        let workload = self.workload(workload)?;
        let (of, against) = (workload.contender(of)?, workload.contender(against)?);
        let pairs = of.rounds.iter().zip(&against.rounds);
        Spread::of(pairs.filter_map(|(of, against)| Some(of.get(metric)? / against.get(metric)?)))
    }

    /// All targets whose workload was run.
    pub(crate) fn figures(&self) -> impl Iterator<Item = (&'static Target, Spread)> {
        targets::ALL.iter().filter_map(|target| Some((target, self.figure(target)?)))
    }
}
