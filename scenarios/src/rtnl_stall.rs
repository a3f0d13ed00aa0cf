//! "`ip addr` hangs on the whole machine, and so does everything that touches a
//! network; the pods that run go on serving."
//!
//! All configuration of all namespaces goes through one mutex
//! (net/core/rtnetlink.c: rtnl_lock). A program that sleeps with it, here in a
//! copy from its own memory (net/ethtool/ioctl.c: ethtool_get_strings), stops
//! everybody else in state D. Data needs no RTNL. Nor do some questions: the
//! dump of addresses and of routes since 6.9, the lookup of a route since 4.14.

use std::time::Duration;

use lab::Result;
use lab::network::Namespace;
use lab::probe::{Answer, Attempt, Connect, Flow, RtnlHolder, Side, connect, link, listen};
use lab::scenario::{Arm, Card, Era, Fault, Need, Plan, Play, Recheck, Scenario, Symptom};
use lab::stage::Stage;
use lab::topology::Topology;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    fault: Fault {
        card: Card {
            name: "rtnl-stall",
            title: "One stuck process stops all network configuration of the machine",
            family: "teardown hangs",
            saw: "`ip`, `ifconfig`, `docker` and the CNI plugins hang in state D, in every namespace; \"INFO: task ip:1234 \
              blocked for more than 120 seconds\" with rtnl_lock on its stack. Running pods serve on.",
            cause: "A process sleeps while it holds the RTNL mutex: in a copy from or to its own memory whose page does \
                not come, or in a driver. There is one such mutex for all namespaces.",
            function: "net/core/rtnetlink.c: rtnl_lock, rtnetlink_rcv_msg",
            cure: "Find the one whose stack shows no rtnl_lock and end it: a page fault can be killed. What waits for \
               the mutex cannot. Asking again, or in another namespace, makes one more process wait.",
            reading: &[
                "cdb2f80f1c10 inet: use xa_array iterator to implement inet_dump_ifaddr() (6.9)",
                "4ce5dc9316de inet: switch inet_dump_fib() to RCU protection (6.9)",
                "62256f98f244 rtnetlink: add RTNL_FLAG_DOIT_UNLOCKED (4.14)",
                "userfaultfd(2)",
            ],
        },
        needs: &[Need::Veth, Need::Userfaultfd, Need::OwnKernel],
        wedges: true,
        // One mutex for the whole kernel.
        apart: |_| true,
        recheck: Recheck::Look,
        settings: &[],
        arms: &[
            Arm::control("nobody holds the RTNL mutex"),
            Arm::fault("a process holds the RTNL mutex and waits for a page of its memory"),
            Arm::remedy("end-the-holder", "that process is killed"),
            Arm::remedy("ask-again", "the one that waits is given up, and another asks"),
            Arm::remedy("ask-elsewhere", "everything is asked in another namespace"),
        ],
        eras: &[
            Era::new("dumps-under-rcu", "6.9 and later", |ground| ground.kernel.at_least(6, 9))
                .since("cdb2f80f1c10, 4ce5dc9316de: addresses and routes are listed without the RTNL mutex"),
            Era::new("dumps-under-rtnl", "4.14 to 6.8", |ground| ground.kernel.at_least(4, 14))
                .since("62256f98f244: a route is looked up without the RTNL mutex"),
            Era::new("all-under-rtnl", "up to 4.13", |_| true)
                .since("every request of rtnetlink is worked off under the RTNL mutex"),
        ],
        symptom: Symptom { row: "add a link", healthy: "works" },
        topology,
    },
    play: |stage| -> Play<'_> { Box::pin(play(stage)) },
};

/// What a healthy kernel needs at most, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

fn topology(_: &Plan<'_>) -> Topology {
    Topology::new()
        .host("node")
        .host("pod")
        .host("elsewhere")
        .host("culprit")
        .link("node 10.0.0.1/24", "pod 10.0.0.2/24")
        .link("node 10.0.1.1/24", "pod 10.0.1.2/24")
        .interfaces("old", "old")
        .link("elsewhere 10.0.2.1/24", "culprit 10.0.2.2/24")
        .link("elsewhere 10.0.3.1/24", "culprit 10.0.3.2/24")
        .interfaces("old", "old")
}

async fn play(stage: &Stage<'_>) -> Result<()> {
    let (node, pod) = (stage.host("node"), stage.host("pod"));
    let mut flow = Flow::open(pod, (node.address(), 80), node, 80).await?;
    let listener = listen(node, 81)?;
    let culprit = stage.host("culprit");
    let mut holder = if stage.faulty() { Some(RtnlHolder::hold(culprit, "elsewhere").await?) } else { None };
    let stack = holder.as_ref().and_then(RtnlHolder::sleeps_in).unwrap_or_default();
    if stage.is("end-the-holder")
        && let Some(holder) = holder.take()
    {
        holder.end().await;
    }

    let place = if stage.is("ask-elsewhere") { stage.host("elsewhere") } else { node };
    let there = pod.namespace().try_clone()?;
    let add = move |name: &'static str| {
        let there = there.try_clone();
        Attempt::begin(place, move |ns| there.is_ok_and(|t| link::add_veth(ns, name, &t, name).is_ok()))
    };
    let mut given_up = vec![];
    if stage.is("ask-again") {
        let mut first = add("first")?;
        first.within(PATIENCE).await;
        given_up.push(first);
    }
    let ask = |question: fn(&Namespace) -> bool| Attempt::begin(place, question);
    let mut asked = vec![
        ("add a link", add("new")?),
        ("delete a link", ask(|ns| link::delete(ns, "old").is_ok())?),
        ("list links", ask(|ns| link::list(ns).is_ok())?),
        ("list addresses", ask(|ns| link::addresses(ns).is_ok())?),
        ("list routes", ask(|ns| link::routes(ns).is_ok())?),
        ("look a route up", ask(|ns| link::route_to(ns, [127, 0, 0, 1].into()).is_ok())?),
        ("read /proc/net/dev", ask(|ns| ns.enter(|| std::fs::read("/proc/thread-self/net/dev")).is_ok())?),
        ("make a namespace", ask(|_| Namespace::new("new").is_ok())?),
    ];
    let works = |done: bool| if done { "works" } else { "waits" };
    for (row, attempt) in &mut asked {
        stage.see(row, works(attempt.within(PATIENCE).await == Some(&true)));
    }
    let spoken = flow.exchange(Side::Client, PATIENCE).await?;
    stage.see("an open connection", works(spoken == Answer::Received));
    let made = connect(pod, 0, (node.address(), 81), PATIENCE).await?;
    stage.see("a new connection", works(matches!(made, Connect::Connected { .. })));
    drop(listener);

    let Some(holder) = holder else { return Ok(()) };
    let look = async || {
        let (row, attempt) = &mut asked[0];
        stage.see(row, works(attempt.within(PATIENCE).await == Some(&true)));
    };
    stage.stays(look).await;
    let waited = stage.elapsed();
    let mut all = holder.end().await;
    for attempt in asked.iter_mut().map(|(_, attempt)| attempt).chain(&mut given_up) {
        all &= attempt.within(PATIENCE).await == Some(&true);
    }
    stage.see("after the holder's end", if all { "all is done" } else { "something waits" });
    let waited = waited.as_secs_f32();
    stage.because(format!("for {waited:.0} s a process held the RTNL mutex and slept in {stack}"));
    Ok(())
}
