//! The common parts of the scenarios in which hosts with different timestamp
//! clocks share one address: the hosts, and the server's check of
//! tcp_tw_recycle, either the kernel's own or its model on a wire.

use std::cell::Cell;

use lab::kernel::Kernel;
use lab::prelude::*;
use lab::scenario::Values;
use lab::wire::tw_recycle::{self, TwRecycle, TwRecycleHandle};

/// Removed in 4.12; up to 4.10 it applies to all namespaces.
pub const RECYCLE: &str = "net.ipv4.tcp_tw_recycle";
/// 2 means 1 without a random offset per connection (4.10 and later).
pub const TIMESTAMPS: &str = "net.ipv4.tcp_timestamps";
/// How far apart two hosts' timestamps are, in ticks of their clock. From 4.13 on
/// a tick is a millisecond, and this is an hour. Before, a tick is a jiffy, and
/// this is 3,600,000/HZ s: an hour with HZ=1000, four with HZ=250. The check
/// compares ticks.
pub const TICKS_APART: u32 = 3_600_000;

/// Two hosts, host-b behind a wire, that reach the server through a router. The
/// scenario adds what lies between the router and the server.
pub fn two_hosts() -> Topology {
    Topology::new()
        .host("host-a")
        .host("host-b")
        .router("nat")
        .host("server")
        .link("host-a 10.0.1.2/24", "nat 10.0.1.1/24")
        .wire("host-b 10.0.2.2/24", "nat 10.0.2.1/24")
        // The hosts have the machine's timestamp clock; the wire shifts that of
        // host-b.
        .sysctl_where_known("host-a", TIMESTAMPS, 2)
        .sysctl_where_known("host-b", TIMESTAMPS, 2)
}

/// The model of the check that answers SYNs without timestamps.
const MODEL_UP_TO_3_16: &str = "model-mainline-3.16";

/// Which check applies, and how long a timestamp stays valid.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "recycle",
        about: "whose check: the kernel's own, or on a wire the model of 3.17 to 4.11 and RHEL 7, or that of \
                mainline up to 3.16",
        values: Values::Choice(&["kernel", "model", MODEL_UP_TO_3_16]),
    },
    Setting::seconds("paws-window", "how long a stamp counts; a kernel's own is always 60", 8, 60),
];

/// The eras of the check.
pub const ERAS: &[Era] = &[
    Era::new("model", "3.17 to 4.11 and RHEL 7, as a model: --set recycle=model", |env| {
        env.word("recycle") == "model"
    })
    .since("their check, on a wire in front of the server; any kernel below it"),
    Era::new(MODEL_UP_TO_3_16, "mainline up to 3.16, as a model: --set recycle=model-mainline-3.16", |env| {
        env.word("recycle") == MODEL_UP_TO_3_16
    })
    .since("their check, on a wire in front of the server; any kernel below it"),
    Era::new("answers-without-timestamps", "up to 3.16, but not RHEL 7", |env| {
        env.kernel.has_sysctl(RECYCLE) && answers_without_timestamps(&env.kernel)
    })
    .since(
        "a SYN without timestamps is not checked; the model of these kernels agrees with 304 answers \
         recorded from mainline 3.10",
    )
    .not_run(),
    Era::new("has-tcp-tw-recycle", "3.17 to 4.11, and RHEL 7", |env| env.kernel.has_sysctl(RECYCLE))
        .since("a26552afe894 drops a SYN without timestamps too; RHEL 7's 3.10 has it"),
    // An older kernel may hide the sysctl from this namespace. It is not
    // recognised here, so the scenario needs a kernel of its own.
    Era::new("gone", "4.12 and later", |env| env.kernel.at_least(4, 12))
        .since("4396e46187ca removed the sysctl and the check")
        .immune(),
];

/// Whether the check of this kernel, if it has one, lets SYNs without
/// timestamps pass.
fn answers_without_timestamps(kernel: &Kernel) -> bool {
    // RHEL 7 and CentOS 7 (3.10.0-1160.el7) have a26552afe894.
    !kernel.at_least(3, 17) && !kernel.release.contains(".el7")
}

fn modelled(env: &Environment) -> bool {
    env.word("recycle") != "kernel"
}

/// Whether the server checks at all, in the kernel or in the model.
pub fn recycles(env: &Environment) -> bool {
    modelled(env) || env.kernel.has_sysctl(RECYCLE)
}

/// Whether arms must run sequentially, because the kernel's sysctl is global.
pub fn sequential(env: &Environment) -> bool {
    !modelled(env) && env.kernel.has_sysctl(RECYCLE)
}

/// The value of the server's tcp_tw_recycle when the incident begins.
pub fn knob(env: &Environment) -> u8 {
    u8::from(!modelled(env))
}

/// What the server's administrator does during the incident.
#[derive(Debug, Clone, Copy)]
pub enum Measure {
    None,
    RecycleOff,
    TimestampsOff,
}

/// The tcp_tw_recycle check of a server.
pub struct Check<'a> {
    stage: &'a Stage<'a>,
    server: &'a Host,
    model: Option<TwRecycleHandle>,
    /// Whether the kernel's sysctl is on.
    on: Cell<bool>,
}

impl<'a> Check<'a> {
    /// Puts the model, or a wire that changes nothing, between a router and the
    /// server.
    pub fn of(stage: &'a Stage<'a>, router: &str, server: &str) -> Result<Self> {
        let rule = match stage.env.word("recycle") {
            MODEL_UP_TO_3_16 => tw_recycle::Rule::UpTo3_16,
            _ => tw_recycle::Rule::From3_17,
        };
        let model = if modelled(stage.env) {
            let (policy, model) = TwRecycle::new(rule, Direction::There);
            model.set_paws_window(stage.env.seconds("paws-window"));
            stage.wire(router, server, policy)?;
            Some(model)
        } else {
            stage.wire(router, server, policy::Pass)?;
            None
        };
        let on = Cell::new(model.is_none());
        Ok(Self { stage, server: stage.host(server), model, on })
    }

    /// Applies a measure on the server.
    pub fn take(&self, measure: Measure) -> Result<()> {
        let (key, off): (_, fn(&TwRecycleHandle)) = match measure {
            Measure::None => return Ok(()),
            Measure::RecycleOff => (RECYCLE, |model| model.set_recycle(false)),
            Measure::TimestampsOff => (TIMESTAMPS, |model| model.set_timestamps(false)),
        };
        self.on.set(self.on.get() && key != RECYCLE);
        self.model.iter().for_each(off);
        sysctl::set_where_known(self.server.namespace(), key, "0")
    }

    /// Runs `what` while `other` has tcp_tw_recycle=0. If the sysctl is global, it is
    /// off for the server as well until this returns; the server keeps its timestamps.
    pub async fn sparing<T>(&self, other: &Host, what: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
        sysctl::set_where_known(other.namespace(), RECYCLE, "0")?;
        let happened = what().await;
        if self.on.get() {
            sysctl::set_where_known(self.server.namespace(), RECYCLE, "1")?;
        }
        happened
    }

    /// When a timestamp recorded now has certainly expired. Timestamps count whole
    /// seconds, so this is one second more than the window.
    pub fn expiry(&self) -> Duration {
        self.stage.elapsed() + self.stage.env.seconds("paws-window") + Duration::from_secs(1)
    }

    /// Waits until `expiry`, a time since the network was set up.
    pub async fn expired(&self, expiry: Duration) {
        self.stage.pass(expiry.saturating_sub(self.stage.elapsed())).await;
    }

    /// Records whether PAWSPassive increased while `client` connected.
    pub fn see(&self, client: &str) -> Result<()> {
        let (passive, who) = match &self.model {
            Some(model) => {
                (i64::try_from(model.counters().paws_passive).ok(), "the model of the server's check")
            }
            None => (self.stage.counters(self.server.name())?.get("PAWSPassive"), "the server"),
        };
        let cell = match passive {
            None => "no such counter",
            Some(0) => "did not move",
            Some(_) => "moved",
        };
        self.stage.observe("PAWSPassive", cell);
        if let Some(dropped) = passive.filter(|n| *n > 0) {
            self.stage
                .because(format!("{who} dropped {dropped} SYN(s) of {client} (PAWSPassive +{dropped})"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rhel_7_is_not_mainline_3_10() {
        for (release, answers) in [
            ("2.6.32-754.el6.x86_64", true),
            ("3.10.17", true),
            ("3.16.0-11-amd64", true),
            ("3.10.0-1160.el7.x86_64", false),
            ("3.17.8", false),
            ("4.9.337", false),
        ] {
            let mut kernel = Kernel::running();
            kernel.release = release.to_owned();
            assert_eq!(answers_without_timestamps(&kernel), answers, "{release}");
        }
    }
}
