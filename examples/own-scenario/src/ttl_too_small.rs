//! "The next machine answers, and nothing beyond the second router does." The
//! packets of a host begin with a TTL that is too small for the way.
//!
//! RFC 791, 3.2 (Time to Live); net/ipv4/ip_forward.c: ip_forward.
//!
//! ```text
//! client ---- near ---- middle ---- far ---- server
//! ```

use lab::prelude::*;

const CARD: Card = Card {
    name: "ttl-too-small",
    title: "A host whose packets begin with a small TTL reaches only its neighbourhood",
    family: "paths",
    saw: "The router and the machines behind it answer; for everything further away connect() fails with \"No \
          route to host\", and the routes are right. Other hosts on the same network reach all of it. It began \
          with a hardening guide, or an image for a test bed.",
    cause: "net.ipv4.ip_default_ttl is no larger than the number of routers on the way. Each router takes one \
            off, and the one that would send a packet with TTL 0 drops it and reports \"time exceeded\", \
            which ends a connect() with EHOSTUNREACH.",
    function: "net/ipv4/ip_forward.c: ip_forward; net/ipv4/tcp_ipv4.c: tcp_v4_err",
    cure: "ip_default_ttl=64, the kernel's default. More SYNs do not help; nor does a larger TTL at the other \
           end.",
    reading: &["RFC 791 3.2: time to live", "Documentation/networking/ip-sysctl.rst: ip_default_ttl"],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("a connect to the server", "connected"), |_| arms(), play)
        .eras([Era::every_kernel("RFC 791 asks for it")])
}

const SERVER: ([u8; 4], u16) = ([192, 0, 2, 2], 80);
/// The third router, behind two others.
const FAR: ([u8; 4], u16) = ([10, 0, 2, 2], 80);
const TTL: &str = "net.ipv4.ip_default_ttl";
const SYN_RETRIES: &str = "net.ipv4.tcp_syn_retries";

fn network() -> Topology {
    Topology::new()
        .host("client")
        .router("near")
        .router("middle")
        .router("far")
        .host("server")
        .link("client 10.0.0.2/24", "near 10.0.0.1/24")
        .link("near 10.0.1.1/24", "middle 10.0.1.2/24")
        .link("middle 10.0.2.1/24", "far 10.0.2.2/24")
        .link("far 192.0.2.1/24", "server 192.0.2.2/24")
        .route("near", "default", "10.0.1.2")
        .route("middle", "default", "10.0.2.2")
        .route("middle", "10.0.0.0/24", "10.0.1.1")
        .route("far", "default", "10.0.2.1")
        .sysctl("client", TTL, 64)
        .sysctl("server", TTL, 64)
}

// The conduct is the same in all arms: only the network is edited.
fn arms() -> Arms<()> {
    Arms::control("the client's packets begin with a TTL of 64", network(), ())
        .fault("they begin with a TTL of 3", |arm| arm.sysctl("client", TTL, 3))
        .remedy("default-ttl", "ip_default_ttl=64 on the client", |arm| arm.sysctl("client", TTL, 64))
        .remedy("one-more", "ip_default_ttl=4: one for each router, and one", |arm| {
            arm.sysctl("client", TTL, 4);
        })
        .remedy("ttl-of-the-server", "ip_default_ttl=255 on the server", |arm| {
            arm.sysctl("server", TTL, 255);
        })
        .remedy("more-syns", "tcp_syn_retries=10 on the client", |arm| arm.sysctl("client", SYN_RETRIES, 10))
}

/// The first SYN and at least one more.
const PATIENCE: Duration = Duration::from_secs(3);

async fn play(stage: &Stage<'_>, (): &()) -> Result<()> {
    let client = stage.host("client");
    let (_far, _server) = (listen(stage.host("far"), FAR.1)?, listen(stage.host("server"), SERVER.1)?);
    stage.observe("a connect to the third router", connect(client, 0, FAR, PATIENCE).await?);
    let met = connect(client, 0, SERVER, PATIENCE).await?;
    let reported = stage.counters("far")?.get("OutTimeExcds").unwrap_or(0);
    stage.observe_of(&met, "a connect to the server", &*met);
    stage.observe("the third router reports", if reported == 0 { "nothing" } else { "time exceeded" });
    stage.because(format!(
        "the connect met: {met}; IcmpOutTimeExcds +{reported} at the third router",
        met = *met
    ));
    Ok(())
}
