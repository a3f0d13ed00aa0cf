use proptest::prelude::*;

use super::fold::{HEAD_ROWS, PROBE_ROWS, ROWS_BEFORE, ROWS_FROM, TAIL_ROWS};
use super::*;
use faultlab_explain::copies::Frames;
use faultlab_explain::hops::made;
use faultlab_explain::remarks::remarks;
use faultlab_net::capture::{Act, End, Frame, Probe};
use faultlab_net::wire::segment::Flags;

const NAT: [&str; 4] =
    ["client nat 10.0.1.2", "nat client 10.0.1.1", "nat server 192.0.2.1", "server nat 192.0.2.2"];

fn ends(lines: &[&str]) -> Vec<End> {
    let end = |line: &&str| {
        let words: Vec<_> = line.split(' ').collect();
        End {
            host: words[0].into(),
            interface: words[1].into(),
            addresses: words[2].parse().into_iter().collect(),
            peer: None,
        }
    };
    made::linked(lines.iter().map(end).collect())
}

/// A segment that leaves at one end and arrives at another a millisecond later.
fn crossing(
    at: u64,
    from: Option<usize>,
    to: Option<usize>,
    way: [&str; 2],
    flags: Flags,
    seq: u32,
) -> Vec<Frame> {
    let payload: &[u8] = if flags.contains(Flags::PSH) { b"hello" } else { b"" };
    made::crossing(at, from, to, made::header(way, flags, seq, 7), payload)
}

const INSIDE: [&str; 2] = ["10.0.1.2:41000", "192.0.2.2:80"];
const OUTSIDE: [&str; 2] = ["192.0.2.1:41000", "192.0.2.2:80"];

fn probe(act: Act, host: &str, [local, remote]: [&str; 2], row: Option<&str>) -> Probe {
    Probe {
        at: Duration::from_secs(1),
        host: host.into(),
        act,
        local: local.parse().ok(),
        remote: remote.parse().unwrap(),
        met: Some("no answer".into()),
        row: row.map(Into::into),
    }
}

fn incident() -> Capture {
    let frames = [
        crossing(0, Some(0), Some(1), INSIDE, Flags::SYN, 1000),
        crossing(2, Some(2), Some(3), OUTSIDE, Flags::SYN, 1000),
        // A silence, and a segment that the NAT drops.
        crossing(9000, Some(0), Some(1), INSIDE, Flags::PSH | Flags::ACK, 1001),
        // One segment is lost on the link, one is made by the wire.
        crossing(9100, Some(0), None, INSIDE, Flags::FIN_ACK, 1006),
        crossing(9200, None, Some(3), OUTSIDE, Flags::RST, 1006),
    ];
    Capture { ends: ends(&NAT), frames: frames.concat(), ..Capture::default() }
}

#[test]
fn what_became_of_a_packet_is_drawn() {
    let text = Ladder::of(&incident()).text(80);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_wide_page_is_used_and_a_narrow_one_is_not_too_narrow() {
    let [narrow, page, wide] = [60, 80, 160].map(|width| Ladder::of(&incident()).text(width));
    assert_eq!(narrow, page);
    // The columns are where they were, and no label and no sentence is wrapped.
    assert_eq!(wide.lines().count() + 1, page.lines().count(), "{wide}");
    assert_eq!(wide.lines().next(), page.lines().next());
    assert!(wide.lines().all(|line| line.chars().count() <= 160), "{wide}");
    // More hosts have more room.
    let hosts =
        ["a b 10.0.0.1", "b a 10.0.0.2", "b c 10.0.1.1", "c b 10.0.1.2", "c d 10.0.2.1", "d c 10.0.2.2"];
    let path = ["10.0.0.1:9", "10.0.2.2:80"];
    let hop = |n: usize| crossing(n as u64, Some(2 * n), Some(2 * n + 1), path, Flags::SYN, 7);
    let frames = (0..3).flat_map(hop).collect();
    let ladder = Ladder::of(&Capture { ends: ends(&hosts), frames, ..Capture::default() });
    let [page, wide] = [80, 160].map(|width| ladder.text(width));
    assert!(page.contains("│────────>│") && wide.contains("│────────────>│"), "{page}{wide}");
}

#[test]
fn what_was_not_seen_is_not_called_lost() {
    let text = Ladder::of(&Capture { lost: 9, ..incident() }).text(80);
    assert!(!text.contains("lost on the link") && !text.contains("dropped by"), "{text}");
    assert!(text.contains("9 more frames were not kept"), "{text}");
}

/// The comments on each frame that is shown.
fn comments(capture: &Capture, frames: Frames) -> Vec<Vec<String>> {
    remarks(capture, frames).into_iter().map(|remarked| remarked.remarks).collect()
}

#[test]
fn frames_are_told_what_the_capture_proves() {
    let mut capture = incident();
    let more = [
        // A retransmission, which leaves unchanged.
        crossing(9300, Some(0), Some(1), INSIDE, Flags::FIN_ACK, 1006),
        crossing(9302, Some(2), Some(3), INSIDE, Flags::FIN_ACK, 1006),
        // The NAT answers that it has no such flow.
        crossing(9400, Some(1), Some(0), [INSIDE[1], INSIDE[0]], Flags::RST, 0),
    ];
    capture.frames.extend(more.concat());
    let said = comments(&capture, Frames::BothEnds);
    let told = said.iter().enumerate().filter(|(_, remarks)| !remarks.is_empty());
    let lines: Vec<_> = told.map(|(at, remarks)| format!("{}: {}", at + 1, remarks.join("; "))).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    3: nat translates 10.0.1.2:41000 > 192.0.2.2:80 of frame 1
    6: dropped by nat, which did not forward it
    7: lost on the link to nat: it arrives nowhere
    8: made by the wire: it never left nat; RST made by the wire
    9: sent again, first in frame 7
    11: sent again, first in frame 7; nat does not translate it, unlike frame 3
    13: RST made by nat, answers frame 10
    14: RST made by nat, answers frame 10
    ");
    let lines: Vec<_> = remarks(&capture, Frames::AsSent)
        .into_iter()
        .zip(1..)
        .map(|(remarked, number)| {
            format!("{number}, of {}: {}", remarked.frame + 1, remarked.remarks.join("; "))
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    1, of 1: 
    2, of 3: nat translates 10.0.1.2:41000 > 192.0.2.2:80 of frame 1
    3, of 5: dropped by nat, which did not forward it
    4, of 7: lost on the link to nat: it arrives nowhere
    5, of 8: made by the wire: it never left nat; RST made by the wire
    6, of 9: sent again, first in frame 4; nat does not translate it, unlike frame 2
    7, of 13: RST made by nat, answers frame 6
    ");
    let incomplete = Capture { lost: 1, ..capture };
    assert!(comments(&incomplete, Frames::BothEnds).concat().iter().all(|r| !r.contains("dropped")));
}

#[test]
fn the_probes_packets_are_marked() {
    let mut capture = incident();
    let again = crossing(9500, Some(0), Some(1), INSIDE, Flags::SYN, 1000);
    capture.frames.extend(again);
    let answers = [OUTSIDE[1], OUTSIDE[0]];
    capture.probes = vec![
        probe(Act::Connects, "client", INSIDE, None),
        probe(Act::Speaks, "client", INSIDE, Some("the first words")),
        probe(Act::Waits, "server", answers, None),
        // Another host's probe, one that sent nothing, and one without an address.
        probe(Act::Connects, "server", INSIDE, None),
        probe(Act::Speaks, "server", answers, None),
        probe(Act::Connects, "client", ["", INSIDE[1]], None),
    ];
    let told: Vec<_> = comments(&capture, Frames::BothEnds)
        .into_iter()
        .enumerate()
        .flat_map(|(at, told)| told.into_iter().map(move |words| format!("{}: {words}", at + 1)))
        .filter(|line| line.contains("probe"))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    1: probe: client connects to 192.0.2.2:80, and meets: no answer
    4: probe: server waits for 192.0.2.1:41000 on this connection, from 1.000 s on, and meets: no answer
    5: probe "the first words": client speaks to 192.0.2.2:80, and meets: no answer
    "#);
    let text = Ladder::of(&capture).text(80);
    let marked: Vec<_> =
        text.lines().filter_map(|line| line.split_once("probe: ")).map(|(_, it)| it).collect();
    assert_eq!(marked, ["client connects", "server waits", "the first words"], "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

fn between(packets: usize) -> Row {
    Row::Folded(Folded { packets, place: Place::Between })
}

/// A hundred connections of two segments from one port, a second apart. The answers to
/// these are resets.
fn probed(failing: std::ops::Range<u32>) -> Capture {
    let frames = (0..100).flat_map(|n: u32| {
        let (at, seq) = (u64::from(n) * 1000, n * 1000);
        let answer = if failing.contains(&n) { Flags::RST } else { Flags::SYN_ACK };
        [
            crossing(at, Some(2), Some(3), OUTSIDE, Flags::SYN, seq),
            crossing(at + 2, Some(3), Some(2), [OUTSIDE[1], OUTSIDE[0]], answer, seq),
        ]
    });
    let frames = frames.flatten().collect();
    Capture { ends: ends(&NAT), frames, until: Duration::from_secs(200), ..Capture::default() }
}

#[test]
fn a_ladder_is_folded_around_the_first_difference_from_the_control() {
    let control = probed(0..0);
    let flows = Flows::of(&control);
    let ladder = Ladder::beside(&probed(60..100), &flows);
    let text = ladder.text(80);
    assert_eq!(ladder.differs, Some(Duration::from_millis(60_002)), "{text}");
    let folded: Vec<_> = text.lines().filter(|line| line.contains(" more packets")).map(str::trim).collect();
    assert_eq!(folded, ["...  109 more packets before", "...  51 more packets after"], "{text}");
    assert!(text.contains("the first difference from the control\n"), "{text}");
    assert!(ladder.summary().contains("; the first difference from the control is at 60.002 s"), "{text}");
    // The addresses are noted where they are first drawn.
    let noted: Vec<_> = text.lines().enumerate().filter(|(_, line)| line.contains(" > ")).collect();
    assert_eq!(noted.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [3, 5], "{text}");
    let svg = ladder.svg("a");
    for words in ["... 109 more packets before", "... 51 more packets after", "the first difference"] {
        assert!(svg.contains(words), "{words}: {svg}");
    }
    // Nothing is left out before an early difference.
    let ladder = Ladder::beside(&probed(0..100), &flows);
    assert_eq!(ladder.rows.len(), ROWS_BEFORE + ROWS_FROM + 1, "{}", ladder.text(80));
    assert!(matches!(ladder.rows[0], Row::Arrow(_)));
    // Without a difference there is no pivot.
    let same = Ladder::beside(&control, &flows);
    assert_eq!((same.differs, &same.rows), (None, &Ladder::of(&control).rows));
    assert!(matches!(same.rows[HEAD_ROWS], Row::Folded(Folded { place: Place::Between, .. })));
}

#[test]
fn a_long_story_is_folded_in_the_middle() {
    let frames =
        || (0..100).flat_map(|n| crossing(n * 10, Some(2), Some(3), OUTSIDE, Flags::PSH | Flags::ACK, 5));
    let ladder = Ladder::of(&Capture { ends: ends(&NAT), frames: frames().collect(), ..Capture::default() });
    assert_eq!(ladder.rows.len(), HEAD_ROWS + TAIL_ROWS + 1);
    assert_eq!(ladder.rows[HEAD_ROWS], between(60));
    assert!(ladder.summary().starts_with("100 packets between nat, server"));

    // A probe that the outcome reports is drawn.
    let probes = vec![probe(Act::Connects, "nat", OUTSIDE, Some("it connects"))];
    let syn = crossing(505, Some(2), Some(3), OUTSIDE, Flags::SYN, 70);
    let frames = frames().chain(syn).collect();
    let ladder = Ladder::of(&Capture { ends: ends(&NAT), frames, probes, ..Capture::default() });
    assert_eq!(ladder.rows.len(), HEAD_ROWS + 1 + PROBE_ROWS + 1 + TAIL_ROWS);
    assert_eq!(
        [&ladder.rows[HEAD_ROWS], &ladder.rows[HEAD_ROWS + 1 + PROBE_ROWS]],
        [&between(28), &between(27)]
    );
    assert!(
        matches!(&ladder.rows[HEAD_ROWS + 1], Row::Arrow(arrow) if arrow.reported),
        "{}",
        ladder.text(80)
    );
    assert!(ladder.summary().starts_with("101 packets between nat, server"));
}

#[test]
fn a_row_is_not_left_out_alone() {
    // Twelve rows are drawn before the difference: one row is left before them if the
    // difference is the fourteenth.
    for failing in 5..9 {
        let control = probed(0..0);
        let ladder = Ladder::beside(&probed(failing..100), &Flows::of(&control));
        let alone = |row: &Row| matches!(row, Row::Folded(Folded { packets: 1, .. }));
        assert!(!ladder.rows.iter().any(alone), "{}", ladder.text(80));
    }
}

#[test]
fn a_drawing_has_no_markup_but_its_own() {
    let mut capture = incident();
    capture.ends.iter_mut().for_each(|end| end.host = end.host.replace("client", "<script>").into());
    capture.frames[0].comment = Some("</svg>\"".into());
    let svg = Ladder::of(&capture).svg("<b>");
    assert!(!svg.contains("<script") && !svg.contains("<b>"), "{svg}");
    assert_eq!([svg.matches("<svg").count(), svg.matches("</svg>").count()], [2, 2]);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        frames: Vec<(u32, u8, bool, u32, Vec<u8>)>, edits: Vec<(u16, u8)>, hosts in 0..9_usize,
    ) {
        let mut capture = incident();
        for (n, (at, value)) in edits.into_iter().enumerate() {
            let count = capture.frames.len();
            let bytes = &mut capture.frames[n % count].bytes;
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        capture.frames.extend(frames.into_iter().map(|(at, end, outgoing, length, bytes)| Frame {
            at: Duration::from_millis(at.into()), end: end.into(), outgoing, length, bytes, comment: None, carried: None,
        }));
        capture.ends.truncate(hosts);
        let ladder = Ladder::of(&capture);
        prop_assert!(ladder.text(80).lines().all(|line| line.chars().count() <= 80));
        let _ = ladder.svg("b");
    }
}
