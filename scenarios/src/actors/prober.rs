//! How Kubernetes decides from probes which container is ready and which is
//! restarted.
//!
//! - pkg/kubelet/prober/worker.go: newWorker, doProbe
//! - pkg/apis/core/v1/defaults.go: SetDefaults_Probe
//! - client-go/util/flowcontrol/backoff.go; kuberuntime_manager.go: doBackOff

use std::fmt;
use std::time::Duration;

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Readiness: the container receives traffic once the probe has succeeded.
    Readiness,
    /// Liveness: the container is restarted once the probe has failed.
    Liveness,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        })
    }
}

/// A probe as in a pod's manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// initialDelaySeconds: no probe before the container has run this long.
    pub initial_delay: Duration,
    /// periodSeconds.
    pub period: Duration,
    /// timeoutSeconds: for connecting, the request and the answer's header
    /// together.
    pub timeout: Duration,
    /// successThreshold: this many in a row; 1 for liveness.
    pub success_threshold: u32,
    /// failureThreshold: this many in a row.
    pub failure_threshold: u32,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 3,
        }
    }
}

/// One probe of one container, over all of its restarts.
#[derive(Debug)]
pub struct Worker {
    purpose: Purpose,
    spec: Spec,
    healthy: bool,
    last: Option<bool>,
    run: u32,
    on_hold: bool,
}

impl Worker {
    /// A probe of a container that was just started.
    #[must_use]
    pub fn new(purpose: Purpose, spec: Spec) -> Self {
        let healthy = purpose == Purpose::Liveness;
        Self { purpose, spec, healthy, last: None, run: 0, on_hold: false }
    }

    /// Its purpose.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Its specification.
    #[must_use]
    pub fn spec(&self) -> Spec {
        self.spec
    }

    /// The result after the thresholds, which the rest of the kubelet uses.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.healthy
    }

    /// A new container runs: the result is the initial one again. The number of
    /// equal results in a row is not reset.
    pub fn started(&mut self) {
        self.healthy = self.purpose == Purpose::Liveness;
        self.on_hold = false;
    }

    /// A probe was due, and the container did not run.
    pub fn not_running(&mut self) {
        self.healthy &= self.on_hold;
    }

    /// Whether a probe is made of a container that has run for this long. After
    /// a liveness probe has failed, none is made before the restart.
    #[must_use]
    pub fn probes(&self, running_for: Duration) -> bool {
        // Whole seconds: int32(time.Since(...).Seconds()) < InitialDelaySeconds.
        !self.on_hold && running_for.as_secs() >= self.spec.initial_delay.as_secs()
    }

    /// Records the result of a probe. Returns whether the container must be
    /// restarted.
    pub fn probed(&mut self, success: bool) -> bool {
        self.run = if self.last == Some(success) { self.run + 1 } else { 1 };
        self.last = Some(success);
        let threshold = if success { self.spec.success_threshold } else { self.spec.failure_threshold };
        if self.run < threshold {
            return false;
        }
        self.healthy = success;
        let restart = self.purpose == Purpose::Liveness && !success;
        if restart {
            self.on_hold = true;
            self.run = 0;
        }
        restart
    }
}

/// CrashLoopBackOff: how long the kubelet waits before it restarts a container
/// that keeps ending.
#[derive(Debug)]
pub struct BackOff {
    initial: Duration,
    most: Duration,
    /// The next wait, and when it was decided.
    next: Option<(Duration, Duration)>,
}

impl BackOff {
    /// `initial` is the first wait, 10 s in Kubernetes. The wait doubles up to
    /// 300 s, and is reset for a container that ran for more than twice that.
    #[must_use]
    pub fn new(initial: Duration) -> Self {
        Self { initial, most: Duration::from_secs(300), next: None }
    }

    /// When a container that ended at `finished` is started again. The first
    /// restart is immediate.
    pub fn start(&mut self, finished: Duration) -> Duration {
        let (start, wait) = match self.next {
            Some((wait, decided)) if finished.saturating_sub(decided) <= self.most * 2 => {
                (finished + wait, (wait * 2).min(self.most))
            }
            _ => (finished, self.initial),
        };
        self.next = Some((wait, start));
        start
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn readiness(success_threshold: u32, failure_threshold: u32) -> Worker {
        Worker::new(Purpose::Readiness, Spec { success_threshold, failure_threshold, ..Spec::default() })
    }

    fn liveness() -> Worker {
        Worker::new(Purpose::Liveness, Spec::default())
    }

    #[test]
    fn before_the_first_probe_a_container_lives_and_is_not_ready() {
        assert!(!readiness(1, 3).healthy());
        assert!(liveness().healthy());
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        let mut worker = readiness(2, 3);
        let beliefs: Vec<_> = [true, true, false, false, true, false, false, false, true, true]
            .into_iter()
            .map(|result| {
                worker.probed(result);
                worker.healthy()
            })
            .collect();
        assert_eq!(beliefs, [false, true, true, true, true, true, true, false, false, true]);
    }

    #[test]
    fn a_failed_liveness_probe_waits_for_the_next_container() {
        let mut worker = liveness();
        assert_eq!([false; 3].map(|result| worker.probed(result)), [false, false, true]);
        assert!(!worker.probes(SECOND) && !worker.healthy());
        worker.not_running();
        worker.started();
        assert!(worker.probes(Duration::ZERO) && worker.healthy());
        assert_eq!([false; 3].map(|result| worker.probed(result)), [false, false, true]);
    }

    #[test]
    fn a_new_container_is_not_ready_and_its_failures_go_on_counting() {
        let mut worker = readiness(1, 3);
        worker.probed(true);
        worker.probed(false);
        worker.probed(false);
        assert!(worker.healthy());
        worker.not_running();
        assert!(!worker.healthy());
        worker.started();
        worker.probed(true);
        assert!(worker.healthy());
    }

    #[test]
    fn the_initial_delay_is_whole_seconds() {
        let spec = Spec { initial_delay: 2 * SECOND, ..Spec::default() };
        let worker = Worker::new(Purpose::Liveness, spec);
        assert!(!worker.probes(Duration::from_millis(1999)));
        assert!(worker.probes(2 * SECOND));
    }

    #[test]
    fn the_back_off_doubles_and_is_forgotten() {
        let mut back_off = BackOff::new(10 * SECOND);
        let mut now = Duration::ZERO;
        let mut waits = vec![];
        for run in [1, 1, 1, 1, 1, 1, 1, 601, 1] {
            now += run * SECOND;
            let start = back_off.start(now);
            waits.push(start.saturating_sub(now).as_secs());
            now = start;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 0, 10]);
    }

    proptest! {
        #[test]
        fn a_restart_needs_as_many_failures_in_a_row(
            results in proptest::collection::vec(any::<bool>(), 0..40),
            failure_threshold in 1_u32..6,
        ) {
            let spec = Spec { failure_threshold, ..Spec::default() };
            let mut worker = Worker::new(Purpose::Liveness, spec);
            let mut in_a_row = 0;
            for result in results {
                in_a_row = if result { 0 } else { in_a_row + 1 };
                let restart = worker.probed(result);
                prop_assert_eq!(restart, in_a_row == failure_threshold);
                if restart {
                    worker.started();
                    in_a_row = 0;
                }
            }
        }
    }
}
