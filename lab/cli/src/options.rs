//! The arguments of `run`: as given, and as used.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::selection;
use super::shard::{Part, Shard};
use faultlab_engine::catalogue::Catalogue;
use faultlab_engine::scenario::Scenario;
use faultlab_engine::stage::CaptureOptions;
use faultlab_machine::job::Job;
use faultlab_model::outcome::{Outcome, Verdict};
use faultlab_model::scenario::{Clock, Need};
use faultlab_report::pcapng::Frames;

/// The default of `--jobs` on the running kernel. A scenario mostly waits for kernel timers,
/// so it is independent of the number of processors.
const JOBS: u16 = 8;

/// What can be typed.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag that is typed or is not")]
pub struct Run {
    /// Scenarios to run; all of them where none is named
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Run in a virtual machine of this kernel: an id of `faultlab kernel list`, or a bzImage;
    /// several make a matrix
    #[arg(long, value_name = "ID|FILE")]
    kernel: Vec<String>,
    /// Run only this variant or remedy, beside control and fault; without SCENARIO, of the scenarios that
    /// have it
    #[arg(long, value_name = "NAME")]
    arm: Vec<String>,
    /// Change a setting of a scenario; `faultlab show` lists them. A duration is in seconds, or has a unit:
    /// 90, 15min, 1.5h, "2d 12h"
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Let a virtual machine follow the wall's clock, with KVM where that works
    #[arg(long, requires = "kernel")]
    real_time: bool,
    /// Seed of a virtual machine's randomness: another one gives other ports, sequence numbers and races
    #[arg(long, value_name = "N", default_value_t = 1, requires = "kernel")]
    seed: u64,
    /// Write the packets of every arm into a pcapng file in this directory, for Wireshark: each once, as it
    /// was sent, and again where a host translated its addresses or a wire changed it
    #[arg(long, value_name = "DIR")]
    pcap: Option<PathBuf>,
    /// Write each packet at both ends of every link; Wireshark reports the second copy as a retransmission
    #[arg(long, requires = "pcap")]
    pcap_both_ends: bool,
    /// Say why each arm met what the control did not: the packet, the part of the kernel that decided
    /// over it, and what that counted or said. An outcome that is not as expected, or has no reference for
    /// its values, says so unasked
    #[arg(long)]
    why: bool,
    /// Do not look on: by default every arm's frames and conntrack's events are captured in memory, within
    /// bounds, to explain what is not as expected
    #[arg(long, conflicts_with_all = ["pcap", "why", "ladder", "report"])]
    no_captures: bool,
    /// Draw the packets of control and fault, or of the arms that --arm names
    #[arg(long, conflicts_with_all = ["json", "ktap"])]
    ladder: bool,
    /// Write a report of one HTML file into this directory, with what --why says
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Take the cause away: the fault arm gets the network and the conduct of the control, and must then reproduce nothing
    #[arg(long, conflicts_with_all = ["arm", "bisect"])]
    without_cause: bool,
    /// Scenarios, or virtual machines, to run side by side
    /// [default: 8 scenarios, or a virtual machine per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    /// Run only the I-th of N equal parts of the matrix; `faultlab merge` puts the parts' JSON together
    #[arg(long, value_name = "I/N", value_parser = Shard::parse)]
    shard: Option<Shard>,
    /// Print a line of JSON for each outcome
    #[arg(long, conflicts_with = "ktap")]
    json: bool,
    /// Print KTAP, a kernel's test format
    #[arg(long)]
    ktap: bool,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write what each virtual machine's kernel printed into a file of this directory
    #[arg(long, value_name = "DIR", requires = "kernel")]
    console: Option<PathBuf>,
    /// For `git bisect run`: exit 1 where the fault is reproduced (or, with `immune`, where it is not), 0 where it is
    /// not, 125 where this kernel cannot tell
    #[arg(long, value_name = "BAD", num_args = 0..=1, require_equals = true, default_missing_value = "reproduced")]
    pub(super) bisect: Option<Bad>,
}

/// What is bad, for `git bisect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bad {
    /// The fault is there.
    Reproduced,
    /// The fault is gone.
    Immune,
}

impl Bad {
    /// The exit status for `git bisect run`: 0 good, 1 bad, 125 undecided.
    ///
    /// It depends on whether the fault arm shows the symptom, not on what is expected of the
    /// kernel version: in the middle of a bisection the version says little.
    #[must_use]
    pub fn status(self, outcomes: &[&Outcome]) -> u8 {
        let shown = |outcome: &&Outcome| match outcome.verdict {
            Verdict::Reproduced => Some(true),
            Verdict::Immune => Some(false),
            Verdict::NotApplicable => None,
            // The control is healthy, and the fault made no difference.
            Verdict::Failed => outcome.fault().and_then(|f| f.symptom).filter(|_| outcome.control_is_healthy),
        };
        let shown: Option<Vec<bool>> = outcomes.iter().map(shown).collect();
        match shown.filter(|s| !s.is_empty()) {
            None => 125,
            Some(shown) => u8::from(shown.iter().any(|&s| s == (self == Self::Reproduced))),
        }
    }
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Tables.
    Text,
    /// A JSON object per outcome.
    Json,
    /// KTAP version 1.
    Ktap,
}

/// The checked arguments.
#[derive(Debug)]
pub struct Options {
    /// The scenarios, in the order of the catalogue.
    pub scenarios: Vec<&'static Scenario>,
    /// The kernels to boot; empty for the running one.
    pub kernels: Vec<String>,
    /// The clock that the kernel's timers follow.
    pub clock: Clock,
    /// The seed of the guests' randomness.
    pub seed: u64,
    /// The variants and remedies to run; empty for all.
    pub only: Vec<String>,
    /// The values that `--set` gives.
    pub set: selection::Values,
    /// Whether the fault arms get the network and the conduct of the control.
    pub without_cause: bool,
    /// How many scenarios run in parallel on the running kernel.
    pub jobs: usize,
    /// How many guests run in parallel.
    pub guests: usize,
    /// The part of the matrix to run.
    pub shard: Option<Shard>,
    /// The output format.
    pub format: Format,
    /// Where to write a JUnit report.
    pub junit: Option<PathBuf>,
    /// Where to write captures.
    pub pcap: Option<PathBuf>,
    /// Which frames to write to captures.
    pub frames: Frames,
    /// What to capture; `None` disables captures.
    pub capturing: Option<CaptureOptions>,
    /// Whether to print ladders.
    pub ladder: bool,
    /// Where to write a report.
    pub report: Option<PathBuf>,
    /// Where to write the console logs of guests.
    pub console: Option<PathBuf>,
    /// What counts as bad, if the exit status is for `git bisect run`.
    pub bisect: Option<Bad>,
    /// Whether a scenario that cannot run is a failure (FAULTLAB_REQUIRE_ALL=1).
    pub require_all: bool,
}

impl Options {
    /// The job of a worker or a guest for a scenario.
    #[must_use]
    pub fn job(&self, scenario: &Scenario) -> Job {
        Job::Run {
            scenario: scenario.card.name.to_owned(),
            only: self.only.clone(),
            set: selection::of(scenario, &self.set),
            without_cause: self.without_cause,
            capturing: self.capturing,
        }
    }

    /// Describes the shard, for the JSON lines; `None` without `--shard`.
    pub(super) fn part(&self) -> Option<Part> {
        let cells = self.scenarios.len() * self.kernels.len().max(1);
        let asked = (
            self.scenarios.iter().map(|s| s.card.name).collect::<Vec<_>>(),
            &self.kernels,
            (self.clock == Clock::Virtual).then_some(self.seed),
            (&self.only, &self.set, self.without_cause),
        );
        Some(Part::of(self.shard?, cells, &format!("{asked:?}")))
    }
}

impl Run {
    /// Checks all arguments before anything runs.
    ///
    /// # Errors
    /// One sentence that names what is wrong and what would be valid.
    pub fn options(self, catalogue: &Catalogue) -> Result<Options, String> {
        let scenarios = selection::scenarios(catalogue, &self.scenarios, &self.arm)?;
        let set = selection::settings(&scenarios, &self.set)?;
        self.check_time(&scenarios, &set)?;
        if self.kernel.is_empty() {
            selection::arms_apply(&scenarios, &self.arm, &set)?;
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let mut kernels = vec![];
        for kernel in self.kernel {
            if !kernels.contains(&kernel) {
                kernels.push(kernel);
            }
        }
        Ok(Options {
            scenarios,
            clock: if self.real_time || kernels.is_empty() { Clock::Real } else { Clock::Virtual },
            kernels,
            seed: self.seed,
            only: self.arm,
            set,
            without_cause: self.without_cause,
            jobs: usize::from(self.jobs.unwrap_or(JOBS)),
            guests: self.jobs.map_or(processors, usize::from),
            shard: self.shard,
            format: match (self.json, self.ktap) {
                (true, _) => Format::Json,
                (_, true) => Format::Ktap,
                _ => Format::Text,
            },
            junit: self.junit,
            capturing: (!self.no_captures).then_some(CaptureOptions {
                captures: self.pcap.is_some() || self.ladder || self.report.is_some(),
                explains: self.why || self.report.is_some(),
            }),
            pcap: self.pcap,
            frames: if self.pcap_both_ends { Frames::BothEnds } else { Frames::AsSent },
            ladder: self.ladder,
            report: self.report,
            console: self.console,
            bisect: self.bisect,
            require_all: std::env::var_os("FAULTLAB_REQUIRE_ALL").is_some_and(|v| v == "1"),
        })
    }

    /// Checks that no scenario takes more than an hour of real time.
    fn check_time(&self, scenarios: &[&Scenario], set: &selection::Values) -> Result<(), String> {
        let here = self.kernel.is_empty();
        let otherwise = match (here, self.real_time) {
            (true, _) => "with --kernel ID it runs in virtual time",
            (false, true) => "without --real-time it runs in virtual time",
            (false, false) => return Ok(()),
        };
        let runs = |scenario: &&&Scenario| !(here && scenario.needs.contains(&Need::ExclusiveKernel));
        let mut run = scenarios.iter().filter(runs);
        run.try_for_each(|scenario| selection::is_short(scenario, &self.arm, set, otherwise))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use faultlab_report::made::column;

    #[test]
    fn a_bisection_looks_at_the_fault_and_not_at_the_version() {
        let of = |verdict, symptom, healthy| {
            let mut outcome = column("k", verdict, "reset", true).outcomes.remove(0);
            outcome.arms[1].symptom = symptom;
            outcome.control_is_healthy = healthy;
            outcome
        };
        for (outcome, reproduced_is_bad, immune_is_bad) in [
            (of(Verdict::Reproduced, Some(true), true), 1, 0),
            (of(Verdict::Immune, Some(false), true), 0, 1),
            (of(Verdict::Failed, Some(false), true), 0, 1),
            (of(Verdict::Failed, Some(false), false), 125, 125),
            (of(Verdict::Failed, None, true), 125, 125),
            (of(Verdict::NotApplicable, None, true), 125, 125),
        ] {
            assert_eq!(Bad::Reproduced.status(&[&outcome]), reproduced_is_bad);
            assert_eq!(Bad::Immune.status(&[&outcome]), immune_is_bad);
        }
        assert_eq!(Bad::Reproduced.status(&[]), 125);
    }
}
