//! "Large answers hang, and ping works." A tunnel on the path has a smaller MTU,
//! and a firewall drops the ICMP messages that would report it.
//!
//! RFC 2923, section 2.1 (Black Hole Detection); RFC 1191.
//!
//! ```text
//! client --1500-- near ==1400== far --1500-- firewall --1500-- server
//! ```

use lab::network::offload;
use lab::prelude::*;
use lab::probe::PathMtu;
use lab::topology::Family;
use lab::topology::rule::Hook;

const CARD: Card = Card {
    name: "pmtu-black-hole",
    title: "Large packets vanish before a tunnel, and the ICMP messages about them at a firewall",
    family: "paths",
    saw: "Large answers hang, and ping works: \"Can Not Transfer Large Than 1372 Bytes Data\", \"large pod \
          packets ... are silently dropped\". ssh hangs as soon as a screen is full; curl and kubectl connect \
          and stop at \"net/http: TLS handshake timeout\". It began with the overlay, the VPN or the new \
          node; or with a client whose TLS ClientHello (post-quantum keys) has 1.5 to 1.9 KB, no longer one \
          segment.",
    cause: "TCP segments carry DF and are larger than the tunnel's MTU. The router before the tunnel drops \
            each, and returns \"fragmentation needed\" (IPv6: \"packet too big\") with the right size; a \
            firewall drops all ICMP, so the sender never learns it and repeats the same large segment until \
            it gives up (tcp_retries2).",
    function: "net/ipv4/ip_forward.c: ip_forward (the drop); net/ipv4/tcp_timer.c: tcp_mtu_probing (the way \
               out)",
    cure: "Let ICMP \"fragmentation needed\" pass. Or clamp the MSS on a router whose route has the tunnel's \
           MTU, or give either end's link that MTU: both ends then send small segments. Or tcp_mtu_probing \
           on the side that sends; with 1 it takes effect after several timeouts. With IPv4 also \
           ip_no_pmtu_disc=1 on the sender, whose packets are then fragmented. Clamping on a router whose \
           links are all wide, and tcp_mtu_probing on the side that receives, do not help.",
    reading: &[
        "RFC 1191: Path MTU Discovery",
        "RFC 2923: TCP Problems with Path MTU Discovery, section 2.1",
        "RFC 4821: Packetization Layer Path MTU Discovery",
        "Documentation/networking/ip-sysctl.rst: tcp_mtu_probing, tcp_base_mss, ip_no_pmtu_disc",
        "calico#8953, calico#7651, calico#2026, flannel#1999: overlays; golang/go#80573: the large ClientHello",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("a large answer", "received"), arms, play)
        .needs([Need::Veth, Need::Nat])
        .settings([Setting::family()])
        .eras([
            Era::new("ipv6", "every kernel, with IPv6: --set family=ipv6", |env| env.family() == Family::V6)
                .since("ip_no_pmtu_disc is for IPv4 alone: no IPv6 router cuts a packet"),
            Era::new("every-kernel", "every kernel, with IPv4", |_| true)
                .since("tcp_mtu_probing is off by default"),
        ])
}

const SERVICE: ([u8; 4], u16) = ([192, 0, 2, 2], 443);
/// The router before the tunnel, as the server sees it.
const FAR: [u8; 4] = [10, 0, 3, 2];
/// The tunnel's MTU in bytes.
const NARROW: u32 = 1400;
const PROBING: &str = "net.ipv4.tcp_mtu_probing";
const NO_DISCOVERY: &str = "net.ipv4.ip_no_pmtu_disc";

fn network() -> Topology {
    Topology::new()
        .host("client")
        .router("near")
        .router("far")
        .router("firewall")
        .host("server")
        .link("client 10.0.0.2/24", "near 10.0.0.1/24")
        .link("near 10.0.2.1/24", "far 10.0.2.2/24")
        .mtu(NARROW)
        .link("far 10.0.3.2/24", "firewall 10.0.3.1/24")
        .link("firewall 192.0.2.1/24", "server 192.0.2.2/24")
        .route("near", "default", "10.0.2.2")
        .route("far", "default", "10.0.3.1")
        .route("far", "10.0.0.0/24", "10.0.2.1")
        .route("firewall", "default", "10.0.3.2")
        .sysctl("client", PROBING, 0)
        .sysctl("server", PROBING, 0)
        // The kernel's default, with which mtu-probing begins.
        .sysctl("server", "net.ipv4.tcp_base_mss", 1024)
        .sysctl("server", NO_DISCOVERY, 0)
}

// The conduct is the same in all arms: only the network is edited.
fn arms(env: &Environment) -> Arms<()> {
    let no_icmp = || Rule::drop("icmp").icmp();
    // nf_tables writes TCP options since 4.14 (99d1712bc41c).
    let can_clamp = env.kernel.at_least(4, 14);
    Arms::control("the tunnel is as narrow, and the firewall lets ICMP pass", network(), ())
        .fault("the firewall drops ICMP", |arm| arm.rule("firewall", no_icmp()))
        .variant_of_control("near-sends-no-icmp", "the client's router sends no ICMP", |arm| {
            arm.rule("near", no_icmp().on(Hook::Output));
        })
        .remedy("accept-from-the-router", "the firewall accepts ICMP from the router at the tunnel", |arm| {
            arm.first_rule("firewall", Rule::accept("far").icmp().source(FAR));
        })
        .remedy("clamp-mss", "the router at the tunnel clamps the MSS to its routes' MTU", |arm| {
            arm.rule("far", Rule::clamp_mss("clamp"));
        })
        .only_where(can_clamp)
        .remedy("clamp-mss-elsewhere", "the firewall, whose links are wide, clamps the MSS", |arm| {
            arm.rule("firewall", Rule::clamp_mss("clamp"));
        })
        .only_where(can_clamp)
        .remedy("mtu-probing", "tcp_mtu_probing=1 on the server", |arm| arm.sysctl("server", PROBING, 1))
        .remedy("mtu-probing-always", "tcp_mtu_probing=2 on the server", |arm| {
            arm.sysctl("server", PROBING, 2);
        })
        .remedy("mtu-probing-at-the-client", "tcp_mtu_probing=1 on the client, which receives", |arm| {
            arm.sysctl("client", PROBING, 1);
        })
        .remedy("no-path-mtu-discovery", "ip_no_pmtu_disc=1 on the server: its packets carry no DF", |arm| {
            arm.sysctl("server", NO_DISCOVERY, 1);
        })
        .remedy("smaller-mtu", "the server's own link has an MTU of 1400", |arm| {
            arm.network.links[3].mtu = NARROW;
        })
        .remedy("smaller-mtu-at-the-client", "the client's own link has an MTU of 1400", |arm| {
            arm.network.links[0].mtu = NARROW;
        })
        .in_family(env.family())
}

/// A TLS ClientHello with a post-quantum key share, in bytes.
const CLIENT_HELLO: usize = 1800;
/// Far more than one segment of 1460 bytes.
const LARGE: usize = 100_000;
/// net/ipv4/tcp_timer.c: tcp_mtu_probing takes effect after
/// net.ipv4.tcp_retries1 (3) timeouts: 0.2 + 0.4 + 0.8 + 1.6 = 3 s on a short
/// path.
const PATIENCE: Duration = Duration::from_secs(8);

async fn play(stage: &Stage<'_>, (): &()) -> Result<()> {
    let (client, server) = (stage.host("client"), stage.host("server"));
    let service = stage.env.family().socket(SERVICE);
    // Frames as on a cable, not up to 64 KB at once.
    offload::switch_off(client.namespace(), "near")?;
    offload::switch_off(server.namespace(), "firewall")?;
    let mut answered = Flow::open(client, service, server, SERVICE.1).await?;
    let mut greeted = Flow::open(client, service, server, SERVICE.1).await?;
    stage.observe("a small exchange", answered.exchange(Side::Client, PATIENCE).await?);
    let met = answered.try_transfer(Side::Server, LARGE, PATIENCE).await?;
    stage.observe("a large answer", met);
    let timeouts = stage.counters("server")?.get("TCPTimeouts").unwrap_or(0);
    let path_mtu = PathMtu::new(server)?.to(client.address())?;
    stage.observe("the server's path MTU", path_mtu);
    let hello = greeted.try_transfer(Side::Client, CLIENT_HELLO, PATIENCE).await?;
    stage.observe("a ClientHello of 1800 bytes", hello);
    stage.because(format!(
        "the server knew a path MTU of {path_mtu} over a tunnel of {NARROW}; {LARGE} bytes of answer met: {met} \
         ({timeouts} timeouts); a ClientHello of {CLIENT_HELLO} bytes met: {hello}",
        met = *met,
        hello = *hello
    ));
    Ok(())
}
