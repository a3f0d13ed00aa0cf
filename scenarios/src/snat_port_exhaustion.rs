//! "New connections to that one server time out; to any other they work."

use std::ops::RangeInclusive;

use lab::prelude::*;
use lab::topology::rule::Choice;

const CARD: Card = Card {
    name: "snat-port-exhaustion",
    title: "A NAT has no port left for one destination: new connections to it time out",
    family: "queues, tables and ports",
    saw: "Under load, connections from pods or containers to one database, proxy or API time out: \"dial tcp \
          10.0.0.5:5432: i/o timeout\". To other servers, or to another port of the same server, they work. \
          The SYN leaves the pod and never the node. In \"conntrack -S\" insert_failed and drop grow; nothing \
          is logged, and the conntrack table is far from full.",
    cause: "A NAT tells its flows apart by address and port on both sides. To one destination address and \
            port it has as many flows as source ports: 64512 for each of its addresses, or those of its \
            range. When it finds none that is free it takes one that is in use, and the packet is dropped \
            because its entry cannot be inserted. Of a wide range it tries 128 ports, then 64, 32, 16 and 8, \
            each time from a random port. Ports of connections that were closed count as well, for \
            nf_conntrack_tcp_timeout_time_wait (120 s), unless the kernel evicts them (6.5 and later).",
    function: "net/netfilter/nf_nat_core.c: nf_nat_l4proto_unique_tuple, nf_nat_used_tuple_harder; \
               net/netfilter/nf_conntrack_core.c: __nf_conntrack_confirm",
    cure: "More addresses for the NAT, a wider range of ports, fewer connections (reuse them) or more \
           destinations; routable pod addresses need no NAT at all. For closed connections a shorter \
           nf_conntrack_tcp_timeout_time_wait, or Linux 6.5. Not cures: --random-fully, which chooses \
           differently among ports that are all taken; a shorter time_wait while the connections are open.",
    reading: &[
        "RFC 4787 4.2: port assignment; RFC 6056: port randomization",
        "maxlaverse: A reason for unexplained connection timeouts on Kubernetes/Docker; flannel#1001, silk-release#29",
        "a504b703bb1d netfilter: nat: limit port clash resolution attempts",
        "netfilter: snat: evict closing tcp entries on reply tuple collision (6.5)",
        "conntrack(8): -S, insert_failed",
    ],
};

const SETTINGS: &[Setting] = &[Setting::number(
    "ports",
    "the ports that the NAT may use; the flows of the fault",
    "ports",
    PORTS,
    [64, 64],
)];

const PORTS: Limit =
    Limit { most: 128, why: "of a wider range the kernel tries no more at first (a504b703bb1d)" };

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("a new connection", "connected"), arms, play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack])
        .settings(SETTINGS)
        .lasts(|_| LATER + 2 * PATIENCE)
        .eras([
            // No feature distinguishes the kernels.
            Era::new("evicts-closed", "6.5 and later", |env| env.kernel.at_least(6, 5)).since(
                "nf_nat_used_tuple_harder evicts the entry of a closed connection, if the new SYN's sequence number is past the old one's",
            ),
            Era::new("waits-for-closed", "up to 6.4", |_| true)
                .since("a port is taken as long as its entry exists, closed or not"),
        ])
}

const SERVER: [u8; 4] = [192, 0, 2, 2];
const NAT: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 3]];
const NEWCOMER: [u8; 4] = [10, 0, 2, 2];
const TIME_WAIT: &str = "net.netfilter.nf_conntrack_tcp_timeout_time_wait";
const FIRST_PORT: u16 = 40_000;
/// The first source port of the office.
const OFFICE_PORT: u16 = 10_000;
/// How long after the office the newcomer connects.
const LATER: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(4);

fn nat(ports: RangeInclusive<u16>, choice: Choice) -> Rule {
    Rule::source_nat("nat", NAT[0]).out("server").to_ports(ports).choose(choice)
}

/// The first ports of the NAT's range, `times` as many as the setting.
fn range(env: &Environment, times: u64) -> RangeInclusive<u16> {
    let count = u16::try_from(times * env.number("ports")).expect("it is below 4096");
    FIRST_PORT..=FIRST_PORT + (count - 1)
}

fn network(env: &Environment) -> Topology {
    Topology::new()
        .hosts(["office", "newcomer"])
        .router("nat")
        .host("server")
        .link("office 10.0.1.2/24", "nat 10.0.1.1/24")
        .link("newcomer 10.0.2.2/24", "nat 10.0.2.1/24")
        .link("nat 192.0.2.1/24 192.0.2.3/24", "server 192.0.2.2/24")
        .rule("nat", nat(range(env, 1), Choice::Keep))
        // net/netfilter/nf_conntrack_proto_tcp.c: tcp_timeouts.
        .sysctl("nat", TIME_WAIT, 120)
}

#[derive(Debug, Clone)]
struct Conduct {
    /// The office's connections to the server, each with a port of the NAT.
    flows: u64,
    /// Whether they are closed again.
    closes: bool,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let ports = env.number("ports");
    let (all, wider) = (range(env, 1), range(env, 16));
    let base = Conduct { flows: ports - 1, closes: false };
    Arms::control("one port of the NAT is free", network(env), base)
        .fault("each port of the NAT has a connection to the server", |arm| arm.flows = ports)
        .variant("closed", "each had one, which is closed", |arm| arm.closes = true)
        .variant("closed-short-time-wait", "the same, nf_conntrack_tcp_timeout_time_wait=1", |arm| {
            arm.closes = true;
            arm.sysctl("nat", TIME_WAIT, 1);
        })
        .remedy("second-address", "the NAT gives the newcomer another address", |arm| {
            arm.first_rule("nat", Rule::source_nat("second", NAT[1]).out("server").source(NEWCOMER));
        })
        .remedy("wider-range", "the NAT has 16 times as many ports to give", |arm| {
            arm.rule("nat", nat(wider, Choice::Keep));
        })
        .remedy("fully-random", "it chooses among its ports at random (iptables: --random-fully)", |arm| {
            arm.rule("nat", nat(all, Choice::FullyRandom));
        })
        .remedy("short-time-wait", "nf_conntrack_tcp_timeout_time_wait=1", |arm| {
            arm.sysctl("nat", TIME_WAIT, 1);
        })
}

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (office, newcomer, server) = (stage.host("office"), stage.host("newcomer"), stage.host("server"));
    for number in 0..conduct.flows {
        // A port that the kernel picks may be that of an earlier flow, whose entry it
        // would share.
        let port = OFFICE_PORT + u16::try_from(number).expect("there are at most 128");
        let flow = Flow::open_from(office, port, (SERVER, 80), server, 80).await?;
        if conduct.closes {
            flow.close(Side::Client).await?;
        } else {
            // The NAT keeps the entry; the sockets are not needed.
            flow.abandon()?;
        }
    }
    // Longer than the shorter TIME_WAIT.
    stage.pass(LATER).await;
    let nat = Conntrack::of(stage.host("nat").namespace())?;
    let before = nat.stats()?;
    let taken = nat.entries()?.len();

    let _listeners = [listen(server, 80)?, listen(server, 81)?];
    let new = connect(newcomer, 0, (SERVER, 80), PATIENCE).await?;
    stage.observe("a new connection", &new);
    let after = nat.stats()?;
    let other = connect(newcomer, 0, (SERVER, 81), PATIENCE).await?;
    stage.observe("one to another port of the server", other);
    let failed = after.since(&before, Statistic::InsertFailed);
    let dropped = after.since(&before, Statistic::Drop);
    stage.observe(
        "conntrack counts",
        match (failed, dropped) {
            (0, 0) => "nothing",
            (_, 0) => "insert_failed",
            (0, _) => "drop",
            _ => "insert_failed and drop",
        },
    );
    stage.because(format!(
        "the NAT had {taken} entries; the newcomer's connect(): {new}; insert_failed +{failed}, drop +{dropped}",
        new = *new
    ));
    Ok(())
}
