//! "The connection opens, and the first request is never answered."
//!
//! ```text
//!               /-- firewall (conntrack, drops INVALID) --\
//! client -- lan                                            dmz -- server
//!               \-- bypass -------------------------------/
//! ```

use lab::prelude::*;
use lab::probe::tcp::{accept, receive, send};

use crate::service::LOOSE;

const CARD: Card = Card {
    name: "asymmetric-route-invalid",
    title: "A firewall sees only one direction of a connection, and drops its packets as INVALID",
    family: "paths",
    saw: "connect() succeeds and the first request hangs: \"ping podip result is good, curl podip curl result \
          is bad\", \"ssh will not work\" while ping does. The server's socket is in SYN_RECV and repeats its \
          SYN-ACK; the firewall logs \"ctstate INVALID\" and has an entry in SYN_SENT, [UNREPLIED]. It began \
          with a second router, with direct server return, or with kube-proxy's rule that drops INVALID.",
    cause: "The answers take another path. The firewall's conntrack has seen a SYN, no SYN-ACK, and then the \
            client's ACK, which no connection in SYN_SENT may send: INVALID, and a rule drops it. Where only \
            the answers pass, the SYN-ACK itself is INVALID, since no SYN was seen. No window is wrong, so \
            nf_conntrack_tcp_be_liberal is not asked; tcp_loose picks up a connection, not a handshake.",
    function: "net/netfilter/nf_conntrack_proto_tcp.c: tcp_conntracks, nf_conntrack_tcp_packet",
    cure: "A symmetric route; or notrack for these flows; or accept them before the rule that drops INVALID, \
           if nothing translates their addresses. Not: nf_conntrack_tcp_be_liberal=1, \
           nf_conntrack_tcp_loose=1.",
    reading: &[
        "RFC 9293 3.5: establishing a connection",
        "kubernetes#94861: kube-proxy drops INVALID; firewalld#1061, calico#7434, felix#1248, firehol#358",
        "kubernetes#120412: no such rule where nf_conntrack_tcp_be_liberal=1",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the request", "received"), arms, play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack])
        .settings([Setting::family()])
        .eras([Era::new("every-kernel", "4.10 and later", |env| env.kernel.at_least(4, 10))
            .since("nf_tables has notrack (254432613c58), which an arm uses; older kernels were not run")])
}

const SERVER: ([u8; 4], u16) = ([10, 0, 2, 2], 80);
const BE_LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";

fn network() -> Topology {
    Topology::new()
        .host("client")
        .bridge("lan")
        .router("firewall")
        .router("bypass")
        .bridge("dmz")
        .host("server")
        .link("client 10.0.1.2/24", "lan")
        .link("firewall 10.0.1.1/24", "lan")
        .link("bypass 10.0.1.3/24", "lan")
        .link("firewall 10.0.2.1/24", "dmz")
        .link("bypass 10.0.2.3/24", "dmz")
        .link("server 10.0.2.2/24", "dmz")
        .rule("firewall", Rule::drop("invalid").ct_state(CtState::INVALID))
        .sysctl("firewall", BE_LIBERAL, 0)
        .sysctl("firewall", LOOSE, 0)
}

/// The client's packets take the other router.
fn requests_bypass(network: Topology) -> Topology {
    network.route("client", "10.0.2.0/24", "10.0.1.3")
}

fn arms(env: &Environment) -> Arms<()> {
    Arms::control("both directions pass the firewall", network(), ())
        .fault("the server has a route through the other router", |arm| {
            arm.change(|network| network.route("server", "10.0.1.0/24", "10.0.2.3"));
        })
        .variant_of_control("only-answers", "the client has a route through the other router", |arm| {
            arm.change(requests_bypass);
        })
        .remedy("be-liberal", "nf_conntrack_tcp_be_liberal=1 on the firewall", |arm| {
            arm.sysctl("firewall", BE_LIBERAL, 1);
        })
        .remedy("loose", "nf_conntrack_tcp_loose=1 on the firewall, the kernel's default", |arm| {
            arm.sysctl("firewall", LOOSE, 1);
        })
        .remedy("accept-first", "the firewall accepts packets to the server before it drops INVALID", |arm| {
            arm.first_rule("firewall", Rule::accept("server").destination(SERVER.0));
        })
        .remedy("notrack", "the firewall does not track packets to the server", |arm| {
            arm.rule("firewall", Rule::notrack("server").destination(SERVER.0));
        })
        .remedy("symmetric", "the client has a route through the other router as well", |arm| {
            arm.change(requests_bypass);
        })
        .in_family(env.family())
}

/// The first SYN or SYN-ACK and two more, 1 and 3 s later.
const PATIENCE: Duration = Duration::from_secs(4);

async fn play(stage: &Stage<'_>, (): &()) -> Result<()> {
    let (client, server) = (stage.host("client"), stage.host("server"));
    let firewall = Conntrack::of(stage.host("firewall").namespace())?;
    let before = firewall.stats()?;
    let listener = listen(server, SERVER.1)?;
    let met = connect(client, 0, stage.env.family().socket(SERVER), PATIENCE).await?;
    let connected = met.to_string();
    stage.observe_of(&met, "connect()", &connected);
    // The sockets stay open until the entry has been read.
    let (mut sockets, mut request) = (vec![], Answer::Nothing);
    if let Connect::Connected { mut stream, .. } = met.into_inner() {
        send(client.name(), &mut stream, b"GET / HTTP/1.0\r\n\r\n").await?;
        sockets.push(stream);
        match accept(server.name(), &listener, PATIENCE).await {
            Ok(mut accepted) => {
                request = receive(server.name(), &mut accepted, PATIENCE).await?;
                sockets.push(accepted);
            }
            Err(Error::Deadline { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    stage.observe("the request", request);
    let entry = firewall.entries()?.first().and_then(|e| e.tcp_state).map(|state| state.to_string());
    let entry = entry.unwrap_or_else(|| "none".to_owned());
    stage.observe("the firewall's entry", &entry);
    drop(sockets);
    let invalid = firewall.stats()?.since(&before, Statistic::Invalid);
    stage.observe("INVALID packets", if invalid == 0 { "none" } else { "some" });
    stage.because(format!(
        "connect() met: {connected}; the request met: {request}; the firewall's entry: {entry} ({invalid} INVALID \
         packets)"
    ));
    Ok(())
}
