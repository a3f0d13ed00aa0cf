//! "The connect times out although the new pod is up; from another port it works."

use std::net::IpAddr;

use lab::conntrack::{TcpState, Tuple};
use lab::prelude::*;
use lab::topology::rule::Hook;

use crate::service;

const CARD: Card = Card {
    name: "syn-sent-stale-translation",
    title: "A SYN that went to a dead backend takes all of its retransmissions there",
    family: "conntrack translations that outlive their rule",
    saw: "A client connects to a service while its pod is being replaced, or before kube-proxy has written \
          the rules, and gets \"connection timed out\" after two minutes; a new connect() works at once. \
          Clients with a fixed source port, or behind a NAT with few ports, keep failing. conntrack -L \
          shows \"SYN_SENT ... [UNREPLIED]\" with the old pod's address, or without any translation.",
    cause: "The first SYN makes the entry, with the translation of that moment. A retransmission is the same \
            flow: it goes where the first one went, though the rule has long changed. The entry stays for \
            nf_conntrack_tcp_timeout_syn_sent (120 s), and the last SYN of a connect() is sent after 63 s. A \
            client that tries again from the same port gets through when the entry is gone. Before \
            e15d4cdf27cb (5.14, 5.10.166, 5.4.231) each SYN renewed it, and such a client never got through: \
            not within 400 s on 4.9.",
    function: "net/netfilter/nf_conntrack_proto_tcp.c: nf_conntrack_tcp_packet; net/netfilter/nf_nat_core.c: \
               nf_nat_inet_fn",
    cure: "A connect timeout in the application, and another try from a new socket. conntrack -D -p tcp \
           --state SYN_SENT --orig-dst SERVICE when the rule has changed. \
           nf_conntrack_tcp_timeout_syn_sent=20, so that a later SYN of the same connect() is translated \
           anew. Not cures: nf_conntrack_tcp_be_liberal, as nothing is INVALID; a REJECT rule for services \
           without endpoints, which is evaluated after the translation.",
    reading: &[
        "kubernetes/kubernetes#48719: TCP connections have to wait full timeout; #101607: TCP entries remain in stale",
        "aws/amazon-vpc-cni-k8s#3634: a stale SYN_SENT entry leads to another service's pod",
        "e15d4cdf27cb netfilter: conntrack: do not renew entry stuck in tcp SYN_SENT state",
        "tcp(7): tcp_syn_retries; Documentation/networking/nf_conntrack-sysctl.rst: nf_conntrack_tcp_timeout_syn_sent",
    ],
};

const SETTINGS: &[Setting] = &[
    Setting::seconds("syn-sent", "nf_conntrack_tcp_timeout_syn_sent on the node, the kernel's", 7, 120)
        .at_most(Limit::JIFFIES),
    Setting::seconds("shorter", "the same in the syn-sent-20 arm", 1, 20).at_most(Limit::JIFFIES),
    Setting::number("retries", "tcp_syn_retries at the client, the kernel's", "SYNs", RETRIES, [1, 6]),
    Setting::family(),
];

const RETRIES: Limit = Limit { most: 8, why: "with 8 a connect() takes eight and a half minutes" };

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the client's connect()", "connected"), arms, play)
        .needs([Need::Veth, Need::Nat, Need::Conntrack])
        .settings(SETTINGS)
        .lasts(|env| longest_connect(env).max(3 * env.seconds("syn-sent")) + longest_connect(env))
        .eras([Era::every_kernel(
            "a retransmission belongs to the entry of the first SYN; since e15d4cdf27cb it no longer renews it",
        )])
}

/// How long a connect() takes that nobody answers, at most: 1 + 2 + 4 + ... s, and
/// since 6.5 four more SYNs a second apart (tcp_syn_linear_timeouts).
fn longest_connect(env: &Environment) -> Duration {
    Duration::from_secs((2 << env.number("retries")) - 1 + 4)
}

const BACKEND: [u8; 4] = [10, 0, 2, 2];
/// The address of a pod that is gone: it is routed upstream, where nobody has it.
const GONE: [u8; 4] = [10, 244, 1, 7];
const SERVICE: ([u8; 4], u16) = ([10, 96, 0, 1], 80);
const SYN_SENT: &str = "net.netfilter.nf_conntrack_tcp_timeout_syn_sent";
/// The source port of a client that has only this one.
const PORT: u16 = 40_000;

fn rule(service: impl Into<IpAddr>, backend: impl Into<IpAddr>) -> Rule {
    Rule::destination_nat("service", (service, SERVICE.1), (backend, SERVICE.1))
}

/// A rule for what is addressed to the service.
fn of_service(rule: Rule) -> Rule {
    rule.destination(SERVICE.0).tcp().destination_port(SERVICE.1)
}

fn network(env: &Environment) -> Topology {
    Topology::new()
        .host("client")
        .router("node")
        .hosts(["backend", "upstream"])
        .link("client 10.0.1.2/24", "node 10.0.1.1/24")
        .link("node 10.0.2.1/24", "backend 10.0.2.2/24")
        .link("node 192.0.2.2/24", "upstream 192.0.2.1/24")
        .route("node", "default", "192.0.2.1")
        .rule("node", rule(SERVICE.0, GONE))
        // A node tracks flows whether it translates them or not.
        .rule("node", Rule::accept("known").ct_state(CtState::ESTABLISHED | CtState::RELATED))
        .sysctl("node", SYN_SENT, env.number("syn-sent"))
        .sysctl("node", service::BE_LIBERAL, 0)
        .sysctl("client", "net.ipv4.tcp_syn_retries", env.number("retries"))
}

/// When the rule changes, so that it leads to the live backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RuleChanges {
    BeforeTheFirstSyn,
    AfterTheFirstSyn,
}

#[derive(Debug, Clone)]
struct Conduct {
    rule_changes: RuleChanges,
    /// Somebody runs conntrack -D when the rule has changed.
    deletes: bool,
    /// The application's own timeout, after which it opens another socket.
    gives_up: bool,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let shorter = env.number("shorter");
    let base = Conduct { rule_changes: RuleChanges::BeforeTheFirstSyn, deletes: false, gives_up: false };
    let arms = Arms::control("the rule changes to the live backend before the first SYN", network(env), base)
        .fault("the rule changes right after the first SYN, which went to a pod that is gone", |arm| {
            arm.rule_changes = RuleChanges::AfterTheFirstSyn;
        })
        .variant("begun-too-early", "there is no rule yet when the first SYN comes", |arm| {
            arm.rule("node", of_service(Rule::count("service").on(Hook::NatPrerouting)));
        })
        .remedy("delete-entry", "conntrack -D -p tcp --state SYN_SENT when the rule has changed", |arm| {
            arm.deletes = true;
        })
        .remedy("new-socket", "the client gives up after a second and tries from another port", |arm| {
            arm.gives_up = true;
        })
        .remedy(
            "syn-sent-20",
            "nf_conntrack_tcp_timeout_syn_sent=20 on the node (the setting shorter)",
            |arm| {
                arm.sysctl("node", SYN_SENT, shorter);
            },
        )
        .remedy("reject", "the node rejects what is still for the service's address", |arm| {
            arm.rule("node", of_service(Rule::reject("no endpoints")));
        });
    service::be_liberal(arms).in_family(env.family())
}

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (client, node) = (stage.host("client"), stage.host("node"));
    let family = stage.env.family();
    let to = family.socket(SERVICE);
    let conntrack = Conntrack::of(node.namespace())?;
    let _listener = listen(stage.host("backend"), SERVICE.1)?;
    let flow = Tuple::tcp((client.address(), PORT), to);

    let forever = 2 * longest_connect(stage.env);
    let patience = if conduct.gives_up { Duration::from_secs(1) } else { forever };
    let change = |when| {
        if conduct.rule_changes == when {
            node.replace_rule(rule(to.ip(), family.address(BACKEND)))
        } else {
            Ok(())
        }
    };
    change(RuleChanges::BeforeTheFirstSyn)?;
    let changes = async {
        stage.until("the first SYN at the node", || Ok(conntrack.entry(&flow)?.is_some())).await?;
        change(RuleChanges::AfterTheFirstSyn)?;
        let entry = conntrack.entry(&flow)?;
        if conduct.deletes {
            conntrack.delete_where(|e| e.is_of(&flow) && e.tcp_state == Some(TcpState::SynSent))?;
        }
        Ok(entry.map_or(to.ip(), |e| e.reply.source))
    };
    let (mut first, translated) = tokio::try_join!(connect(client, PORT, to, patience), changes)?;
    if conduct.gives_up && !connected(&first) {
        first = connect(client, 0, to, forever).await?;
    }
    stage.observe("the client's connect()", &first);
    let leads_to = [(BACKEND, "the live backend"), (GONE, "the dead backend"), (SERVICE.0, "not translated")];
    let leads_to = leads_to.into_iter().find(|(address, _)| family.address(*address) == translated);
    let leads_to = leads_to.map_or("elsewhere", |(_, name)| name);
    stage.observe("its first SYN was translated to", leads_to);

    let mut again = "not tried";
    let mut tries = 0;
    let enough = 3 * stage.env.seconds("syn-sent");
    while !connected(&first) && again != "connected" && stage.elapsed() < enough.max(forever) {
        tries += 1;
        again =
            if connected(&*connect(client, PORT, to, forever).await?) { "connected" } else { "timed out" };
    }
    let after = stage.elapsed().as_secs();
    stage.because(format!(
        "the first SYN was translated to {leads_to}; the client's connect(): {first}; {tries} more from the same port, \
         until {after} s: {again}",
        first = *first
    ));
    Ok(())
}

fn connected(met: &Connect) -> bool {
    matches!(met, Connect::Connected { .. })
}
