//! "It cannot bind its IPv6 address at boot, and a restart by hand works."
//!
//! RFC 4862 5.4: duplicate address detection (DAD).

use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use lab::prelude::*;
use lab::probe::address::{AddressState, Dad};
use lab::topology::Net;
use socket2::{Domain, Protocol, Socket, Type};

const CARD: Card = Card {
    name: "ipv6-dad-bind",
    title: "A service cannot bind an IPv6 address that was added a moment ago",
    family: "addresses and neighbours",
    saw: "A service or a container starts right after its IPv6 address was added, and exits: \"nginx: [emerg] \
          bind() to [2001:db8::100]:80 failed (99: Cannot assign requested address)\", \"failed to bind udp \
          listener on [2001:db8::1]:53: IO error: Cannot assign requested address (os error 99)\" \
          (aardvark-dns), \"listen tcp [2001:db8::100]:80: bind: cannot assign requested address\" (Go). \
          Started by hand it works. For a second or two `ip addr` shows the address \"tentative\"; later \
          nothing is wrong. Pods with IPv6 take 1.8 to 2.2 s longer to start.",
    cause: "Until duplicate address detection has ended the address is tentative, and bind() fails with \
            EADDRNOTAVAIL. DAD takes a random time up to router_solicitation_delay (1 s), and for each of \
            dad_transmits (1) probes retrans_time (1 s). systemd gives up before that: with Restart=always \
            and its defaults, five starts take half a second.",
    function: "net/ipv6/addrconf.c: addrconf_dad_begin, addrconf_dad_kick, ipv6_chk_addr; \
               net/ipv6/af_inet6.c: __inet6_bind",
    cure: "If the address is known to be unique: add it with nodad (IFA_F_NODAD), or set accept_dad=0 on the \
           interface first. Optimistic DAD needs both: the flag on the address and optimistic_dad=1; the \
           sysctl alone is for autoconfigured addresses. Or let the service bind before the address is \
           usable: net.ipv6.ip_nonlocal_bind=1, IPV6_FREEBIND, or listen on [::]. Or wait until no address \
           is tentative (`ip addr show tentative`). Not: SO_REUSEADDR, net.ipv4.ip_nonlocal_bind, \
           accept_dad=0 in conf/all (the larger of all and the interface counts, and all is 0 already), or \
           in conf/default, which is only for interfaces that are made later.",
    reading: &[
        "RFC 4862 5.4: Duplicate Address Detection; RFC 4429: optimistic DAD",
        "Documentation/networking/ip-sysctl.rst: accept_dad, dad_transmits, optimistic_dad, ip_nonlocal_bind",
        "moby#18871, moby#42830, moby#38491: bind fails after a container start",
        "aardvark-dns#725, systemd#2037: a service that starts while the address is tentative",
        "netavark#261, containernetworking/plugins#695, ovn-kubernetes#937: what container networks do about it",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("bind()", "done"), arms, play)
        .needs([Need::Veth])
        .lasts(|_| CONNECT_AT)
        .eras([Era::every_kernel("an address is tentative until DAD has ended (RFC 4862 5.4)")])
}

const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
const PORT: u16 = 80;

fn network() -> Topology {
    Topology::new()
        .hosts(["client", "server"])
        .link("client 2001:db8::1/64", "server 2001:db8::2/64")
        .interfaces("eth0", "eth0")
        // The kernel's default, for the interface that is made next.
        .sysctl("server", "net.ipv6.conf.default.accept_dad", 1)
        .sysctl("server", "net.ipv6.ip_nonlocal_bind", 0)
        .sysctl_where_known("server", "net.ipv6.conf.default.optimistic_dad", 0)
}

#[derive(Debug, Clone)]
struct Conduct {
    /// What is set on the server when its interface is up.
    sets: &'static [(&'static str, &'static str)],
    /// How the address is added.
    dad: Dad,
    starts: Starts,
    /// How often the service is started, at most, in [`RESTART`] intervals.
    tries: u32,
    binds: Binds,
}

/// When the service starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starts {
    /// Long after the address was added.
    Later,
    /// Right after it.
    AtOnce,
    /// When the kernel no longer reports it as tentative.
    WhenUsable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binds {
    Address,
    /// With SO_REUSEADDR.
    ReuseAddress,
    /// With IPV6_FREEBIND.
    FreeBind,
    /// [::].
    AnyAddress,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let base =
        Conduct { sets: &[], dad: Dad::Default, starts: Starts::Later, tries: 1, binds: Binds::Address };
    Arms::control("the service starts three seconds after its address was added", network(), base)
        .fault("the service starts right after its address was added", |arm| arm.starts = Starts::AtOnce)
        .remedy("nodad", "the address is added with IFA_F_NODAD", |arm| arm.dad = Dad::Skipped)
        .remedy("accept-dad-off", "accept_dad=0 on the interface", |arm| {
            arm.sets = &[("net.ipv6.conf.eth0.accept_dad", "0")];
        })
        .remedy("no-probes", "dad_transmits=0 and router_solicitation_delay=0 on the interface", |arm| {
            arm.sets = &[
                ("net.ipv6.conf.eth0.dad_transmits", "0"),
                ("net.ipv6.conf.eth0.router_solicitation_delay", "0"),
            ];
        })
        .remedy("optimistic", "optimistic_dad=1, and the address is added with IFA_F_OPTIMISTIC", |arm| {
            arm.sysctl("server", "net.ipv6.conf.default.optimistic_dad", 1);
            arm.dad = Dad::Optimistic;
        })
        // Userspace can set the flag since 4.18.
        .only_where(env.kernel.at_least(4, 18))
        .remedy("nonlocal-bind", "net.ipv6.ip_nonlocal_bind=1", |arm| {
            arm.sysctl("server", "net.ipv6.ip_nonlocal_bind", 1);
        })
        .remedy("freebind", "the service sets IPV6_FREEBIND", |arm| arm.binds = Binds::FreeBind)
        .only_where(env.kernel.at_least(4, 15))
        .remedy("any-address", "the service binds [::]", |arm| arm.binds = Binds::AnyAddress)
        .remedy("wait", "the service starts when the address is no longer tentative", |arm| {
            arm.starts = Starts::WhenUsable;
        })
        .remedy("restarts", "five starts, 100 ms apart", |arm| arm.tries = 5)
        .remedy("reuseaddr", "the service sets SO_REUSEADDR", |arm| arm.binds = Binds::ReuseAddress)
        .remedy("nonlocal-bind-ipv4", "net.ipv4.ip_nonlocal_bind=1", |arm| {
            arm.sysctl("server", "net.ipv4.ip_nonlocal_bind", 1);
        })
        .remedy("accept-dad-off-in-all", "conf/all/accept_dad=0, which it is already", |arm| {
            arm.sets = &[("net.ipv6.conf.all.accept_dad", "0")];
        })
        .remedy(
            "accept-dad-off-in-default",
            "conf/default/accept_dad=0, when the interface is there",
            |arm| {
                arm.sets = &[("net.ipv6.conf.default.accept_dad", "0")];
            },
        )
        .remedy("optimistic-sysctl-alone", "optimistic_dad=1", |arm| {
            arm.sysctl("server", "net.ipv6.conf.default.optimistic_dad", 1);
        })
        .remedy("optimistic-flag-alone", "the address is added with IFA_F_OPTIMISTIC", |arm| {
            arm.dad = Dad::Optimistic;
        })
}

/// What a service takes to start: less than the shortest DAD of one second, and long
/// enough for the work item that completes DAD, which runs even if DAD is skipped.
const START: Duration = Duration::from_millis(200);
/// systemd.service(5): RestartSec=. DefaultStartLimitBurst= is 5.
const RESTART: Duration = Duration::from_millis(100);
/// After the longest DAD, of two seconds.
const LATER: Duration = Duration::from_secs(3);
const CONNECT_AT: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(2);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (client, server) = (stage.host("client"), stage.host("server"));
    let failed = |tried: &'static str| move |e| Error::kernel(server.name(), tried, e);
    for (key, value) in conduct.sets {
        sysctl::set(server.namespace(), key, value)?;
    }
    let index = server.interface("eth0").index;
    let net = Net::new(ADDRESS, 64);
    address::add_with(server.namespace(), index, net, conduct.dad).map_err(failed("add the address"))?;
    let begun = stage.elapsed();
    let passed = || stage.elapsed().saturating_sub(begun);
    let reported =
        || address::state(server.namespace(), ADDRESS.into()).map_err(failed("ask for the address"));

    stage.pass(START).await;
    match conduct.starts {
        Starts::AtOnce => {}
        Starts::Later => stage.pass(LATER).await,
        Starts::WhenUsable => {
            stage
                .until("the address is no longer tentative", || Ok(reported()? == AddressState::Usable))
                .await?;
        }
    }
    stage.observe("the address", reported()?);
    let mut listener = bind(server, conduct.binds).map_err(failed("bind"))?;
    for _ in 1..conduct.tries {
        if listener.is_none() {
            stage.pass(RESTART).await;
            listener = bind(server, conduct.binds).map_err(failed("bind"))?;
        }
    }
    let bound = if listener.is_some() { "done" } else { "EADDRNOTAVAIL" };
    stage.observe("bind()", bound);
    let after = passed().as_secs_f32();

    stage.pass(CONNECT_AT.saturating_sub(passed())).await;
    let usable = reported()?;
    let met = connect(client, 0, (ADDRESS, PORT), PATIENCE).await?;
    stage.observe_of(&met, "a client's connect, later", &*met);
    stage.because(format!(
        "bind() {after:.1} s after the address was added met: {bound}; when it had long been {usable}, a client's \
         connect met: {met}",
        met = *met
    ));
    Ok(())
}

/// A listening socket; `None` for EADDRNOTAVAIL.
fn bind(server: &Host, binds: Binds) -> io::Result<Option<Socket>> {
    let to = if binds == Binds::AnyAddress { Ipv6Addr::UNSPECIFIED } else { ADDRESS };
    let bound: io::Result<Socket> = server.namespace().enter(|| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        match binds {
            Binds::Address | Binds::AnyAddress => {}
            Binds::ReuseAddress => socket.set_reuse_address(true)?,
            Binds::FreeBind => socket.set_freebind_v6(true)?,
        }
        socket.bind(&SocketAddr::from((to, PORT)).into())?;
        socket.listen(128)?;
        Ok(socket)
    });
    match bound {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(None),
        Err(error) => Err(error),
    }
}
