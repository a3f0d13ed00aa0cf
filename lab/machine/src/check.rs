//! Tests what this machine supports.
//!
//! Every ability is tried. A version or a setting would not be enough: AppArmor may
//! allow a user namespace and deny every operation in it.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use faultlab_base::error::{Error, Result};
use faultlab_base::text::{Cell, Line};
use faultlab_engine::evidence::kernel_reports::Opened;
use faultlab_engine::evidence::sockets;
use faultlab_engine::probe::{Flow, Side};
use faultlab_model::scenario::Need;
use faultlab_net::conntrack::Conntrack;
use faultlab_net::isolation;
use faultlab_net::network::{Network, qdisc, sysctl};
use faultlab_net::topology::rule::Rule;
use faultlab_net::topology::{Family, Topology};
use faultlab_net::wire::policy::Pass;

/// An ability that a scenario may need, and whether the machine has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ability {
    /// What was tried.
    pub name: Line,
    /// The name that scenarios use for it, as [`Need`] displays it.
    pub need: Cell,
    /// Whether scenarios can run without it.
    pub optional: bool,
    /// Why it is missing and how to fix that; `None` if it works.
    pub missing: Option<Line>,
}

const PATIENCE: Duration = Duration::from_secs(5);

/// Tries every ability. `opened` is the result of opening the kernel log and the
/// source of drop reasons.
///
/// # Errors
/// [`Error::Exhausted`] if the machine has run out of a resource, so that a failure
/// proves nothing.
pub async fn abilities(opened: Opened) -> Result<Vec<Ability>> {
    let mut abilities = vec![];
    let mut add = |need: Need, name: &str, result: Result<()>| {
        let missing = match result {
            Err(error @ Error::Exhausted(_)) => return Err(error),
            result => result.err().map(|e| explain(need, &e)),
        };
        abilities.push(Ability {
            name: name.into(),
            need: need.to_string().into(),
            // Scenarios that use IPv6 report its absence themselves.
            optional: matches!(need, Need::KernelLog | Need::Ipv6),
            missing: missing.map(Line::from),
        });
        Ok(())
    };
    add(Need::Veth, "make two namespaces and a veth pair between them, pin a sysctl", veth().await)?;
    add(Need::Nat, "masquerade a TCP connection by nf_tables", masquerade_in(Family::V4).await)?;
    add(Need::Ipv6, "masquerade a TCP connection over IPv6", masquerade_in(Family::V6).await)?;
    add(Need::Conntrack, "read its conntrack entry, set a conntrack timeout", entry().await)?;
    add(Need::PacketSocket, "carry a TCP connection through this process", wire().await)?;
    add(Need::TokenBucket, "put a token bucket on an interface", token_bucket().await)?;
    let (log, drops) = opened.check_readable();
    add(Need::KernelLog, "read the kernel log", log)?;
    abilities.push(Ability {
        name: "see why the kernel drops packets, for --why and --pcap".into(),
        need: "drop reasons".into(),
        optional: true,
        missing: drops.err().map(|error| error.to_string().into()),
    });
    Ok(abilities)
}

/// An error with its probable cause: the setting that forbids the operation, or the
/// kernel option that may be missing.
fn explain(need: Need, error: &Error) -> String {
    match (error, error.errno()) {
        (Error::Missing(missing), _) => missing.to_string(),
        (_, Some(libc::EPERM | libc::EACCES)) => match isolation::forbidding_setting() {
            Some(cause) => format!("{error}: {cause}"),
            None => format!("{error}: this process may not, in a namespace of its own; run as root"),
        },
        _ => format!("{error} (is it {}?)", need.config()),
    }
}

fn two_hosts() -> Topology {
    Topology::new().host("one").host("other").link("one 10.0.0.1/24", "other 10.0.0.2/24")
}

fn behind_nat() -> Topology {
    Topology::new()
        .host("client")
        .router("nat")
        .host("server")
        .link("client 10.0.0.2/24", "nat 10.0.0.1/24")
        .link("nat 192.0.2.1/24", "server 192.0.2.2/24")
        .rule("nat", Rule::masquerade("masquerade", "server"))
}

async fn veth() -> Result<()> {
    let network = Network::build(two_hosts()).await?;
    sysctl::set(network.host("one").namespace(), "net.ipv4.tcp_fin_timeout", "30")
}

async fn masquerade_in(family: Family) -> Result<()> {
    let network = Network::build(behind_nat().in_family(family)).await?;
    converse(&network, "client", "server").await
}

async fn entry() -> Result<()> {
    let topology = behind_nat().sysctl("nat", "net.netfilter.nf_conntrack_tcp_timeout_established", 1000);
    let network = Network::build(topology).await?;
    converse(&network, "client", "server").await?;
    if Conntrack::of(network.host("nat").namespace())?.entries()?.is_empty() {
        return Err(Error::missing(
            "the conntrack entry of a connection",
            "the kernel needs CONFIG_NF_CT_NETLINK",
        ));
    }
    sockets::sockets(network.host("server").namespace()).map(|_| ())
}

async fn wire() -> Result<()> {
    let topology = Topology::new().host("one").host("other").wire("one 10.0.0.1/24", "other 10.0.0.2/24");
    let network = Network::build(topology).await?;
    let wire = network.wire("one", "other", Box::new(Pass))?;
    converse(&network, "one", "other").await?;
    wire.check()
}

async fn converse(network: &Network, client: &str, server: &str) -> Result<()> {
    let (client, server) = (network.host(client), network.host(server));
    let to = SocketAddr::new(server.address(), 80);
    let mut flow = Flow::open(client, to, server, 80).await?;
    flow.exchange(Side::Client, PATIENCE).await.map(|_| ())
}

async fn token_bucket() -> Result<()> {
    let network = Network::build(two_hosts()).await?;
    qdisc::token_bucket(network.host("one").namespace(), "other", 1000, 2000, 10_000)
}
