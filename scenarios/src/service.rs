//! What the conntrack scenarios have in common: a client, a node that
//! translates a service address to the server, and the server.

use lab::probe::Answer;
use lab::scenario::Plan;
use lab::topology::Topology;
use lab::topology::rule::{CtState, Rule};
use lab::wire::segment::Header;
use lab::wire::{Way, Wire};
use lab::{Error, Result};

/// The address that the client knows, as Kubernetes gives them.
pub const SERVICE: ([u8; 4], u16) = ([10, 96, 0, 1], 80);
/// What it is translated to.
pub const BACKEND: ([u8; 4], u16) = ([10, 0, 2, 2], 9000);

/// The network, with the two remedies that every one of them tries; the
/// server's link is a wire.
pub fn topology(plan: &Plan<'_>) -> Topology {
    rules(plan, hosts().wire("node 10.0.2.1/24", "server 10.0.2.2/24"))
}

/// The same without a wire, for what needs none: a wire's rings take 16 MB.
pub fn unwired(plan: &Plan<'_>) -> Topology {
    rules(plan, hosts().link("node 10.0.2.1/24", "server 10.0.2.2/24"))
}

fn hosts() -> Topology {
    Topology::new()
        .host("client")
        .router("node")
        .host("server")
        .link("client 10.0.1.2/24", "node 10.0.1.1/24")
}

fn rules(plan: &Plan<'_>, topology: Topology) -> Topology {
    topology
        .rule("node", Rule::destination_nat("service", SERVICE, BACKEND))
        .rule_if(plan.is("drop-invalid"), "node", Rule::drop("invalid").ct_state(CtState::INVALID))
        .sysctl("node", "net.netfilter.nf_conntrack_tcp_be_liberal", u8::from(plan.is("be-liberal")))
}

/// The headers of the server's last segment.
pub async fn last_of_server(wire: &Wire) -> Result<Header> {
    wire.caught_up().await;
    let last = wire.frames().into_iter().rev().find(|f| f.way == Way::Back && f.header.is_some());
    last.and_then(|f| f.header).ok_or_else(|| Error::Lab("the server said nothing".into()))
}

/// An idle connection that nothing happened to is open.
pub fn open_or(met: Answer) -> String {
    if met == Answer::Nothing { "open".to_owned() } else { met.to_string() }
}
