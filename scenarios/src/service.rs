//! The common parts of the conntrack scenarios: a client, a node that
//! translates a service address to the server's, and the server.

use lab::prelude::*;
use lab::wire::Wire;
use lab::wire::segment::Header;

/// The service address, as Kubernetes assigns them.
pub const SERVICE: ([u8; 4], u16) = ([10, 96, 0, 1], 80);
/// The address that it is translated to.
pub const BACKEND: ([u8; 4], u16) = ([10, 0, 2, 2], 9000);

/// Whether conntrack accepts segments outside of the window.
pub const BE_LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";
/// Whether conntrack creates entries for connections that it did not see begin.
pub const LOOSE: &str = "net.netfilter.nf_conntrack_tcp_loose";

/// The network. The server's link is a wire.
pub fn network() -> Topology {
    translated(hosts().wire("node 10.0.2.1/24", "server 10.0.2.2/24"))
}

/// The same without a wire, which needs 16 MB for its rings.
pub fn unwired() -> Topology {
    translated(hosts().link("node 10.0.2.1/24", "server 10.0.2.2/24"))
}

fn hosts() -> Topology {
    Topology::new()
        .host("client")
        .router("node")
        .host("server")
        .link("client 10.0.1.2/24", "node 10.0.1.1/24")
}

fn translated(network: Topology) -> Topology {
    network.rule("node", Rule::destination_nat("service", SERVICE, BACKEND)).sysctl("node", BE_LIBERAL, 0)
}

/// A flow from the client to the service.
pub async fn open(stage: &Stage<'_>) -> Result<Flow> {
    let service = stage.env.family().socket(SERVICE);
    Flow::open(stage.host("client"), service, stage.host("server"), BACKEND.1).await
}

/// A remedy that all of these scenarios try.
pub fn drop_invalid<C: Clone>(arms: Arms<C>) -> Arms<C> {
    arms.remedy("drop-invalid", "the node drops INVALID packets in forward", |arm| {
        arm.rule("node", Rule::drop("invalid").ct_state(CtState::INVALID));
    })
}

/// A remedy against INVALID packets.
pub fn be_liberal<C: Clone>(arms: Arms<C>) -> Arms<C> {
    arms.remedy("be-liberal", "nf_conntrack_tcp_be_liberal=1 on the node", |arm| {
        arm.sysctl("node", BE_LIBERAL, 1);
    })
}

/// The header of the server's last segment.
async fn last_of_server(wire: &Wire) -> Result<Header> {
    wire.caught_up().await;
    let last = wire.frames().into_iter().rev().find(|f| f.direction == Direction::Back && f.header.is_some());
    last.and_then(|f| f.header).ok_or_else(|| Error::Lab("the server sent no segment".into()))
}

/// Injects a data segment like the server's last one, with a sequence number
/// that is `by` higher.
pub async fn inject(stage: &Stage<'_>, wire: &Wire, by: u32) -> Result<()> {
    use lab::wire::segment::{Flags, Segment};
    let last = last_of_server(wire).await?;
    let header = Header { seq: last.seq.wrapping_add(by), flags: Flags::PSH | Flags::ACK, ..last };
    let segment = Segment { header, payload: b"boom!!!" };
    wire.inject(Direction::Back, segment.frame(stage.network().macs("server", "node"))?);
    Ok(())
}

/// The cell for an idle connection: `open` if nothing happened to it.
pub fn open_or(met: Answer) -> String {
    if met == Answer::Nothing { "open".to_owned() } else { met.to_string() }
}
