//! "tcpdump on the server shows the SYN arrive, and nothing goes back."
//!
//! ```text
//!                  a (192.0.2.0/24), the server's default route
//! client --- isp <                                              > server
//!                  b (198.51.100.0/24), where the request arrives
//! ```

use lab::prelude::*;
use lab::probe::route;

const CARD: Card = Card {
    name: "reverse-path-filter",
    title: "A server with two uplinks drops what arrives on the one without the default route",
    family: "paths",
    saw: "tcpdump on the server shows incoming packets and no reply: its second address, a VPN or a \
          load-balanced service answers nobody beyond its own subnet. No rule drops the packets and no \
          socket gets them. Nothing is logged, or \"IPv4: martian source\" where log_martians is on; `ip \
          route get ... from ... iif` says \"RTNETLINK answers: Invalid cross-device link\".",
    cause: "With rp_filter=1 (strict, RFC 3704) a packet is dropped unless the route back to its source \
            leaves through the interface where it came in. The server's default route is the other uplink. \
            The value in force is the larger of conf/all and conf/INTERFACE, so conf/all=0 turns nothing \
            off; conf/default is only for interfaces that are made later.",
    function: "net/ipv4/fib_frontend.c: __fib_validate_source; include/linux/inetdevice.h: IN_DEV_RPFILTER",
    cure: "rp_filter=2 (loose) on that interface, or in conf/all, where 2 wins over 1; or a rule for the \
           address (ip rule from ADDRESS), so that its answers leave where the requests arrive. A route to \
           the sources through that interface helps it, and breaks the other address for them. Not: \
           conf/all=0, conf/default=0, the other interface, log_martians.",
    reading: &[
        "RFC 3704 2.2, 2.4: strict and loose reverse path forwarding",
        "Documentation/networking/ip-sysctl.rst: rp_filter, log_martians",
        "nstat -az TcpExtIPReversePathFilter",
        "cilium#13130, kubernetes#124587, amazon-vpc-cni-k8s#130, kube-router#511",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("a connect to address B", "connected"), |_| arms(), play).eras([Era::every_kernel(
        "every kernel has the filter; many distributions set it to strict or loose",
    )])
}

const ON_A: ([u8; 4], u16) = ([192, 0, 2, 2], 80);
const ON_B: ([u8; 4], u16) = ([198, 51, 100, 2], 80);
/// A routing table of the administrator's.
const TABLE: u8 = 100;
const GATEWAY_B: [u8; 4] = [198, 51, 100, 1];
/// Copied to interfaces at creation: set before both of the server's are made.
const DEFAULT: &str = "net.ipv4.conf.default.rp_filter";

fn network() -> Topology {
    let made = Topology::new()
        .host("client")
        .router("isp")
        .host("server")
        .link("client 10.0.0.2/24", "isp 10.0.0.1/24")
        .link("isp 192.0.2.1/24", "server 192.0.2.2/24")
        .interfaces("a", "a")
        .link("isp 198.51.100.1/24", "server 198.51.100.2/24")
        .interfaces("b", "b")
        .route("server", "default", "192.0.2.1");
    ["all", "default"]
        .into_iter()
        .fold(made, |made, which| made.sysctl("server", &format!("net.ipv4.conf.{which}.log_martians"), 0))
}

#[derive(Debug, Clone)]
struct Conduct {
    /// What the server's administrator sets when its interfaces are up.
    sets: Option<(&'static str, &'static str)>,
    /// Whether what the server sends from its address on b leaves through b.
    policy_routing: bool,
}

fn arms() -> Arms<Conduct> {
    let base = Conduct { sets: None, policy_routing: false };
    Arms::control("rp_filter=0 on both of the server's interfaces", network(), base)
        .fault("rp_filter=1 (strict) on both", |arm| arm.sysctl("server", DEFAULT, 1))
        .remedy("loose", "rp_filter=2 (loose) on b", |arm| {
            arm.sets = Some(("net.ipv4.conf.b.rp_filter", "2"));
        })
        .remedy("off", "rp_filter=0 on b", |arm| arm.sets = Some(("net.ipv4.conf.b.rp_filter", "0")))
        .remedy("loose-in-all", "conf/all/rp_filter=2", |arm| {
            arm.sets = Some(("net.ipv4.conf.all.rp_filter", "2"));
        })
        .remedy("off-in-all", "conf/all/rp_filter=0, which it is already", |arm| {
            arm.sets = Some(("net.ipv4.conf.all.rp_filter", "0"));
        })
        .remedy("off-in-default", "conf/default/rp_filter=0, when the interfaces are there", |arm| {
            arm.sets = Some((DEFAULT, "0"));
        })
        .remedy("off-on-a", "rp_filter=0 on the interface of the default route", |arm| {
            arm.sets = Some(("net.ipv4.conf.a.rp_filter", "0"));
        })
        .remedy("log-martians", "conf/all/log_martians=1", |arm| {
            arm.sets = Some(("net.ipv4.conf.all.log_martians", "1"));
        })
        .remedy("route-back", "a route to the client's network through b", |arm| {
            arm.change(|network| network.route("server", "10.0.0.0/24", "198.51.100.1"));
        })
        .remedy("policy-routing", "ip rule from 198.51.100.2, to a table whose default route is b", |arm| {
            arm.policy_routing = true;
        })
}

/// The first SYN and at least two more, 1 and 3 s later.
const PATIENCE: Duration = Duration::from_secs(4);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (client, server) = (stage.host("client"), stage.host("server"));
    if let Some((key, value)) = conduct.sets {
        sysctl::set(server.namespace(), key, value)?;
    }
    if conduct.policy_routing {
        let failed = |e| Error::kernel(server.name(), "policy routing", e);
        route::add_for_source(server.namespace(), ON_B.0, GATEWAY_B, TABLE).map_err(failed)?;
    }
    let _listener = listen(server, ON_B.1)?;
    let met = connect(client, 0, ON_B, PATIENCE).await?;
    stage.observe_of(&met, "a connect to address B", &*met);
    let dropped = stage.counters("server")?.get("IPReversePathFilter").unwrap_or(0);
    stage.observe("the filter counts", if dropped == 0 { "none" } else { "some" });
    stage.observe("a connect to address A", connect(client, 0, ON_A, PATIENCE).await?);
    stage.because(format!(
        "the client's connect to an address on b, whose answers leave through a, met: {met}; \
         IPReversePathFilter +{dropped}",
        met = *met
    ));
    Ok(())
}
