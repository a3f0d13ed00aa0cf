//! "The failover worked, and for half a minute some clients see nothing of it."
//!
//! ```text
//!            /-- old
//! client -- lan
//!            \-- new     10.0.0.100 moves from old to new
//! ```

use std::net::{Ipv4Addr, UdpSocket};

use lab::prelude::*;
use lab::topology::Net;

use crate::actors::arping;

const CARD: Card = Card {
    name: "stale-neighbour",
    title: "An address has moved to another machine, and the packets still go to the old one",
    family: "addresses and neighbours",
    saw: "After a failover (keepalived, a virtual IP, a container that was recreated with the same address) \
          the address does not answer for half a minute or more; from another client, or after `ip neigh \
          flush`, it does. `ip neigh` shows the MAC address of the old machine, REACHABLE; tcpdump on the old \
          machine shows the SYNs.",
    cause: "The client's neighbour entry is used without a probe for reachable_time (random, half to one and \
            a half of base_reachable_time, 30 s), then for delay_first_probe_time (5 s), and until three \
            unicast probes to the old MAC address got no answer (3 s). Progress of TCP with the address \
            confirms the entry and restarts this. Adding an address to a running interface announces \
            nothing: arp_notify acts when the interface comes up.",
    function: "net/core/neighbour.c: neigh_timer_handler, neigh_update; net/ipv4/arp.c: arp_process",
    cure: "The machine that takes the address announces it: gratuitous ARP (arping -U, as keepalived sends \
           it), or any ARP request from that address to the client. On a client: delete the entry. Up to \
           4.12 an announcement within a second (locktime) of the last change of the entry is ignored; one \
           that is repeated is not. Not: a shorter base_reachable_time, arp_notify on the new machine, or \
           arp_accept on the client where nobody announces.",
    reading: &[
        "RFC 826: ARP; RFC 5227 3: announcements",
        "arp(7): base_reachable_time_ms, delay_first_probe_time, ucast_solicit, locktime",
        "Documentation/networking/ip-sysctl.rst: arp_notify, arp_accept",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("a connect at once", "connected"), arms, play)
        .needs([Need::Veth, Need::PacketSocket])
        .settings([
            Setting::seconds("reachable", "base_reachable_time of the client", 2, 30).at_most(LONGEST),
            Setting::seconds("shorter", "the same in the shorter-reachable-time arm", 1, 5).at_most(LONGEST),
        ])
        .lasts(|env| PATIENCE + outage(env.seconds("reachable")))
        .eras([
            Era::new("gratuitous-arp-overrides", "4.13 and later", |env| env.kernel.at_least(4, 13)).since(
                "7d472a59c0e5: gratuitous ARP overrides an entry at once, also within its locktime (1 s)",
            ),
            Era::new("locktime", "up to 4.12 (run on 4.9)", |_| true)
                .since("a gratuitous ARP within locktime (1 s) of the entry's last change is ignored"),
        ])
}

const LONGEST: Limit =
    Limit { most: 3600, why: "the kernel keeps it in milliseconds, and gives it at random" };

/// Longer than one and a half times base_reachable_time, 5 s, three probes, and the
/// connect that comes after them.
fn outage(reachable: Duration) -> Duration {
    3 * reachable + Duration::from_secs(20)
}

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const PORT: u16 = 80;
const REACHABLE: &str = "net.ipv4.neigh.lan.base_reachable_time_ms";

fn network() -> Topology {
    let made = Topology::new()
        .bridge("lan")
        .hosts(["client", "old", "new"])
        .link("client 10.0.0.1/24", "lan")
        .link("old 10.0.0.2/24", "lan")
        .link("new 10.0.0.3/24", "lan");
    ["client", "old", "new"].into_iter().fold(made, |made, host| {
        ["all", "default"].into_iter().fold(made, |made, which| {
            let key = |name: &str| format!("net.ipv4.conf.{which}.{name}");
            made.sysctl(host, &key("arp_notify"), 0).sysctl(host, &key("arp_accept"), 0)
        })
    })
}

#[derive(Debug, Clone)]
struct Conduct {
    /// Whether the address moves to the new machine.
    moves: bool,
    /// Whether the old machine keeps it as well.
    old_keeps_it: bool,
    /// What follows the move.
    then: Then,
    /// base_reachable_time of the client.
    reachable: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    /// The new machine sends a gratuitous ARP request.
    Announce,
    /// The same, when the entry has not changed for longer than locktime.
    AnnounceLater,
    /// The new machine sends the client a datagram from the address.
    Speak,
    /// The client deletes its entry.
    Forget,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let reachable = env.seconds("reachable");
    let base = Conduct { moves: false, old_keeps_it: false, then: Then::Nothing, reachable };
    Arms::control("the address stays at the old machine", network(), base)
        .fault("the address moves to the new machine", |arm| arm.moves = true)
        .variant("old-keeps-it", "the old machine keeps the address too, and its service is stopped", |arm| {
            arm.old_keeps_it = true;
        })
        .remedy("gratuitous-arp", "the new machine sends a gratuitous ARP request (arping -U)", |arm| {
            arm.then = Then::Announce;
        })
        .remedy("gratuitous-arp-later", "the same, two seconds after the move", |arm| {
            arm.then = Then::AnnounceLater;
        })
        .remedy("new-machine-speaks", "the new machine sends the client a datagram from the address", |arm| {
            arm.then = Then::Speak;
        })
        .remedy("forget", "the client deletes its neighbour entry", |arm| arm.then = Then::Forget)
        .remedy("arp-notify", "arp_notify=1 on the new machine", |arm| {
            arm.sysctl("new", "net.ipv4.conf.all.arp_notify", 1);
        })
        .remedy("arp-accept", "arp_accept=1 on the client, and nobody announces", |arm| {
            arm.sysctl("client", "net.ipv4.conf.all.arp_accept", 1);
        })
        .remedy("shorter-reachable-time", "a shorter base_reachable_time on the client", |arm| {
            arm.reachable = env.seconds("shorter");
        })
}

/// The first SYN and at least two more, 1 and 3 s later; shorter than DELAY and PROBE
/// take.
const PATIENCE: Duration = Duration::from_secs(4);
/// arp(7): locktime.
const LOCKTIME: Duration = Duration::from_secs(1);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let [client, old, new] = ["client", "old", "new"].map(|name| stage.host(name));
    let (at_old, at_new) = (old.interface("lan"), new.interface("lan"));
    let failed = |tried: &'static str| move |e| Error::kernel("lan", tried, e);
    let net = Net::new(ADDRESS, 24);
    let milliseconds = conduct.reachable.as_millis().to_string();
    sysctl::set(client.namespace(), REACHABLE, &milliseconds)?;
    address::add(old.namespace(), at_old.index, net).map_err(failed("add the address"))?;
    Flow::open(client, (ADDRESS, PORT), old, PORT).await?.close(Side::Client).await?;

    let listener_at = if conduct.moves { new } else { old };
    if conduct.moves {
        if !conduct.old_keeps_it {
            address::delete(old.namespace(), at_old.index, net).map_err(failed("remove the address"))?;
        }
        address::add(new.namespace(), at_new.index, net).map_err(failed("move the address"))?;
    }
    let _listener = listen(listener_at, PORT)?;
    match conduct.then {
        Then::Nothing => {}
        Then::Announce => arping::announce(new, at_new, ADDRESS)?,
        Then::AnnounceLater => {
            stage.pass(2 * LOCKTIME).await;
            arping::announce(new, at_new, ADDRESS)?;
        }
        Then::Speak => {
            let socket = new.namespace().enter(|| UdpSocket::bind((ADDRESS, 0)));
            let socket = socket.map_err(failed("bind the address"))?;
            socket.send_to(b"hello", (client.address(), 9)).map_err(failed("send a datagram"))?;
        }
        Then::Forget => {
            let index = client.interface("lan").index;
            neighbour::delete(client.namespace(), index, ADDRESS.into()).map_err(failed("forget"))?;
        }
    }
    let met = connect(client, 0, (ADDRESS, PORT), PATIENCE).await?;
    stage.observe_of(&met, "a connect at once", &*met);
    // A patient client connects again and again, so that the entry is in use all the time.
    let begun = stage.elapsed();
    let waited = || stage.elapsed().saturating_sub(begun);
    let later = loop {
        let met = connect(client, 0, (ADDRESS, PORT), PATIENCE).await?;
        if !matches!(*met, Connect::TimedOut { .. }) || waited() > outage(conduct.reachable) {
            break met;
        }
    };
    stage.observe_of(&later, "a connect in the end", &*later);
    stage.because(format!(
        "a connect right after the move met: {met}; the last one, {after:.0} s later, met: {later}",
        met = *met,
        after = waited().as_secs_f32(),
        later = *later
    ));
    Ok(())
}
