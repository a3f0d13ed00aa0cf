//! Errors of a scenario's author are reported as such, and not taken for a property of
//! the kernel.

use std::collections::BTreeMap;
use std::future::pending;

use faultlab_engine::run::ArmRun;
use faultlab_testkit::{alone_async, applicable};
use lab::evidence::kernel_reports::Opened;
use lab::kernel::Kernel;
use lab::outcome::{Machine, Verdict};
use lab::perform::{RunOptions, perform};
use lab::prelude::*;

faultlab_testkit::tests![faultlab_testkit::isolated::main:
    a_play_that_hangs_names_the_probe_and_the_host,
    a_play_that_hangs_in_no_probe_says_so,
    a_sysctl_that_no_kernel_has_fails_the_scenario,
];

const CARD: Card = Card::for_test("author", "An author's error");

fn network() -> Topology {
    Topology::new().hosts(["client", "server"]).link("client 10.0.0.1/24", "server 10.0.0.2/24")
}

fn environment(scenario: &Scenario) -> Environment {
    Environment::new(scenario, Kernel::running(), Clock::Real, &BTreeMap::new())
}

/// The error of a play whose time limit is zero, at its first wait.
async fn hangs(scenario: Scenario) -> String {
    let env = environment(&scenario);
    let reports = Opened::open(false).listen();
    let arms = scenario.scripted_on(&env, &[]);
    let run = applicable(ArmRun::set_up(&scenario, &env, &arms[0], &reports, None).await);
    run.within(Duration::ZERO, run.play()).await.expect_err("it hangs").to_string()
}

fn a_play_that_hangs_names_the_probe_and_the_host() {
    alone_async(async || {
        let arms = |_: &Environment| Arms::control("", network(), ()).fault("", |_| ());
        let scenario = Scenario::new(CARD, ("row", "cell"), arms, async |stage, ()| {
            // No host has this address: nothing answers ARP.
            let server = ([10, 0, 0, 99], 80);
            connect(stage.host("client"), 0, server, Duration::MAX).await.map(|_| ())
        });
        assert_eq!(
            hangs(scenario).await,
            "client: waited 0 s for the end of a probe: client connects to 10.0.0.99:80"
        );
    });
}

fn a_play_that_hangs_in_no_probe_says_so() {
    alone_async(async || {
        let arms = |_: &Environment| Arms::control("", network(), ()).fault("", |_| ());
        let scenario = Scenario::new(CARD, ("row", "cell"), arms, async |_, ()| pending().await);
        assert_eq!(hangs(scenario).await, "the play: waited 0 s for its own end, and no probe is running");
    });
}

fn a_sysctl_that_no_kernel_has_fails_the_scenario() {
    alone_async(async || {
        let arms = |_: &Environment| {
            let network = network().sysctl("client", "net.ipv4.tcp_keepalive_tme", 1);
            Arms::control("", network, ()).fault("", |_| ())
        };
        let scenario = Scenario::new(CARD, ("row", "cell"), arms, async |_, ()| Ok(()));
        let env = environment(&scenario);
        let options = RunOptions { machine: Machine::Here, only: &[], without_cause: false, capturing: None };
        let reports = Opened::open(false).listen();
        let outcome = applicable(perform(&scenario, &env, options, &reports, |_| None, &|_| {}).await);
        assert_eq!((outcome.verdict, outcome.expected), (Verdict::Failed, false), "{:?}", outcome.reason);
        assert_eq!(
            outcome.reason.as_deref(),
            Some(
                "client: the kernel has others of its kind, but no sysctl net.ipv4.tcp_keepalive_tme; did you mean \
                 net.ipv4.tcp_keepalive_time?"
            )
        );
    });
}
