//! "`ip addr` hangs on the whole machine, and so does everything that touches a
//! network. Running pods keep serving."
//!
//! The holder sleeps in a copy from its own memory (net/ethtool/ioctl.c:
//! ethtool_get_strings).

use lab::prelude::*;
use lab::probe::RtnlHolder;

use crate::teardown::{PATIENCE, works};

const CARD: Card = Card {
    name: "rtnl-stall",
    title: "One stuck process stops all network configuration of the machine",
    family: "teardown hangs",
    saw: "`ip`, `ifconfig`, `docker` and the CNI plugins hang in state D, in every namespace; \"INFO: task \
          ip:1234 blocked for more than 120 seconds\" with rtnl_lock on its stack. Running pods serve on.",
    cause: "A process sleeps while it holds the RTNL mutex: in a copy from or to its own memory whose page \
            does not come, or in a driver. There is one such mutex for all namespaces.",
    function: "net/core/rtnetlink.c: rtnl_lock, rtnetlink_rcv_msg",
    cure: "Find the one whose stack shows no rtnl_lock and end it: a page fault can be killed. What waits \
           for the mutex cannot. Asking again, or in another namespace, makes one more process wait.",
    reading: &[
        "cdb2f80f1c10 inet: use xa_array iterator to implement inet_dump_ifaddr() (6.9)",
        "4ce5dc9316de inet: switch inet_dump_fib() to RCU protection (6.9)",
        "62256f98f244 rtnetlink: add RTNL_FLAG_DOIT_UNLOCKED (4.14)",
        "userfaultfd(2)",
    ],
};

const ERAS: &[Era] = &[
    Era::new("dumps-under-rcu", "6.9 and later", |env| env.kernel.at_least(6, 9))
        .since("cdb2f80f1c10, 4ce5dc9316de: addresses and routes are listed without the RTNL mutex"),
    Era::new("dumps-under-rtnl", "4.14 to 6.8", |env| env.kernel.at_least(4, 14))
        .since("62256f98f244: a route is looked up without the RTNL mutex"),
    Era::new("all-under-rtnl", "up to 4.13", |_| true)
        .since("every request of rtnetlink is worked off under the RTNL mutex"),
];

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("add a link", "works"), |_| arms(), play)
        .needs([Need::Veth, Need::Userfaultfd, Need::ExclusiveKernel])
        .guest_not_shared()
        // One mutex for the whole kernel.
        .sequential(|_| true)
        .recheck(Recheck::Look)
        .eras(ERAS)
}

fn network() -> Topology {
    Topology::new()
        .hosts(["node", "pod", "elsewhere", "culprit"])
        .link("node 10.0.0.1/24", "pod 10.0.0.2/24")
        .link("node 10.0.1.1/24", "pod 10.0.1.2/24")
        .interfaces("old", "old")
        .link("elsewhere 10.0.2.1/24", "culprit 10.0.2.2/24")
        .link("elsewhere 10.0.3.1/24", "culprit 10.0.3.2/24")
        .interfaces("old", "old")
}

#[derive(Debug, Clone)]
struct Conduct {
    mutex_is_held: bool,
    holder_ends: bool,
    asks_again: bool,
    /// The namespace of the requests.
    at: &'static str,
}

fn arms() -> Arms<Conduct> {
    let base = Conduct { mutex_is_held: false, holder_ends: false, asks_again: false, at: "node" };
    Arms::control("nobody holds the RTNL mutex", network(), base)
        .fault("a process holds the RTNL mutex and waits for a page of its memory", |arm| {
            arm.mutex_is_held = true;
        })
        .remedy("end-the-holder", "that process is killed", |arm| arm.holder_ends = true)
        .remedy("ask-again", "the one that waits is given up, and another asks", |arm| {
            arm.asks_again = true;
        })
        .remedy("ask-elsewhere", "everything is asked in another namespace", |arm| {
            arm.at = "elsewhere";
        })
}

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (node, pod, place) = (stage.host("node"), stage.host("pod"), stage.host(conduct.at));
    let mut flow = Flow::open(pod, (node.address(), 80), node, 80).await?;
    let listener = listen(node, 81)?;
    let mut holder = None;
    if conduct.mutex_is_held {
        holder = Some(RtnlHolder::hold(stage.host("culprit"), "elsewhere").await?);
    }
    let stack = holder.as_ref().and_then(RtnlHolder::sleeps_in);
    if conduct.holder_ends
        && let Some(holder) = holder.take()
    {
        holder.end().await;
    }

    let there = pod.namespace().try_clone()?;
    let add = move |name: &'static str| {
        let there = there.try_clone();
        Attempt::begin(place, move |ns| there.is_ok_and(|t| link::add_veth(ns, name, &t, name).is_ok()))
    };
    let mut given_up = vec![];
    if conduct.asks_again {
        let mut first = add("first")?;
        first.within(PATIENCE).await;
        given_up.push(first);
    }
    let ask = |question: fn(&Namespace) -> bool| Attempt::begin(place, question);
    let mut asked = vec![
        ("add a link", add("new")?),
        ("delete a link", ask(|ns| link::delete(ns, "old").is_ok())?),
        ("list links", ask(|ns| link::list(ns).is_ok())?),
        ("list addresses", ask(|ns| address::list(ns).is_ok())?),
        ("list routes", ask(|ns| route::count(ns).is_ok())?),
        ("look a route up", ask(|ns| route::look_up(ns, [127, 0, 0, 1].into()).is_ok())?),
        ("read /proc/net/dev", ask(|ns| ns.enter(|| std::fs::read("/proc/thread-self/net/dev")).is_ok())?),
        ("make a namespace", ask(|_| Namespace::new("new").is_ok())?),
    ];
    let mut waiting = 0;
    for (row, attempt) in &mut asked {
        let done = attempt.within(PATIENCE).await == Some(&true);
        waiting += usize::from(!done);
        stage.observe(row, works(done));
    }
    let spoken = flow.exchange(Side::Client, PATIENCE).await?;
    stage.observe("an open connection", works(spoken == Answer::Received));
    let made = connect(pod, 0, (node.address(), 81), PATIENCE).await?;
    stage.observe("a new connection", works(matches!(*made, Connect::Connected { .. })));
    drop(listener);
    let (waited, all) = (stage.elapsed().as_secs_f32(), asked.len());
    let holder_slept =
        stack.map_or(String::new(), |at| format!("; the holder of the RTNL mutex slept in {at}"));
    stage.because(format!("after {waited:.0} s {waiting} of {all} requests still waited{holder_slept}"));

    let Some(holder) = holder else { return Ok(()) };
    let look = async || {
        let (row, attempt) = &mut asked[0];
        stage.observe(row, works(attempt.within(PATIENCE).await == Some(&true)));
    };
    stage.hold_for_shell(look).await;
    let mut all = holder.end().await;
    for attempt in asked.iter_mut().map(|(_, attempt)| attempt).chain(&mut given_up) {
        all &= attempt.within(PATIENCE).await == Some(&true);
    }
    stage.observe("after the holder's end", if all { "all is done" } else { "something waits" });
    Ok(())
}
