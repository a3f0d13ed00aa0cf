//! A stand-in for a kubelet that has its network set up by CNI plugins.
//!
//! Two loops of the kubelet contend for one lock per pod. A teardown takes the
//! lock of its pod, and has a child process, the plugin, delete the pod's link.
//! Once a second, the relist of the pod lifecycle event generator
//! (pkg/kubelet/pleg/generic.go) queries the state of the sandboxes and, under
//! the same lock, the address in each
//! (pkg/kubelet/dockershim/network/plugins.go: TearDownPod and
//! GetPodNetworkStatus). This stand-in queries all pods; the kubelet queries
//! only those that changed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use lab::Result;
use lab::network::Host;
use lab::probe::{Attempt, Child, Life, address, link};
use lab::stage::Stage;
use tokio::sync::Mutex;

/// pkg/kubelet/kubelet.go: plegRelistPeriod.
const PERIOD: Duration = Duration::from_secs(1);
/// How soon a process is gone after it was killed, if it can be killed.
const GRACE: Duration = Duration::from_millis(200);
/// Longer than any play.
const EVER: Duration = Duration::from_secs(86_400);

/// The agent of a node.
pub struct NodeAgent<'a> {
    stage: &'a Stage<'a>,
    pods: Vec<Pod<'a>>,
    /// When the last relist began.
    active: Cell<Duration>,
    longest: Cell<Duration>,
    relists: Cell<u32>,
}

struct Pod<'a> {
    sandbox: &'a Host,
    /// The node's end of its veth pair.
    link: String,
    lock: Mutex<()>,
    plugin: RefCell<Option<Rc<Child>>>,
}

impl<'a> NodeAgent<'a> {
    /// An agent with pods, each given by the name of its host and the name of its
    /// link on the node.
    pub fn new(stage: &'a Stage<'a>, pods: &[(&str, &str)]) -> Self {
        let pod = |&(name, link): &(&str, &str)| Pod {
            sandbox: stage.host(name),
            link: link.to_owned(),
            lock: Mutex::default(),
            plugin: RefCell::default(),
        };
        Self {
            stage,
            pods: pods.iter().map(pod).collect(),
            active: Cell::new(stage.elapsed()),
            longest: Cell::default(),
            relists: Cell::default(),
        }
    }

    /// Relists every second, for ever.
    pub async fn relist(&self) -> Result<std::convert::Infallible> {
        loop {
            self.active.set(self.stage.elapsed());
            for pod in &self.pods {
                let _lock = pod.lock.lock().await;
                let mut ask = Attempt::begin(pod.sandbox, |ns| address::list(ns).is_ok())?;
                ask.within(EVER).await;
            }
            self.longest.set(self.longest());
            self.relists.set(self.relists.get() + 1);
            self.stage.pass(PERIOD).await;
        }
    }

    /// Waits until two more relists have ended.
    ///
    /// # Errors
    /// If they do not end.
    pub async fn two_relists(&self) -> Result<()> {
        let wanted = self.relists.get() + 2;
        self.stage.until("two more relists", || Ok(self.relists.get() >= wanted)).await
    }

    /// The time since the last relist began; about a second on a healthy node.
    pub fn last_active(&self) -> Duration {
        self.stage.elapsed().saturating_sub(self.active.get())
    }

    /// The duration of the longest relist, including one that is still running.
    pub fn longest(&self) -> Duration {
        self.longest.get().max(self.last_active())
    }

    /// Tears down a pod's network. Without a deadline it waits until the plugin
    /// ends, and does not reap it. With a deadline it kills the plugin then,
    /// reaps it if it has ended, and returns false if it has not.
    pub async fn tear_down(&self, pod: usize, deadline: Option<Duration>) -> Result<bool> {
        let pod = &self.pods[pod];
        let _lock = pod.lock.lock().await;
        let child = link::delete_in_child(self.stage.host("node"), &pod.link, c"cni-plugin")?;
        let plugin = Rc::new(child);
        // The first plugin is the one that is observed.
        pod.plugin.borrow_mut().get_or_insert_with(|| Rc::clone(&plugin));
        let mut ended = plugin.ends_within(deadline.unwrap_or(EVER)).await;
        if deadline.is_some() {
            plugin.kill();
            ended |= plugin.ends_within(GRACE).await;
            // The result does not matter: deleting a missing link is not an error
            // (CNI specification, DEL).
            plugin.reap();
        }
        Ok(ended)
    }

    /// The cell for the result of a teardown; `None` if it has not ended.
    pub fn met(teardown: Option<bool>) -> &'static str {
        match teardown {
            None => "waits",
            Some(true) => "done",
            Some(false) => "given up",
        }
    }

    /// The first plugin that was to delete a pod's link.
    pub fn plugin(&self, pod: usize) -> Option<Rc<Child>> {
        self.pods[pod].plugin.borrow().clone()
    }

    /// Records the state of the plugin's process in a row.
    pub async fn see_plugin(&self, pod: usize, row: &str) {
        let Some(plugin) = self.plugin(pod) else { return };
        match plugin.at_rest().await {
            Life::Unknown => self.stage.cannot_observe(row, "/proc is of another pid namespace"),
            life => self.stage.observe(row, life),
        }
    }

    /// The node's condition: not ready if the last relist began longer ago than a
    /// threshold.
    pub fn node(&self, threshold: Duration) -> &'static str {
        if self.last_active() > threshold { "NotReady" } else { "Ready" }
    }

    /// The kubelet's message (pkg/kubelet/pleg/generic.go: Healthy).
    pub fn health(&self, threshold: Duration) -> String {
        let (active, limit) = (go(self.last_active()), go(threshold));
        if self.last_active() > threshold {
            format!("PLEG is not healthy: pleg was last seen active {active} ago; threshold is {limit}")
        } else {
            format!("the longest relist took {}", go(self.longest()))
        }
    }
}

/// A duration in whole seconds, as Go prints it: 3m0s.
pub fn go(duration: Duration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
