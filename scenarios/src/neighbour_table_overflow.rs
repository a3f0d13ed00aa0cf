//! "neighbour: arp_cache: neighbor table overflow!"

use std::net::Ipv4Addr;

use lab::evidence::kernel_log::Record;
use lab::prelude::*;

const CARD: Card = Card {
    name: "neighbour-table-overflow",
    title: "The neighbour table of the whole machine is full: connects to one more neighbour stall",
    family: "queues, tables and ports",
    saw: "\"neighbour: arp_cache: neighbor table overflow!\" in dmesg again and again, with \"net_ratelimit: \
          ... callbacks suppressed\", on a node of a large flat network or in the middle of a burst of new \
          pods. Connects to some addresses hang in SYN_SENT and go through seconds later, ping says \
          \"sendmsg: No buffer space available\" or \"Invalid argument\", `ip neigh add` says \"RTNETLINK \
          answers: No buffer space available\"; old neighbours answer. `arp -an | wc -l` shows few entries, \
          in this namespace.",
    cause: "Every address on the same link needs an entry of the neighbour table, and all network namespaces \
            share one table per address family. Beyond gc_thresh3 (1024 by default) a new entry needs the \
            place of an old one. An entry is not evicted while it is REACHABLE, 15 to 45 s after it was last \
            confirmed, nor, since 5.0, for 5 s after it last changed. Then there is no entry, and the packet \
            is dropped.",
    function: "net/core/neighbour.c: neigh_alloc, neigh_forced_gc",
    cure: "A larger net.ipv4.neigh.default.gc_thresh3 (and gc_thresh2, above which entries are collected \
           sooner), in the initial network namespace: the sysctl exists only there. A router between, which \
           is one neighbour for all behind it. A burst ends by itself, in a minute. Not a cure: gc_interval, \
           which is about the collection in the background.",
    reading: &[
        "kubernetes/kops#4533: arp_cache: neighbor table overflow!",
        "rtr7/router7#31: neighbour: arp_cache: neighbor table overflow!",
        "58956317c8de neighbor: improve garbage collection (5.0)",
        "arp(7): gc_thresh1, gc_thresh2, gc_thresh3, gc_interval",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("a connect() to one more neighbour", "connected"), arms, play)
        .needs([Need::Veth, Need::KernelLog, Need::ExclusiveKernel])
        // The thresholds apply to the whole kernel.
        .sequential(|_| true)
        .settings([Setting::number("limit", "the fault's gc_thresh3", "entries", LIMIT, [128, 128])])
        .lasts(|_| PATIENCE + BURST_OVER)
        .eras([
            Era::new("keeps-young-entries", "5.0 and later (run on 5.10 and later)", |env| {
                env.kernel.at_least(5, 0)
            })
            .since("58956317c8de: an entry is not evicted for 5 s after it changed"),
            Era::new("evicts-young-entries", "up to 4.20", |_| true)
                .since("an entry that nobody refers to is evicted, however young")
                .not_run(),
        ])
}

const LIMIT: Limit = Limit { most: 1024, why: "it is the kernel's default, and each entry needs an address" };

const THRESH3: &str = "net.ipv4.neigh.default.gc_thresh3";
const ROUTER: &str = "10.0.0.2";

/// The address of a pod, in 10.1.0.0/16.
fn pod(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a01_0001 + number)
}

/// More pods than entries, and one for the probe.
fn pods(env: &Environment) -> u32 {
    u32::try_from(env.number("limit")).unwrap_or(u32::MAX) * 5 / 4
}

/// All pods are on one host: what counts are their addresses. They belong to a second
/// interface, because the entries of a link's own addresses are permanent here.
fn network(env: &Environment) -> Topology {
    let addresses = (0..=pods(env)).fold(String::new(), |all, number| format!("{all} {}/32", pod(number)));
    Topology::new()
        .hosts(["node", "pods", "other-node", "other-pod"])
        .bridge("inner")
        .link("node 10.0.0.1/8", &format!("pods {ROUTER}/8"))
        .link("other-node 192.0.2.1/24", "other-pod 192.0.2.2/24")
        .link(&format!("pods{addresses}"), "inner")
        .link("other-pod 192.0.2.3/32", "inner")
        // As in the kernel's defaults, 128, 512 and 1024.
        .kernel_sysctl("net.ipv4.neigh.default.gc_thresh1", env.number("limit") / 8)
        .kernel_sysctl("net.ipv4.neigh.default.gc_thresh2", env.number("limit") / 2)
        .kernel_sysctl(THRESH3, 4 * env.number("limit"))
}

#[derive(Debug, Clone)]
struct Conduct {
    /// The time between the last new neighbour and the probe.
    wait: Duration,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let limit = env.number("limit");
    let base = Conduct { wait: Duration::ZERO };
    Arms::control("gc_thresh3 is larger than the number of neighbours", network(env), base)
        .fault("gc_thresh3 is smaller than the number of new neighbours", |arm| {
            arm.kernel_sysctl(THRESH3, limit);
        })
        .remedy("larger-table", "gc_thresh3 is sixteen times as large", |arm| {
            arm.kernel_sysctl(THRESH3, 16 * limit);
        })
        .remedy("router-between", "the node reaches the pods through one next hop", |arm| {
            arm.change(|network| network.route("node", "10.1.0.0/16", ROUTER));
        })
        .remedy("wait", "the burst has been over for 55 s", |arm| arm.wait = BURST_OVER)
        .remedy("gc-interval", "gc_interval=1", |arm| {
            arm.kernel_sysctl("net.ipv4.neigh.default.gc_interval", 1);
        })
}

/// Longer than an idle entry is REACHABLE, at most 1.5 times base_reachable_time (30 s),
/// and the 5 s after that.
const BURST_OVER: Duration = Duration::from_secs(55);
const PATIENCE: Duration = Duration::from_secs(3);
/// A RST from this port shows that the neighbour was reached, and fills no accept queue.
const NOT_LISTENED: u16 = 81;
/// For a neighbour that answers at once or not at all.
const SHORT: Duration = Duration::from_millis(5);

/// The entries of the kernel's table for IPv4: the first column of each line, one a
/// processor, in hexadecimal.
fn entries() -> Result<u64> {
    const TABLE: &str = "/proc/thread-self/net/stat/arp_cache";
    let text = std::fs::read_to_string(TABLE).map_err(|e| Error::kernel("the kernel", TABLE, e))?;
    let first = text.lines().nth(1).and_then(|line| line.split_whitespace().next());
    let entries = first.and_then(|number| u64::from_str_radix(number, 16).ok());
    entries.ok_or_else(|| Error::Lab(format!("{TABLE} has no number of entries")))
}

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (node, other_node) = (stage.host("node"), stage.host("other-node"));
    let _listeners = [listen(stage.host("pods"), 80)?, listen(stage.host("other-pod"), 80)?];
    let (pods, few) = (pods(stage.env), stage.env.number("limit") / 8);
    // The entries of the arm before are there until its namespaces are gone.
    stage.until("almost no entries in the neighbour table", || Ok(entries()? <= few)).await?;
    let mut reached = 0;
    for number in 0..pods {
        let met = connect(node, 0, (pod(number), NOT_LISTENED), SHORT).await?;
        reached += u32::from(matches!(*met, Connect::Refused));
    }
    stage.pass(conduct.wait).await;

    let old = connect(node, 0, (pod(0), 80), PATIENCE).await?;
    let one_more = connect(node, 0, (pod(pods), 80), PATIENCE);
    let elsewhere = connect(other_node, 0, ([192, 0, 2, 3], 80), PATIENCE);
    let (one_more, elsewhere) = tokio::try_join!(one_more, elsewhere)?;
    stage.observe("a connect() to one more neighbour", &one_more);
    stage.observe("to an old one", &old);
    stage.observe("in another namespace", &elsewhere);
    let overflow = |record: &Record| record.text.contains("table overflow").then(|| record.text.clone());
    let logged = stage.logged(overflow, Duration::ZERO).await?;
    let logged = logged.as_deref().unwrap_or("nothing");
    // No row: the kernel limits the rate of its line (net_ratelimit).
    stage.because(format!(
        "the node reached {reached} of {pods} new neighbours; one more: {}; an old one: {}; in another namespace: \
         {}; the kernel: {logged}",
        *one_more, *old, *elsewhere
    ));
    Ok(())
}
