//! "DNS lookups take five seconds now and then, and insert_failed counts."
//!
//! A and AAAA must meet the node's conntrack at the same moment. They wait for ARP
//! in front of it, as they do where a neighbour entry has just expired, leave
//! together and are received in one poll.

use std::net::Ipv4Addr;

use lab::network::Host;
use lab::packet::offload;
use lab::prelude::*;

const CARD: Card = Card {
    name: "dns-five-seconds",
    title: "A and AAAA race through the DNAT of the DNS service, and one answer never comes",
    family: "conntrack races",
    saw: "DNS lookups in pods take 5 s now and then, sometimes 10 s or 15 s: \"DNS intermittent delays of \
          5s\", \"read udp 10.244.1.7:40925->10.96.0.10:53: i/o timeout\". The resolver sent A and AAAA at \
          the same time from one socket and got one answer. It does not happen with single-request-reopen. \
          Up to 5.5 \"conntrack -S\" counts insert_failed; the reports are from such kernels, which this \
          scenario was not run on. Since then the names are those whose answer takes longer than a second, \
          mostly those outside of the cluster, and clash_resolve grows (since 5.10).",
    cause: "Both questions are one flow, and when they come at the same moment - on two processors, or in one \
            poll of a network card - each gets an entry and a backend of its own. Up to 5.5 the second entry \
            clashes and its packet is dropped. Since 6a757c07e51f (5.6) the second entry is inserted for the \
            answers alone, and lives for 1 s whatever the timeouts are. An answer that takes longer, because \
            the backend has to ask others, is not translated back, and the resolver waits for its timeout.",
    function: "net/netfilter/nf_conntrack_core.c: nf_ct_resolve_clash_harder",
    cure: "single-request-reopen in resolv.conf (a socket for each question), or single-request (one after \
           the other); a cache on the node, which answers fast and whose own questions have a port each; \
           use-vc (TCP). One backend behind the service: then both entries are alike and become one. Not \
           cures: longer UDP timeouts; more attempts, which only follow when the 5 s are over.",
    reading: &[
        "kubernetes/kubernetes#56903: DNS intermittent delays of 5s; weaveworks/weave#3287; Azure/AKS#667",
        "71d8c47fc653 netfilter: conntrack: introduce clash resolution on insertion race (4.7)",
        "6a757c07e51f netfilter: conntrack: allow insertion of clashing entries (5.6)",
        "resolv.conf(5): single-request, single-request-reopen, use-vc, timeout, attempts",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the lookup", "answered at once"), |_| arms(), play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack])
        .lasts(|_| 2 * TIMEOUT + SLOW)
        .eras([
            Era::new("second-entry", "5.13 and later (run on 6.1 and later)", |env| {
                env.kernel.at_least(5, 13)
            })
            .since("6a757c07e51f (5.6) inserts the second entry, for a second and for answers alone"),
            Era::new("no-batches", "5.6 to 5.12", |env| env.kernel.at_least(5, 6))
                .since("the same; the race cannot be provoked here: a veth receives in batches since 5.13 (d3256efd8e8b)")
                .not_run(),
            Era::new("drops-the-second", "up to 5.5", |_| true)
                .since("71d8c47fc653 (4.7): the second packet is dropped where their translations differ")
                .not_run(),
        ])
}

const SERVICE: ([u8; 4], u16) = ([10, 96, 0, 10], 53);
const BACKENDS: [(&str, [u8; 4]); 2] = [("backend-a", [10, 0, 2, 2]), ("backend-b", [10, 0, 3, 2])];
const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const ARP_IGNORE: &str = "net.ipv4.conf.all.arp_ignore";
/// resolv.conf(5): the default timeout.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than nf_ct_resolve_clash_harder's entry lives, 1 s.
const SLOW: Duration = Duration::from_millis(1500);

fn service(name: &str, backend: usize) -> Rule {
    Rule::destination_nat(name, SERVICE, (BACKENDS[backend].1, SERVICE.1)).udp()
}

fn network() -> Topology {
    Topology::new()
        .host("client")
        .router("node")
        .hosts(["backend-a", "backend-b"])
        .link("client 10.0.1.2/24", "node 10.0.1.1/24")
        .link("node 10.0.2.1/24", "backend-a 10.0.2.2/24")
        .link("node 10.0.3.1/24", "backend-b 10.0.3.2/24")
        // In turn to both backends.
        .rule("node", service("every other", 0).one_in(2))
        .rule("node", service("the rest", 1))
        // It does not answer ARP until the play wants it to.
        .sysctl("node", ARP_IGNORE, 8)
        .sysctl("node", TIMEOUTS[0], 30)
        .sysctl("node", TIMEOUTS[1], 120)
}

const TIMEOUTS: [&str; 2] =
    ["net.netfilter.nf_conntrack_udp_timeout", "net.netfilter.nf_conntrack_udp_timeout_stream"];

/// The resolver's option in resolv.conf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResolverOption {
    None,
    SingleRequest,
    SingleRequestReopen,
}

#[derive(Debug, Clone)]
struct Conduct {
    /// The questions wait for ARP and come to the node together.
    together: bool,
    answers_take: Duration,
    option: ResolverOption,
}

fn arms() -> Arms<Conduct> {
    let base = Conduct { together: false, answers_take: SLOW, option: ResolverOption::None };
    Arms::control("A has passed the node when AAAA comes; answers take 1.5 s", network(), base)
        .fault("A and AAAA come to the node in the same moment", |arm| arm.together = true)
        .remedy("single-request-reopen", "a socket for each question", |arm| {
            arm.option = ResolverOption::SingleRequestReopen;
        })
        .remedy("single-request", "AAAA is asked when A is answered", |arm| {
            arm.option = ResolverOption::SingleRequest;
        })
        .remedy("fast-answers", "answers take no time, as from a cache", |arm| {
            arm.answers_take = Duration::ZERO;
        })
        .remedy("one-backend", "the service has one backend", |arm| {
            arm.rule("node", service("every other", 1));
        })
        .remedy("longer-timeouts", "nf_conntrack_udp_timeout and _stream are 300 s", |arm| {
            for key in TIMEOUTS {
                arm.sysctl("node", key, 300);
            }
        })
}

/// Asks A and AAAA, and waits for both answers.
async fn lookup(client: &UdpClient, other: &UdpClient, option: ResolverOption) -> Result<bool> {
    let replies = match option {
        ResolverOption::None => client.ask_together(TIMEOUT).await?,
        ResolverOption::SingleRequest => {
            let [a] = client.ask_together(TIMEOUT).await?;
            let [aaaa] = client.ask_together(TIMEOUT).await?;
            [a, aaaa]
        }
        ResolverOption::SingleRequestReopen => {
            let ([a], [aaaa]) = tokio::try_join!(client.ask_together(TIMEOUT), other.ask_together(TIMEOUT))?;
            [a, aaaa]
        }
    };
    Ok(replies == [Reply::Received; 2])
}

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    if !stage.env.kernel.at_least(5, 13) {
        let way = "up to 5.12 a veth delivers each packet before it receives the next";
        return Err(Error::missing("a veth that receives in batches (d3256efd8e8b, Linux 5.13)", way));
    }
    let (client, node) = (stage.host("client"), stage.host("node"));
    let [first, second] = BACKENDS.map(|(name, _)| UdpServer::start(stage.host(name), SERVICE.1));
    let backends = [first?, second?];
    for backend in &backends {
        backend.answer_after(conduct.answers_take);
    }
    let conntrack = Conntrack::of(node.namespace())?;
    let before = conntrack.stats()?;
    let sockets = [UdpClient::open(client, 0, SERVICE)?, UdpClient::open(client, 0, SERVICE)?];

    offload::switch_off(client.namespace(), "node")?;
    offload::receive_in_batches(node.namespace(), "client")?;
    if conduct.together {
        hold_for_arp(client)?;
    }
    let answer_arp = async {
        // The questions have been sent by now.
        tokio::task::yield_now().await;
        sysctl::set(node.namespace(), ARP_IGNORE, "0")
    };
    let ask = lookup(&sockets[0], &sockets[1], conduct.option);
    let (answered, ()) = tokio::try_join!(ask, answer_arp)?;
    let again = !answered && lookup(&sockets[0], &sockets[1], conduct.option).await?;
    let cell = match (answered, again) {
        (true, _) => "answered at once",
        (false, true) => "answered after the timeout",
        (false, false) => "not answered",
    };
    stage.observe("the lookup", cell);
    let after = conntrack.stats()?;
    let grown = |statistic: &Statistic| after.since(&before, *statistic) > 0;
    let counted = [Statistic::InsertFailed, Statistic::ClashResolve].into_iter().find(grown);
    stage.observe("conntrack counts", counted.map_or("nothing".to_owned(), |s| s.to_string()));
    let asked = backends.iter().filter(|backend| backend.received() > 0).count();
    stage.observe("backends that were asked", asked);
    stage.because(format!("the lookup was {cell}; {asked} backend(s) were asked"));
    Ok(())
}

/// Lets what the client sends wait for ARP. Its kernel asks every 100 ms, and sends
/// what waits in the softirq of the answer.
fn hold_for_arp(client: &Host) -> Result<()> {
    sysctl::set(client.namespace(), "net.ipv4.neigh.node.retrans_time_ms", "100")?;
    sysctl::set(client.namespace(), "net.ipv4.neigh.node.mcast_solicit", "100")?;
    neighbour::delete(client.namespace(), client.interface("node").index, NODE.into())
        .map_err(|e| Error::kernel(client.name(), "forget the node's neighbour entry", e))
}
