//! "ssh connects and hangs at the first long listing; small pages load, large
//! uploads stall." A tunnel on the path has a smaller MTU, and a firewall drops
//! the ICMP messages that would report it.
//!
//! RFC 2923, section 2.1 (Black Hole Detection); RFC 1191.
//!
//! ```text
//! client ──1500── firewall ──1500── near ══1400══ far ──1500── server
//! ```

use lab::prelude::*;
use lab::probe::PathMtu;

const CARD: Card = Card {
    name: "mtu-black-hole",
    title: "Large segments vanish behind a firewall that drops ICMP, and small ones pass",
    family: "path MTU",
    saw: "The connection is there and small requests are answered, but every upload stalls, and ssh hangs as \
          soon as a screen is full. ping works. It began with the new tunnel.",
    cause: "Segments carry DF and are larger than the tunnel's MTU. The router before it drops each and \
            sends \"fragmentation needed\" with the right size back; a firewall drops all ICMP, so the \
            sender never learns it and repeats the same large segment.",
    function: "net/ipv4/ip_forward.c: ip_forward (the drop); net/ipv4/tcp_timer.c: tcp_mtu_probing (the way \
               out)",
    cure: "Let ICMP \"fragmentation needed\" pass. Where the firewall is not yours: tcp_mtu_probing=1 on the \
           sender, which lowers its MSS after some timeouts, or a smaller MTU on the sender's own link.",
    reading: &[
        "RFC 1191: Path MTU Discovery",
        "RFC 2923: TCP Problems with Path MTU Discovery, section 2.1",
        "RFC 4821: Packetization Layer Path MTU Discovery",
        "Documentation/networking/ip-sysctl.rst: tcp_mtu_probing, ip_no_pmtu_disc",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("a large request", "received"), |_| arms(), play)
        .needs([Need::Veth, Need::Nat])
        .eras([Era::every_kernel("tcp_mtu_probing is off by default")])
}

const SERVICE: ([u8; 4], u16) = ([192, 0, 2, 2], 80);
/// The router before the tunnel, as the firewall sees it.
const NEAR: [u8; 4] = [10, 0, 1, 2];
/// The tunnel's MTU in bytes.
const NARROW: u32 = 1400;
const PROBING: &str = "net.ipv4.tcp_mtu_probing";
const NO_DISCOVERY: &str = "net.ipv4.ip_no_pmtu_disc";

fn network() -> Topology {
    Topology::new()
        .host("client")
        .router("firewall")
        .router("near")
        .router("far")
        .host("server")
        .link("client 10.0.0.2/24", "firewall 10.0.0.1/24")
        .link("firewall 10.0.1.1/24", "near 10.0.1.2/24")
        .link("near 10.0.2.1/24", "far 10.0.2.2/24")
        .mtu(NARROW)
        .link("far 192.0.2.1/24", "server 192.0.2.2/24")
        .route("firewall", "default", "10.0.1.2")
        .route("near", "default", "10.0.2.2")
        .route("near", "10.0.0.0/24", "10.0.1.1")
        .route("far", "default", "10.0.2.1")
        .sysctl("client", PROBING, 0)
        .sysctl("server", PROBING, 0)
        .sysctl("client", NO_DISCOVERY, 0)
}

// The conduct is the same in all arms: only the network is edited.
fn arms() -> Arms<()> {
    Arms::control("the tunnel is as narrow, and the firewall lets ICMP pass", network(), ())
        .fault("the firewall drops ICMP", |arm| arm.rule("firewall", Rule::drop("icmp").icmp()))
        .remedy(
            "accept-from-the-router",
            "the firewall accepts ICMP from the router before the tunnel",
            |arm| {
                arm.first_rule("firewall", Rule::accept("near").icmp().source(NEAR));
            },
        )
        .remedy("mtu-probing", "tcp_mtu_probing=1 on the client", |arm| arm.sysctl("client", PROBING, 1))
        .remedy("mtu-probing-at-the-server", "tcp_mtu_probing=1 on the server, which sends little", |arm| {
            arm.sysctl("server", PROBING, 1);
        })
        .remedy("no-path-mtu-discovery", "ip_no_pmtu_disc=1 on the client: its packets carry no DF", |arm| {
            arm.sysctl("client", NO_DISCOVERY, 1)
        })
        .remedy("smaller-mtu", "the client's own link has an MTU of 1400", |arm| {
            arm.network.links[0].mtu = NARROW;
        })
}

/// More than one segment of 1460 bytes.
const LARGE: usize = 100_000;
/// net/ipv4/tcp_timer.c: tcp_mtu_probing takes effect after
/// net.ipv4.tcp_retries1 (3) timeouts: 0.2 + 0.4 + 0.8 + 1.6 = 3 s on a short
/// path.
const PATIENCE: Duration = Duration::from_secs(10);

async fn play(stage: &Stage<'_>, (): &()) -> Result<()> {
    let (client, server) = (stage.host("client"), stage.host("server"));
    let mut flow = Flow::open(client, SERVICE, server, SERVICE.1).await?;
    stage.observe("a small request", flow.exchange(Side::Client, PATIENCE).await?);
    let met = flow.try_transfer(Side::Client, LARGE, PATIENCE).await?;
    stage.observe("a large request", met);
    let path_mtu = PathMtu::new(client)?.to(SERVICE.0.into())?;
    stage.observe("the client's path MTU", path_mtu);
    let firewall = stage.host("firewall");
    // A firewall without rules drops nothing.
    let rules = if firewall.has_rules() { firewall.firewall().counters()? } else { vec![] };
    let dropped: u64 = rules.iter().filter(|rule| rule.rule == "icmp").map(|rule| rule.packets).sum();
    stage.observe("ICMP messages dropped", if dropped == 0 { "none" } else { "some" });
    stage.because(format!(
        "the client knew a path MTU of {path_mtu} over a tunnel of {NARROW}; the firewall dropped {dropped} ICMP \
         messages; {LARGE} bytes met: {met}", met = *met
    ));
    Ok(())
}
