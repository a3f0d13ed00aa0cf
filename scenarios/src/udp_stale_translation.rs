//! "DNS to the service is black-holed after the pod restarted; conntrack -D cures it."

use std::net::IpAddr;

use lab::conntrack::{Transport, Tuple};
use lab::prelude::*;
use lab::topology::rule::Hook;

const CARD: Card = Card {
    name: "udp-stale-translation",
    title: "A UDP client that keeps its port goes on talking to a backend that is gone",
    family: "conntrack translations that outlive their rule",
    saw: "After a pod restarted, DNS, syslog, statsd or SIP to its service is black-holed: \"read udp \
          10.244.1.7:40000->10.96.0.10:53: i/o timeout\". Other clients of the same node are fine. conntrack \
          -L shows an entry that never expires; its reply direction has the old pod's address, and it is \
          often [UNREPLIED]. Hours later it is still there; \"conntrack -D -p udp\" cures it at once.",
    cause: "A NAT rule translates the first datagram of a flow, and conntrack translates the rest. A client \
            that keeps its source port is the same flow to conntrack, and each datagram gives the entry \
            another 30 s (nf_conntrack_udp_timeout) or 120 s (_stream; 180 s before 5.0), answered or not. \
            Changing the rule changes no entry. The same happens to a client that began when the service had \
            no rule yet: its entry says that nothing is translated.",
    function: "net/netfilter/nf_conntrack_proto_udp.c: nf_conntrack_udp_packet; net/netfilter/nf_nat_core.c: \
               nf_nat_inet_fn",
    cure: "Delete the entries when the backend is gone, after the rule has changed: conntrack -D -p udp \
           --orig-dst SERVICE, as kube-proxy does (reconciled since 1.32; see 139628 for services without \
           endpoints). A client that uses a new socket for each question, or is silent for longer than the \
           timeout. Not cures: waiting while the client talks, and a timeout that is longer than its pauses. \
           A REJECT rule for services without endpoints helps only a client that begins while there is none: \
           its datagram is dropped before the entry is confirmed. It no longer matches what is translated \
           already.",
    reading: &[
        "kubernetes/kubernetes#125467, #125979, #105657, #66651: stale UDP entries; #126130: the reconciler",
        "kubernetes/kubernetes#139628: never cleaned up when a service scales down to zero endpoints",
        "kubernetes/kubernetes#48370: clients that began before there was an endpoint",
        "Documentation/networking/nf_conntrack-sysctl.rst: nf_conntrack_udp_timeout, nf_conntrack_udp_timeout_stream",
    ],
};

const SETTINGS: &[Setting] = &[
    Setting::seconds("timeout", "nf_conntrack_udp_timeout on the node, the kernel's", 2, 30)
        .at_most(Limit::JIFFIES),
    Setting::seconds("stream-timeout", "nf_conntrack_udp_timeout_stream on the node, the kernel's", 3, 120)
        .at_most(Limit::JIFFIES),
    Setting::seconds("shorter", "both, in the shorter-timeout arm", 2, 15).at_most(Limit::JIFFIES),
    Setting::seconds("interval", "how often the client asks", 1, 10),
    Setting::family(),
];

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the client's last question", "received"), arms, play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack])
        .settings(SETTINGS)
        .lasts(|env| silence(env) + watch(env) + 4 * env.seconds("interval"))
        .eras([Era::every_kernel("a datagram in either direction refreshes the entry of its flow")])
}

/// Longer than any of the timeouts.
fn silence(env: &Environment) -> Duration {
    env.seconds("timeout").max(env.seconds("stream-timeout")) + Duration::from_secs(1)
}

/// How long the client goes on asking.
fn watch(env: &Environment) -> Duration {
    silence(env) * 3 / 2
}

const SERVICE: ([u8; 4], u16) = ([10, 96, 0, 10], 53);
const BACKENDS: [(&str, [u8; 4]); 2] = [("backend-a", [10, 0, 2, 2]), ("backend-b", [10, 0, 3, 2])];
const TIMEOUTS: [&str; 2] =
    ["net.netfilter.nf_conntrack_udp_timeout", "net.netfilter.nf_conntrack_udp_timeout_stream"];

/// The rule of the service, with a backend.
fn service(backend: impl Into<IpAddr>, service: impl Into<IpAddr>) -> Rule {
    Rule::destination_nat("service", (service, SERVICE.1), (backend, SERVICE.1)).udp()
}

/// A rule for what is addressed to the service.
fn of_service(rule: Rule) -> Rule {
    rule.destination(SERVICE.0).udp().destination_port(SERVICE.1)
}

/// The rule of the service without a backend.
fn no_backend() -> Rule {
    of_service(Rule::count("service").on(Hook::NatPrerouting))
}

fn network(env: &Environment) -> Topology {
    Topology::new()
        .host("client")
        .router("node")
        .hosts(["backend-a", "backend-b", "upstream"])
        .link("client 10.0.1.2/24", "node 10.0.1.1/24")
        .link("node 10.0.2.1/24", "backend-a 10.0.2.2/24")
        .link("node 10.0.3.1/24", "backend-b 10.0.3.2/24")
        // What is not translated goes upstream, where nobody knows the service.
        .link("node 192.0.2.2/24", "upstream 192.0.2.1/24")
        .route("node", "default", "192.0.2.1")
        .rule("node", service(BACKENDS[0].1, SERVICE.0))
        // A node tracks flows whether it translates them or not.
        .rule("node", Rule::accept("known").ct_state(CtState::ESTABLISHED | CtState::RELATED))
        .sysctl("node", TIMEOUTS[0], env.number("timeout"))
        .sysctl("node", TIMEOUTS[1], env.number("stream-timeout"))
}

/// When somebody runs conntrack -D on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deletes {
    Never,
    BeforeTheRuleChanges,
    AfterTheRuleChanged,
}

#[derive(Debug, Clone)]
struct Conduct {
    /// backend-a falls silent, and the rule leads to backend-b.
    backend_changes: bool,
    deletes: Deletes,
    new_port_each_time: bool,
    pause: Duration,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let (shorter, silence) = (env.seconds("shorter"), silence(env));
    let base = Conduct {
        backend_changes: false,
        deletes: Deletes::Never,
        new_port_each_time: false,
        pause: Duration::ZERO,
    };
    Arms::control("the backend stays", network(env), base)
        .fault("the backend is replaced by another; the client goes on asking", |arm| {
            arm.backend_changes = true;
        })
        .variant("begun-too-early", "the client begins when the service has no endpoint yet", |arm| {
            arm.rule("node", no_backend());
        })
        .variant("begun-too-early-reject", "the same, and the node rejects what is for it", |arm| {
            arm.rule("node", no_backend());
            arm.rule("node", of_service(Rule::reject("no endpoints")));
        })
        .remedy("delete-entry", "conntrack -D for the service, after the rule has changed", |arm| {
            arm.deletes = Deletes::AfterTheRuleChanged;
        })
        .remedy(
            "delete-too-early",
            "conntrack -D for the service, a question before the rule changes",
            |arm| {
                arm.deletes = Deletes::BeforeTheRuleChanges;
            },
        )
        .remedy("new-port", "the client opens a new socket for each question", |arm| {
            arm.new_port_each_time = true;
        })
        .remedy("silence", "the client pauses for longer than the timeout", |arm| arm.pause = silence)
        .remedy("shorter-timeout", "shorter timeouts, but longer than the client's interval", |arm| {
            for key in TIMEOUTS {
                arm.sysctl("node", key, shorter.as_secs());
            }
        })
        .remedy("reject", "the node rejects what is still for the service's address", |arm| {
            arm.rule("node", of_service(Rule::reject("no endpoints")));
        })
        .in_family(env.family())
}

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (client, node) = (stage.host("client"), stage.host("node"));
    let conntrack = Conntrack::of(node.namespace())?;
    let family = stage.env.family();
    let to = family.socket(SERVICE);
    let backends = BACKENDS.map(|(name, _)| UdpServer::start(stage.host(name), SERVICE.1));
    let [first, second] = backends;
    let backends = [first?, second?];
    let received = || backends.each_ref().map(UdpServer::received);
    // conntrack -D -p udp --orig-dst SERVICE
    let delete = || {
        conntrack.delete_where(|e| {
            matches!(e.original.transport, Transport::Udp { .. }) && e.original.destination == to.ip()
        })
    };

    let mut socket = UdpClient::open(client, 0, to)?;
    let interval = stage.env.seconds("interval");
    let mut ask = async || {
        if conduct.new_port_each_time {
            socket = UdpClient::open(client, 0, to)?;
        }
        let begun = stage.elapsed();
        let met = socket.ask(interval).await?;
        stage.pass((begun + interval).saturating_sub(stage.elapsed())).await;
        Ok::<_, Error>((met, socket.local()))
    };
    let (begins, _) = ask().await?;
    if conduct.deletes == Deletes::BeforeTheRuleChanges {
        delete()?;
    }
    ask().await?;
    if conduct.backend_changes {
        backends[0].fall_silent();
        node.replace_rule(service(family.address(BACKENDS[1].1), to.ip()))?;
    }
    if conduct.deletes == Deletes::AfterTheRuleChanged {
        delete()?;
    }

    stage.pass(conduct.pause).await;
    let (end, mut asked, mut answered_at) = (stage.elapsed() + watch(stage.env), 0, None);
    let (last, from, before) = loop {
        let before = received();
        let (met, from) = ask().await?;
        asked += 1;
        answered_at = answered_at.or((met == Reply::Received).then_some(asked));
        if stage.elapsed() >= end {
            break (met, from, before);
        }
    };
    let reached = before.iter().zip(received()).position(|(before, after)| after > *before);
    let entry = conntrack.entry(&Tuple::udp(from, to))?;
    let translated = match entry.map(|e| e.reply.source) {
        None => "no entry",
        Some(source) => BACKENDS
            .iter()
            .find(|(_, address)| family.address(*address) == source)
            .map_or("not translated", |(name, _)| *name),
    };
    stage.observe("the client's last question", last);
    let reached = reached.map_or("neither backend", |which| BACKENDS[which].0);
    stage.observe("it reached", reached);
    stage.observe("its conntrack entry leads to", translated);
    let answered = match answered_at {
        None => "never",
        Some(1) => "at once",
        Some(_) => "later",
    };
    stage.observe("answered again", answered);
    let (watched, interval) = (watch(stage.env).as_secs(), interval.as_secs());
    stage.because(format!(
        "the client's first question: {begins}; later it asked every {interval} s for {watched} s, and was \
         answered {answered}; its last question reached {reached}, its entry leads to: {translated}",
        begins = *begins
    ));
    Ok(())
}
