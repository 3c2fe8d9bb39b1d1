//! What `/proc` says of this machine and of the threads of this process.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use serde::Serialize;

use crate::Result;

/// The machine the figures belong to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cores: usize,
    cpu: String,
    memory_mib: u64,
    kernel: String,
    /// Of uffd-rs, if this is a checkout.
    commit: Option<String>,
    /// The load average when the benchmarks began: what else was going on.
    load: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim());
            value.unwrap_or_default().to_owned()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let memory = memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok());
        let git = Command::new("git").args(["describe", "--always", "--dirty"]).output();
        let commit = git.ok().filter(|output| output.status.success());
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            memory_mib: memory.unwrap_or_default() >> 10,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            commit: commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            load: read("/proc/loadavg").trim().to_owned(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cores, cpu, memory_mib, kernel, commit, load } = self;
        let commit = commit.as_deref().unwrap_or("unknown");
        let gib = memory_mib >> 10;
        write!(f, "{cores} cores ({cpu}), {gib} GiB, Linux {kernel}, commit {commit}, load {load}")
    }
}

/// The threads of this process with this name.
pub(crate) fn threads(name: &str) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let tids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
    let named = |tid: &i32| {
        fs::read_to_string(format!("/proc/self/task/{tid}/comm"))
            .is_ok_and(|comm| comm.trim() == name)
    };
    tids.filter(named).collect()
}

/// The thread of this name that was not among `before`; it may be about to start.
pub(crate) fn new_thread(name: &str, before: &[i32]) -> Result<i32> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        if let Some(tid) = threads(name).into_iter().find(|tid| !before.contains(tid)) {
            return Ok(tid);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(format!("no thread {name} has started").into())
}

/// Memory of this process that is its own: anonymous, and shared without a file.
pub(crate) fn memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status
        .lines()
        .filter(|line| ["RssAnon:", "RssShmem:"].iter().any(|name| line.starts_with(name)));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

/// Raises the limit of open descriptors to `count`, as far as that is allowed.
pub(crate) fn allow_descriptors(count: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= count {
        return Ok(());
    }
    if hard < count {
        return Err(
            format!("{count} open descriptors are needed and {hard} allowed (ulimit -n)").into()
        );
    }
    Ok(setrlimit(Resource::RLIMIT_NOFILE, count, hard)?)
}

/// How busy the machine is with other things.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Others {
    begin: Instant,
    busy: Duration,
}

impl Others {
    /// From now on.
    pub(crate) fn watch() -> Self {
        Self { begin: Instant::now(), busy: busy_elsewhere() }
    }

    /// What all that is neither this process nor a guest took since then, in percent of all
    /// cores. Time that a hypervisor took away counts as well.
    pub(crate) fn percent(&self) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let whole = self.begin.elapsed().as_secs_f64() * cores as f64;
        100.0 * busy_elsewhere().saturating_sub(self.busy).as_secs_f64() / whole
    }
}

fn busy_elsewhere() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal, in hundredths of a second.
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|ticks| ticks.parse().ok()).collect();
    let busy = ticks.iter().take(8).sum::<u64>() - ticks.iter().skip(3).take(2).sum::<u64>();
    let own = [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].map(|who| {
        getrusage(who).map_or(0, |usage| {
            (usage.user_time() + usage.system_time()).num_microseconds().unsigned_abs()
        })
    });
    Duration::from_millis(busy * 10).saturating_sub(Duration::from_micros(own.iter().sum()))
}

/// Some of the cores.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cores {
    First,
    Others,
    FirstTwo,
}

/// Keeps a thread on these cores, where there are others.
pub(crate) fn pin(tid: i32, to: Cores) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores == 1 {
        return Ok(());
    }
    let allowed = match to {
        Cores::First => 0..1,
        Cores::Others => 1..cores,
        Cores::FirstTwo => 0..2,
    };
    let mut set = CpuSet::new();
    for core in allowed {
        set.set(core)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(tid), &set)?)
}

/// What threads used up so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Use {
    /// Their CPU time in nanoseconds.
    pub(crate) cpu: u64,
    /// Their context switches, voluntary or not.
    pub(crate) switches: u64,
    /// CPU time of this process in microseconds.
    pub(crate) process_cpu: u64,
}

impl Use {
    /// Of some threads of this process, and of all of it.
    pub(crate) fn now(threads: impl IntoIterator<Item = i32>) -> Self {
        let process_cpu = getrusage(UsageWho::RUSAGE_SELF).ok().map_or(0, |usage| {
            (usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
                .unsigned_abs()
        });
        let mut all = Self { process_cpu, ..Self::default() };
        for tid in threads {
            all.cpu += cpu_of(tid);
            all.switches += switches_of(tid);
        }
        all
    }

    /// What was used up since `before`.
    pub(crate) const fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            switches: self.switches.saturating_sub(before.switches),
            process_cpu: self.process_cpu.saturating_sub(before.process_cpu),
        }
    }
}

fn of_thread(tid: i32, file: &str) -> String {
    fs::read_to_string(format!("/proc/self/task/{tid}/{file}")).unwrap_or_default()
}

fn cpu_of(tid: i32) -> u64 {
    let schedstat = of_thread(tid, "schedstat");
    schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}

fn switches_of(tid: i32) -> u64 {
    let status = of_thread(tid, "status");
    let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
    lines.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum()
}
