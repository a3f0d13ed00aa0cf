//! The part of the report about one arm: its ladder, its conntrack entries and its
//! evidence.

use std::fmt::Write;

use super::{Drawn, open_wide};
use crate::escaped::Escaped;
use crate::ladder::Ladder;
use crate::lanes::Lanes;
use faultlab_model::outcome::{ArmOutcome, Outcome};
use faultlab_model::scenario::ArmKind;

pub(super) fn tell(
    text: &mut String,
    outcome: &Outcome,
    arm: &ArmOutcome,
    drawn: Option<&Drawn>,
    pcap: Option<&str>,
    id: &str,
) {
    let open = if arm.kind == ArmKind::Fault { " open" } else { "" };
    let met = match (arm.kind, arm.symptom) {
        (ArmKind::Control, _) | (_, None) => "",
        (_, Some(true)) => " <span class=\"bad\">(meets the symptom)</span>",
        (_, Some(false)) => " <span class=\"good\">(does not meet the symptom)</span>",
    };
    let _ = writeln!(
        text,
        "<details class=\"arm\" id=\"{id}\"{open}>\n<summary><b>{}</b>: {}{met}</summary>",
        Escaped(&arm.name),
        Escaped(&arm.change),
    );
    if let Some(Drawn { ladder, lanes }) = drawn {
        packets(text, outcome, arm, ladder);
        if let Some(lanes) = lanes {
            entries(text, arm, lanes);
        }
    } else if let Some(what) = &arm.capture_gap {
        let _ = writeln!(text, "<p class=\"small\">Not captured: {}.</p>", Escaped(what));
    }
    if let Some(path) = pcap {
        let _ = writeln!(
            text,
            "<p><a href=\"{}\">The frames, for Wireshark</a><span class=\"paper\">: {}</span></p>",
            Escaped(&address(path)),
            Escaped(path),
        );
    }
    for (host, lines) in arm.evidence.0.iter().filter(|(_, lines)| !lines.is_empty()) {
        let _ = writeln!(text, "<details>\n<summary>Evidence: {}</summary>", Escaped(host));
        open_wide(text, &format!("Evidence of {host} in the {} arm", arm.name));
        let _ =
            writeln!(text, "<pre class=\"lines\">{}</pre>\n</div>\n</details>", Escaped(&lines.join("\n")));
    }
    text.push_str("</details>\n");
}

fn packets(text: &mut String, outcome: &Outcome, arm: &ArmOutcome, ladder: &Ladder) {
    if ladder.rows.is_empty() {
        text.push_str("<p class=\"small\">No packet was sent.</p>\n");
        return;
    }
    let title = format!("Packets of {}, {} arm, Linux {}", outcome.scenario, arm.name, outcome.kernel);
    text.push_str("<figure>\n");
    open_wide(text, &title);
    text.push_str(&ladder.svg(&title));
    let _ = writeln!(text, "</div>\n<figcaption>{}.</figcaption>\n</figure>", Escaped(&ladder.summary()));
}

fn entries(text: &mut String, arm: &ArmOutcome, lanes: &Lanes) {
    let title = format!("Conntrack's entries in the {} arm", arm.name);
    text.push_str("<figure>\n");
    open_wide(text, &title);
    text.push_str(&lanes.svg(&title));
    let summary = lanes.summary();
    let _ = writeln!(text, "</div>\n<figcaption>Conntrack: {}.</figcaption>\n</figure>", Escaped(&summary));
    text.push_str("<details>\n<summary>Conntrack's events</summary>\n");
    open_wide(text, &format!("Events of conntrack in the {} arm", arm.name));
    let _ = writeln!(text, "<pre>{}</pre>\n</div>\n</details>", Escaped(lanes.lines().trim_end()));
}

/// A path as a relative reference: all but unreserved characters (RFC 3986 2.3) and `/` are
/// percent-encoded, because a colon would end a scheme (RFC 3986 4.2).
fn address(path: &str) -> String {
    let mut address = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            address.push(byte.into());
        } else {
            let _ = write!(address, "%{byte:02X}");
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_no_scheme_and_no_query() {
        assert_eq!(address("../p/debian:sid.x?#.pcapng"), "../p/debian%3Asid.x%3F%23.pcapng");
    }
}
