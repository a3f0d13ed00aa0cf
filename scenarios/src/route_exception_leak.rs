//! "unregister_netdevice: waiting for vethX to become free. Usage count = 19",
//! and nothing holds the device: the kernel leaked references.
//!
//! On one processor the message must arrive during the lookup, from the softirq
//! of netem's timer. 600 us of delay at 8 ns per instruction are about 75,000
//! instructions, a few rounds of the flood.

use lab::evidence::route_cache;
use lab::network::qdisc;
use lab::prelude::*;
use lab::probe::route;
use lab::topology::Net;

use crate::actors::path_mtu::{Lookups, Router, flood, of_one_bucket_elsewhere};
use crate::teardown::unregister_netdevice;

const CARD: Card = Card {
    name: "route-exception-leak",
    title: "The kernel loses references to a device, and waits for them until the next reboot",
    family: "teardown hangs",
    saw: "\"unregister_netdevice: waiting for vethX to become free. Usage count = 3\" every ten seconds, for \
          days. Every container of that device is gone, no process holds it, and pods of the node stay \
          Terminating until it is rebooted.",
    cause: "Path MTU messages create exceptions of a route; a full bucket drops its oldest. A lookup that \
            has just found that one binds a cached route to it while it is dropped: the route is in no table \
            any more, and keeps its reference to the device for ever. No process is involved.",
    function: "net/ipv4/route.c: fnhe_remove_oldest, find_exception, rt_bind_exception",
    cure: "A kernel that clears the address of what it drops: 6.18, 6.17.9, 6.12.59, 6.6.117, 6.1.159, \
           5.15.197, 5.10.247, 5.4.302. Elsewhere a reboot. Flushing the cache, waiting and ending processes \
           do nothing. /proc/net/stat/rt_cache shows the loss before anything hangs.",
    reading: &[
        "67d6d681e15b ipv4: make exception cache less predictible (5.15): the oldest is dropped, no more reused",
        "ac1499fcd40f ipv4: route: Prevent rt_bind_exception() from rebinding stale fnhe (6.18)",
        "CVE-2025-68241, with the stable kernels that had it and when they were fixed",
        "ee60ad219f5c route: set the deleted fnhe fnhe_daddr to 0 in ip_del_fnhe (5.1): the same for one that expires",
        "moby/moby#5618: unregister_netdevice: waiting for lo to become free",
    ],
};

const ERAS: &[Era] = &[
    Era::new("loses-the-dropped", "5.15 to 6.17, and stable kernels from 2021 on, until fixed", loses)
        .since("67d6d681e15b: the oldest exception is dropped, while a lookup may be binding a route to it"),
    Era::new("clears-the-dropped", CLEARING, |env| env.kernel.carries(CLEARS))
        .since("ac1499fcd40f: what is dropped has no address any more, so no lookup binds to it")
        .immune(),
    Era::new("reuses-the-oldest", "3.6 to 5.14 without the change of 2021, as 4.4.283", |_| true)
        .since("4895c771c7f0: the oldest exception is given the new address")
        .immune(),
];

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the device is freed", "yes"), |_| arms(), play)
        .needs([Need::Veth, Need::PacketSocket, Need::Netem, Need::KernelLog, Need::ExclusiveKernel])
        .guest_not_shared()
        // The limit on cached routes applies to the whole kernel.
        .sequential(|_| true)
        .recheck(Recheck::Never)
        .eras(ERAS)
}

/// The releases that drop the oldest exception, since 67d6d681e15b, and those
/// that clear it first, since ac1499fcd40f: CVE-2025-68241. No feature
/// distinguishes them. If this list is wrong about a kernel, the outcome is not
/// as expected.
const DROPS: &str = "4.4.284 4.9.283 4.14.247 4.19.207 5.4.146 5.10.65 5.13.17 5.14.4 5.15";
const CLEARING: &str =
    "6.18 and later, and stable kernels from 5.4.302, 5.10.247, 6.1.159, 6.6.117, 6.12.59 on";
const CLEARS: &str = "5.4.302 5.10.247 5.15.197 6.1.159 6.6.117 6.12.59 6.17.9 6.18";

fn loses(env: &Environment) -> bool {
    env.kernel.carries(DROPS) && !env.kernel.carries(CLEARS)
}

const BEHIND: &str = "172.16.0.0/12";

fn network() -> Topology {
    Topology::new()
        .hosts(["pod", "router"])
        .link("pod 10.0.0.1/24", "router 10.0.0.2/24")
        .interfaces("veth", "eth0")
        .own_device("veth")
        .route("pod", BEHIND, "10.0.0.2")
}

#[derive(Debug, Clone)]
struct Conduct {
    /// Whether the destinations share a bucket.
    one_bucket: bool,
    flush: bool,
    /// How long to wait before the device is deleted.
    wait: Duration,
    end: End,
}

/// How the device is deleted, and which sockets are open then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    IsDeleted,
    IsDeletedWithNothingOpen,
    ItsNamespaceDies,
}

fn arms() -> Arms<Conduct> {
    let base = Conduct { one_bucket: false, flush: false, wait: Duration::from_secs(1), end: End::IsDeleted };
    Arms::control("the destinations are spread over the buckets: no exception is dropped", network(), base)
        .fault("the destinations share a bucket: with each message an exception is dropped", |arm| {
            arm.one_bucket = true;
        })
        .remedy("flush", "the route cache is flushed before the delete, and again while it waits", |arm| {
            arm.flush = true;
        })
        // net.ipv4.route.mtu_expires is 600 s.
        .remedy("wait", "eleven minutes pass before the delete: every exception expires in ten", |arm| {
            arm.wait = Duration::from_secs(660);
        })
        .remedy("close-every-socket", "no program has anything open before the delete", |arm| {
            arm.end = End::IsDeletedWithNothingOpen;
        })
        // This arm is last, because it stops the worker that frees namespaces.
        .variant("namespace-dies", "the device is not deleted: its namespace dies", |arm| {
            arm.end = End::ItsNamespaceDies;
        })
}

/// More than the capacity of a bucket, 6 to 10.
const DESTINATIONS: usize = 16;
/// One message in a few hundred arrives in the middle of a lookup.
const MESSAGES: usize = 8192;

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (pod, at, device) = (stage.host("pod"), stage.host("router"), stage.own_device("veth"));
    let failed = |tried: &'static str| move |e| Error::kernel("pod", tried, e);
    let (between, behind) = (["router", "pod", "eth0"], || Net::parse(BEHIND).addresses());
    let same = stage.network().topology().clone();
    let shared = of_one_bucket_elsewhere(same, between, behind(), DESTINATIONS).await?;
    let destinations =
        if conduct.one_bucket { shared.to_vec() } else { behind().take(DESTINATIONS).collect() };
    let bystander = Namespace::new("bystander")?;
    link::add_veth(at.namespace(), "other", &bystander, "eth0").map_err(failed("add a link"))?;
    let sockets = (Router::new(stage.network(), "router", "pod", "eth0")?, Lookups::new(pod)?);
    // Receiving a message caches a route, whatever destination it is about:
    // cache it before counting.
    sockets.0.tell(at.address())?;
    // Wait until the networks of earlier arms are torn down, with their cached
    // routes.
    stage.pass(Duration::from_secs(2)).await;
    let before = route_cache::entries()?;

    qdisc::delay(at.namespace(), "eth0", Duration::from_micros(600))?;
    flood(&sockets.0, &sockets.1, &destinations, MESSAGES)?;
    let open = (conduct.end != End::IsDeletedWithNothingOpen).then_some(sockets);
    let flush =
        || if conduct.flush { sysctl::set(pod.namespace(), "net.ipv4.route.flush", "1") } else { Ok(()) };
    flush()?;
    stage.pass(conduct.wait).await;
    route::delete(pod.namespace(), Net::parse(BEHIND)).map_err(failed("delete the route"))?;
    stage.pass(Duration::from_secs(2)).await;
    let lost = route_cache::entries()?.saturating_sub(before);
    stage.observe("cached routes lost", if lost == 0 { "none" } else { "some" });

    // The request keeps the router's namespace open: the far end of the link is
    // freed after this one.
    let (name, far) = (device.clone(), at.namespace().try_clone()?);
    let mut delete = if conduct.end == End::ItsNamespaceDies {
        let dying = Namespace::new("dying")?;
        link::give(pod.namespace(), &device, &dying).map_err(failed("move the device"))?;
        None
    } else {
        Some(Attempt::begin(pod, move |ns| (link::delete(ns, &name), far))?)
    };
    let line = unregister_netdevice(stage, &device, true).await?;
    stage.observe("the kernel says that it waits", if line.is_some() { "yes" } else { "no" });
    flush()?;
    drop(bystander);
    let next = link::vanishes(at, "other", Duration::from_secs(15)).await;
    stage.observe("another namespace is freed", if next { "yes" } else { "no" });
    let freed = match &mut delete {
        Some(delete) => delete.within(Duration::ZERO).await.is_some(),
        // The worker continues with the next namespace once it has freed the
        // device.
        None => next,
    };
    stage.observe("the device is freed", if freed { "yes" } else { "no" });
    drop(open);
    let line = line.map_or(String::new(), |line| format!("; the kernel: {line}"));
    stage.because(format!("{MESSAGES} messages left {lost} cached routes that are in no table{line}"));
    Ok(())
}
