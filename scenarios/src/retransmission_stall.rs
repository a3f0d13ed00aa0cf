//! "The Redis node went away, and the command hung for fifteen minutes."
//!
//! net/ipv4/tcp_timer.c, tcp_model_timeout(): tcp_retries2 is a time. It is how
//! long as many retransmissions would take, the first after 0.2 s and each later
//! one after twice as long, up to 120 s: 924.6 s for 15. The connection ends when
//! the first RTO after that time expires. On a LAN, 12.6 s can be 25.

use lab::prelude::*;

use crate::actors::keepalive_schedule;
use crate::sysctls;

const CARD: Card = Card {
    name: "retransmission-stall",
    title: "The peer's link dies silently, and the next command hangs for fifteen minutes",
    family: "stalls",
    saw: "After a failover, a reboot or a power cut at the other end, clients hang for 15 minutes: \
          \"Connection does not re-establish for 15 minutes when running on Linux\". `ss -ti` shows ESTAB, \
          Send-Q 14 and \"timer:(on,42sec,13)\", rto:120000 backoff:13. Then read() fails with \"Connection \
          timed out\" (ETIMEDOUT). Clients on Windows recover within a minute, and keepalive is on.",
    cause: "Unacknowledged data is retransmitted, at intervals that double from 0.2 s to 120 s, until \
            tcp_retries2 (15) is reached: at the first RTO after 924.6 s, which may be two minutes later. \
            Keepalive does not begin while data is unacknowledged.",
    function: "net/ipv4/tcp_timer.c: tcp_write_timeout, retransmits_timed_out; tcp_keepalive_timer",
    cure: "TCP_USER_TIMEOUT on the socket; tcp_retries2=8 (at least 102.2 s) or 5 (12.6 s) for all sockets; \
           a timeout of the application after which it closes the connection; since 6.15 a smaller \
           tcp_rto_max_ms. Keepalive does not help, however short.",
    reading: &[
        "StackExchange.Redis#1848, redis-py#722, ioredis#1932, kubernetes#77903: clients that hang for 15 minutes",
        "Documentation/networking/ip-sysctl.rst: tcp_retries2, tcp_rto_max_ms",
        "RFC 6298 5: managing the RTO timer; RFC 1122 4.2.3.5: R2, at least 100 s",
        "tcp(7): TCP_USER_TIMEOUT",
        "1280c26228bd tcp: add tcp_rto_max_ms sysctl (6.15)",
        "b701a99e431d tcp: add tcp_clamp_rto_to_user_timeout() (4.19): before, TCP_USER_TIMEOUT ended at the next retransmission",
    ],
};

const SETTINGS: &[Setting] = &[
    Setting::number("retries2", "tcp_retries2 at the client, the kernel's", "retries", Limit::BYTE, [4, 15]),
    Setting::number("retries2-8", "the same in the arm retries2-8", "retries", Limit::BYTE, [2, 8]),
    Setting::number("retries2-5", "the same in the arm retries2-5", "retries", Limit::BYTE, [1, 5]),
    Setting::seconds("user-timeout", "TCP_USER_TIMEOUT of the arm that sets it", 2, 30)
        .at_most(Limit::USER_TIMEOUT),
    Setting::seconds("app-timeout", "after how long the application of that arm gives up", 2, 30),
    Setting::seconds("rto-max", "tcp_rto_max_ms of the arm that sets it, in seconds", 1, 5).at_most(RTO_MAX),
    Setting::seconds("outage", "how long the peer that reboots is away", 2, 300),
    Setting::seconds("patience", "a command that takes longer has hung", 5, 120),
];

/// net/ipv4/sysctl_net_ipv4.c: tcp_rto_max_ms.
const RTO_MAX: Limit = Limit { most: 120, why: "the kernel takes at most TCP_RTO_MAX_SEC" };

/// The scenario.
pub fn scenario() -> Scenario {
    Scenario::new(CARD, ("the command hangs", "no"), arms, play)
        .needs([Need::Veth, Need::PacketSocket])
        .settings(SETTINGS)
        // The next RTO expires after twice as long.
        .lasts(|env| 2 * nominal(env.number("retries2"), LONGEST_RTO))
        .eras([
            Era::new("rto-max", "6.15 and later", |env| env.kernel.has_sysctl(RTO_MAX_MS))
                .since("1280c26228bd: the longest RTO can be set, by tcp_rto_max_ms"),
            Era::new("fixed-rto-max", "4.19 to 6.14", |env| env.kernel.at_least(4, 19))
                .since("b701a99e431d: TCP_USER_TIMEOUT ends the connection on time"),
            Era::new("late-user-timeout", "up to 4.18 (run on 4.9)", |_| true)
                .since("TCP_USER_TIMEOUT ends the connection at the first RTO that expires after it"),
        ])
}

const RETRIES2: &str = "net.ipv4.tcp_retries2";
const RTO_MAX_MS: &str = "net.ipv4.tcp_rto_max_ms";

/// include/net/tcp.h: TCP_RTO_MIN and TCP_RTO_MAX.
const SHORTEST_RTO: Duration = Duration::from_millis(200);
const LONGEST_RTO: Duration = Duration::from_secs(120);

/// The time that tcp_retries2 stands for: tcp_model_timeout().
fn nominal(retries2: u64, longest: Duration) -> Duration {
    let mut sum = Duration::ZERO;
    let mut rto = SHORTEST_RTO;
    for _ in 0..=retries2 {
        sum += rto.min(longest);
        rto = (2 * rto).min(longest);
    }
    sum
}

fn network(env: &Environment) -> Topology {
    Topology::new().hosts(["client", "server"]).wire("client 10.0.0.1/24", "server 10.0.0.2/24").sysctl(
        "client",
        RETRIES2,
        env.number("retries2"),
    )
}

#[derive(Debug, Clone)]
struct Conduct {
    link_is_cut: bool,
    /// The link comes back with a server that has restarted.
    server_reboots: bool,
    keepalive: bool,
    user_timeout: Option<Duration>,
    app_timeout: Option<Duration>,
}

fn arms(env: &Environment) -> Arms<Conduct> {
    let base = Conduct {
        link_is_cut: false,
        server_reboots: false,
        keepalive: false,
        user_timeout: None,
        app_timeout: None,
    };
    let (patience, longest) = (env.seconds("patience"), env.seconds("rto-max"));
    let [by_user, by_app] = ["user-timeout", "app-timeout"].map(|key| env.seconds(key));
    let too_slow = |ends: Duration| {
        format!(
            "the connection ends after {:.1} s, and {} s are too long",
            ends.as_secs_f32(),
            patience.as_secs()
        )
    };
    let of = |key: &str| (env.number(key), nominal(env.number(key), LONGEST_RTO));
    let [(_, fault), (eight, after_8), (five, after_5)] = ["retries2", "retries2-8", "retries2-5"].map(of);
    let capped = nominal(env.number("retries2"), longest);
    Arms::control("the link lives", network(env), base)
        .fault("the link is cut, then the client sends a command", |arm| arm.link_is_cut = true)
        .no_effect_if(fault <= patience, || {
            format!("the connection ends after {:.1} s already", fault.as_secs_f32())
        })
        .variant("peer-reboots", "the link is back after a while; the server has restarted", |arm| {
            arm.server_reboots = true;
        })
        .remedy("keepalive", "SO_KEEPALIVE with TCP_KEEPIDLE=1, TCP_KEEPINTVL=1 and TCP_KEEPCNT=2", |arm| {
            arm.keepalive = true;
        })
        .remedy("user-timeout", "TCP_USER_TIMEOUT", |arm| arm.user_timeout = Some(by_user))
        .no_effect_if(by_user > patience, || too_slow(by_user))
        .remedy("retries2-8", "tcp_retries2=8 (the setting retries2-8)", |arm| {
            arm.sysctl("client", RETRIES2, eight);
        })
        .no_effect_if(after_8 > patience, || too_slow(after_8))
        .remedy("retries2-5", "tcp_retries2=5 (the setting retries2-5)", |arm| {
            arm.sysctl("client", RETRIES2, five);
        })
        .no_effect_if(after_5 > patience, || too_slow(after_5))
        .remedy("app-timeout", "the application gives up, and closes the connection", |arm| {
            arm.app_timeout = Some(by_app);
        })
        .no_effect_if(by_app > patience, || too_slow(by_app))
        .remedy("rto-max", "tcp_rto_max_ms=5000 (the setting rto-max)", |arm| {
            arm.sysctl("client", RTO_MAX_MS, longest.as_millis());
        })
        .only_where(env.kernel.has_sysctl(RTO_MAX_MS))
        .no_effect_if(capped > patience, || too_slow(capped))
}

const PATIENCE: Duration = Duration::from_secs(5);

async fn play(stage: &Stage<'_>, conduct: &Conduct) -> Result<()> {
    let (policy, link) = policy::Cut::tcp_only();
    let wire = stage.wire("client", "server", policy)?;
    let (client, server) = (stage.host("client"), stage.host("server"));
    let mut flow = Flow::open(client, (server.address(), 6379), server, 6379).await?;
    flow.exchange(Side::Client, PATIENCE).await?;
    flow.settle().await?;
    if conduct.keepalive {
        let second = Some(Duration::from_secs(1));
        flow.keep_alive(Side::Client, second, second, Some(2))?;
    }
    if let Some(timeout) = conduct.user_timeout {
        flow.user_timeout(Side::Client, timeout)?;
    }

    if conduct.link_is_cut {
        link.cut();
    }
    let begun = stage.elapsed();
    let retries2 = sysctls::number(client, RETRIES2).unwrap_or(0);
    let rto_max = sysctls::number(client, RTO_MAX_MS);
    let gives_up = nominal(retries2, rto_max.map_or(LONGEST_RTO, Duration::from_millis));
    let longest = conduct.app_timeout.unwrap_or(3 * gives_up);
    let met = if conduct.server_reboots {
        flow.deliver(Side::Client, stage.env.seconds("outage")).await?;
        flow.crash(Side::Server)?;
        link.mend();
        flow.watch(Side::Client, longest).await?
    } else {
        flow.exchange(Side::Client, longest).await?
    };
    let after = stage.elapsed().saturating_sub(begun);
    let hangs = if after > stage.env.seconds("patience") { "yes" } else { "no" };
    stage.observe_of(&met, "the command hangs", hangs);
    stage.observe(
        "it ends with",
        if *met == Answer::Nothing { "its own timeout".into() } else { met.to_string() },
    );
    let late = |time: Duration| time + time / 8 + Duration::from_secs(1);
    let matches = match conduct.user_timeout {
        _ if *met != Answer::TimedOut => "-".to_owned(),
        Some(timeout) if (timeout..late(timeout)).contains(&after) => {
            format!("{} s", timeout.as_secs())
        }
        Some(timeout) if (timeout..3 * timeout).contains(&after) => {
            format!("the first RTO after {} s", timeout.as_secs())
        }
        // It ends when a RTO expires, and each takes twice as long.
        _ if (gives_up..3 * gives_up).contains(&after) => {
            format!("the first RTO after {:.1} s", gives_up.as_secs_f32())
        }
        _ => format!("{:.1} s", after.as_secs_f32()),
    };
    stage.observe("after", matches);
    let (asked, _) = keepalive_schedule::probes(&wire, Direction::There).await;
    stage.observe("keepalive probes", if asked == 0 { "none".to_owned() } else { asked.to_string() });
    let (seconds, counted) = (after.as_secs_f32(), stage.counters("client")?.telling());
    stage.because(format!(
        "{seconds:.1} s after the client had sent the command it met: {met}; tcp_retries2={retries2}; counted: {counted}",
        met = *met
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_ip_sysctl_rst() {
        // 204.6 + 6 x 120 = 924.6 s. The other values are those that people set.
        for (retries2, longest, tenths) in
            [(15, 120, 9246), (8, 120, 1022), (5, 120, 126), (3, 120, 30), (15, 5, 612)]
        {
            let time = nominal(retries2, Duration::from_secs(longest));
            assert_eq!(time.as_millis(), tenths * 100, "{retries2}");
        }
    }
}
