//! "I can ping the container and cannot curl it." It is not the container that answers.
//!
//! ```text
//! client -- lan -- old        a container that is gone, and its namespace is not
//!              \-- new        10.0.0.100, given to the next container
//! ```

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use lab::prelude::*;
use lab::topology::Net;

use crate::actors::arping;

const CARD: Card = Card {
    name: "namespace-held-by-a-descriptor",
    title: "A container is gone but its network namespace is not, and the next container gets the same address",
    family: "addresses and neighbours",
    saw: "\"Cannot curl a container, but can ping it\", \"sometimes containers cannot connect but they still \
          respond to ping\", \"can still ping container IP address after removing container\". Connects to a \
          new container randomly fail with \"connection refused\", from some clients only. `arping` shows \
          two MAC addresses for one IP address. The bridge has a zombie veth, UP, whose peer is in no \
          container and in no `ip netns`.",
    cause: "A network namespace lives until the last reference to it is gone: a process, a bind mount, an \
            open descriptor, or a socket that was created in it. When a daemon leaks one of the last two, as \
            dockerd did to docker-proxy, the veth and the address of the dead container stay, and the kernel \
            answers ARP, ping and SYNs there without any process.",
    function: "include/net/net_namespace.h: put_net; net/core/net_namespace.c: cleanup_net",
    cure: "End the process that has the descriptor or the socket (`lsns -t net`, or /proc/*/fd with that \
           inode; a leaked socket is listed only by a recent lsns). Or delete the veth on the bridge: its \
           peer goes too. Open such descriptors with O_CLOEXEC. Gratuitous ARP from the new container \
           corrects the entries that clients have, until they ask again. Not: `ip neigh flush` on the \
           client: it asks again, and both answer.",
    reading: &[
        "moby#32090: Docker leaks container netns netlink sockets to forked docker-proxy processes",
        "moby#41136: the container's netns fds leak",
        "kontena#2024: Zombie Weave containers remain undead after the Docker container is destroyed",
        "weave#2842: Cannot curl a container, but can ping it; weave#1455, weave#2433, lxd#2224",
        "network_namespaces(7), ioctl_ns(2)",
    ],
};

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("a connect to the new container", "connected"), |_| arms(), play)
        .needs([Need::Veth, Need::PacketSocket])
        .recheck(Recheck::Look)
        .lasts(|_| 3 * PATIENCE)
        .eras([Era::every_kernel("a descriptor and a socket refer to their namespace")])
}

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const PORT: u16 = 80;
/// For a namespace to be freed, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// A bridge floods to its newest port first, so the answer of `old` arrives first: the
/// fault is deterministic here, and random in practice.
fn network() -> Topology {
    Topology::new()
        .bridge("lan")
        .hosts(["client", "new", "old"])
        .link("client 10.0.0.1/24", "lan")
        .link("new 10.0.0.2/24", "lan")
        .link("old 10.0.0.3/24", "lan")
}

#[derive(Debug, Clone)]
struct Conduct {
    /// What is left of the old container.
    left: Left,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    Nothing,
    /// A descriptor of its namespace, in another process.
    Descriptor,
    /// A socket that was created in it.
    Socket,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    /// What is left is closed.
    Close,
    /// The bridge's end of its veth is deleted.
    DeleteTheVeth,
    /// The client has connected before, and the new container sends a gratuitous ARP
    /// request.
    Announce,
    /// The client has connected before, and deletes its neighbour entry.
    Forget,
}

fn arms() -> Arms<Conduct> {
    let base = Conduct { left: Left::Nothing, then: Then::Nothing };
    Arms::control("nothing refers to the old container's namespace", network(), base)
        .fault("a descriptor of the old container's namespace is open", |arm| arm.left = Left::Descriptor)
        .variant("socket", "instead, a socket that was created in it is open", |arm| arm.left = Left::Socket)
        .remedy("close", "the descriptor is closed", |arm| arm.then = Then::Close)
        .remedy("delete-the-veth", "the old veth is deleted on the bridge", |arm| {
            arm.then = Then::DeleteTheVeth;
        })
        .remedy(
            "gratuitous-arp",
            "the client has connected; the new container sends a gratuitous ARP request",
            |arm| {
                arm.then = Then::Announce;
            },
        )
        .remedy("forget", "the client deletes its neighbour entry and connects again", |arm| {
            arm.then = Then::Forget;
        })
}

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let [client, lan, new, old] = ["client", "lan", "new", "old"].map(|name| stage.host(name));
    let failed = |tried: &'static str| move |e| Error::kernel("lan", tried, e);
    let net = Net::new(ADDRESS, 24);
    // The old container: its namespace has a process with a listener.
    let container = Namespace::new("old container")?;
    let index = old.interface("lan").index;
    link::move_to(old.namespace(), "lan", &container).map_err(failed("move a link"))?;
    link::set_up(&container, "lan").map_err(failed("set a link up"))?;
    address::add(&container, index, net).map_err(failed("add the address"))?;
    let process = container.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)));
    let process = process.map_err(failed("listen"))?;
    let mut left: Option<OwnedFd> = match conduct.left {
        Left::Nothing => None,
        Left::Descriptor => Some(container.as_fd().try_clone_to_owned().map_err(failed("dup"))?),
        Left::Socket => {
            let socket = container.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
            Some(socket.map_err(failed("create a socket"))?.into())
        }
    };
    // It ends, and the next one gets its address.
    drop(process);
    drop(container);
    match conduct.then {
        Then::Close => left = None,
        Then::DeleteTheVeth => link::delete(lan.namespace(), "old").map_err(failed("delete the veth"))?,
        Then::Nothing | Then::Announce | Then::Forget => {}
    }
    let freed = link::vanishes(lan, "old", PATIENCE).await;
    address::add(new.namespace(), new.interface("lan").index, net).map_err(failed("add"))?;
    let _listener = listen(new, PORT)?;
    match conduct.then {
        Then::Announce => {
            connect(client, 0, (ADDRESS, PORT), PATIENCE).await?;
            arping::announce(new, new.interface("lan"), ADDRESS)?;
        }
        Then::Forget => {
            connect(client, 0, (ADDRESS, PORT), PATIENCE).await?;
            let index = client.interface("lan").index;
            neighbour::delete(client.namespace(), index, ADDRESS.into()).map_err(failed("forget"))?;
        }
        Then::Nothing | Then::Close | Then::DeleteTheVeth => {}
    }
    let met = connect(client, 0, (ADDRESS, PORT), PATIENCE).await?;
    stage.observe("a connect to the new container", &met);
    stage.observe("the old container's veth", if freed { "is gone" } else { "stays" });
    stage.because(format!(
        "the old container's veth {}; a connect to its address, which the new one has now: {}",
        if freed { "was gone" } else { "was still there" },
        *met
    ));
    stage
        .hold_for_shell(async || {
            if let Ok(met) = connect(client, 0, (ADDRESS, PORT), PATIENCE).await {
                stage.observe("a connect to the new container", &met);
            }
        })
        .await;
    drop(left);
    Ok(())
}
