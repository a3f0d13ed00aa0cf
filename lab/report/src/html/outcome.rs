//! The part of the report about a scenario on one kernel.

use std::fmt::Write;

use super::{ByArm, Page, arm, open_wide, verdict};
use crate::escaped::Escaped;
use faultlab_model::outcome::{ArmOutcome, Outcome};
use faultlab_model::scenario::{ArmKind, Clock};

pub(super) fn tell(text: &mut String, page: &Page<'_>, outcome: &Outcome, drawn: Option<&ByArm>, id: &str) {
    let id_of = outcome.kernel_id.as_ref().filter(|id| **id != outcome.kernel);
    let asked = id_of.map_or(String::new(), |id| format!(" <small>({})</small>", Escaped(id)));
    let _ = writeln!(
        text,
        "<article aria-labelledby=\"{id}\">\n<h3 id=\"{id}\">On Linux {}{asked}</h3>",
        Escaped(&outcome.kernel)
    );
    let _ = writeln!(text, "<p>{}</p>", verdict(outcome));
    if let Some(reason) = outcome.reason.as_ref().filter(|_| !outcome.nothing_differs_without_the_cause()) {
        let _ = writeln!(text, "<p>{}</p>", Escaped(reason));
    }
    if !outcome.arms.is_empty() {
        table(text, outcome);
    }
    because(text, outcome);
    why(text, outcome);
    if outcome.arms.len() > 1 {
        let _ =
            writeln!(text, "<nav class=\"arms\" aria-label=\"Arms on Linux {}\">", Escaped(&outcome.kernel));
        for (number, arm) in outcome.arms.iter().enumerate() {
            let _ = writeln!(text, "<a href=\"#{id}-{number}\">{}</a>", Escaped(&arm.name));
        }
        text.push_str("</nav>\n");
    }
    for (number, arm) in outcome.arms.iter().enumerate() {
        let drawn = drawn.and_then(|drawn| drawn.get(&arm.name));
        let pcap = drawn.and_then(|_| (page.pcap)(outcome, &arm.name));
        arm::tell(text, outcome, arm, drawn, pcap.as_deref(), &format!("{id}-{number}"));
    }
    log(text, outcome);
    facts(text, outcome);
    let command = (page.command)(outcome);
    text.push_str("<p>To see it again:</p>\n");
    open_wide(text, "The command");
    let _ = writeln!(text, "<pre><code>{}</code></pre>\n</div>\n</article>", Escaped(&command));
}

/// One row per observation, one column per arm; cells that differ from the control
/// are marked.
fn table(text: &mut String, outcome: &Outcome) {
    open_wide(text, "Outcome by arm");
    text.push_str(
        "<table>\n<caption><span>What each arm met. Marked: other than in the control.</span></caption>\n",
    );
    text.push_str("<thead><tr><th scope=\"col\">Row</th>");
    for arm in &outcome.arms {
        let _ = write!(text, "<th scope=\"col\">{}</th>", Escaped(&arm.name));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    let control = outcome.arms.iter().find(|a| a.kind == ArmKind::Control);
    for row in outcome.rows() {
        let symptom = if row == outcome.symptom { " <small>(the symptom)</small>" } else { "" };
        let _ = write!(text, "<tr><th scope=\"row\">{}{symptom}</th>", Escaped(row));
        for arm in &outcome.arms {
            let healthy = control.and_then(|c| c.observations.get(row));
            match (arm.observations.get(row), arm.unobserved.get(row)) {
                (Some(seen), _) if Some(seen) != healthy => {
                    let _ = write!(text, "<td class=\"changed\"><mark>{}</mark></td>", Escaped(seen));
                }
                (Some(seen), _) => {
                    let _ = write!(text, "<td>{}</td>", Escaped(seen));
                }
                (None, Some(why)) => {
                    let _ = write!(text, "<td>? <small>({})</small></td>", Escaped(why));
                }
                (None, None) => text.push_str("<td>-</td>"),
            }
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody>\n</table>\n</div>\n");
}

fn because(text: &mut String, outcome: &Outcome) {
    let told = |arm: &&ArmOutcome| arm.symptom == Some(true) && !arm.because.is_empty();
    if !outcome.arms.iter().any(|arm| told(&arm)) {
        return;
    }
    text.push_str("<ul>\n");
    for arm in outcome.arms.iter().filter(told) {
        for sentence in &arm.because {
            let _ = writeln!(text, "<li><b>{}:</b> {}</li>", Escaped(&arm.name), Escaped(sentence));
        }
    }
    text.push_str("</ul>\n");
}

/// The kernel log. It is global to the kernel, so it is shown once for all arms.
fn log(text: &mut String, outcome: &Outcome) {
    if outcome.log.is_empty() {
        return;
    }
    text.push_str("<details>\n<summary>The kernel's log meanwhile, of all arms</summary>\n");
    open_wide(text, &format!("Kernel log of Linux {}", outcome.kernel));
    let _ =
        writeln!(text, "<pre class=\"lines\">{}</pre>\n</div>\n</details>", Escaped(&outcome.log.join("\n")));
}

fn why(text: &mut String, outcome: &Outcome) {
    let told = || outcome.arms.iter().filter(|arm| !arm.why.is_empty());
    if told().next().is_none() {
        return;
    }
    text.push_str("<h4>Why</h4>\n<dl>\n");
    for arm in told() {
        let _ = writeln!(text, "<dt>{}</dt>", Escaped(&arm.name));
        for line in &arm.why {
            let _ = writeln!(text, "<dd>{}</dd>", Escaped(line));
        }
    }
    text.push_str("</dl>\n");
}

fn facts(text: &mut String, outcome: &Outcome) {
    let mut facts = vec![("kernel", outcome.kernel.to_string())];
    facts.extend(outcome.kernel_id.as_ref().map(|id| ("asked for as", id.to_string())));
    facts.push(("machine", outcome.machine.to_string()));
    facts.push(("clock", if outcome.clock == Clock::Virtual { "virtual" } else { "real" }.into()));
    facts.extend(outcome.seconds.virtual_time.map(|s| ("virtual time", format!("{s:.0} s"))));
    facts.extend(outcome.era.as_ref().map(|era| ("era", era.to_string())));
    facts.push(("faultlab", env!("CARGO_PKG_VERSION").into()));
    let settings = outcome.settings.0.iter().map(|(key, value)| (key.as_str(), value.to_string()));
    text.push_str("<details>\n<summary>Versions and settings</summary>\n<dl>\n");
    for (name, value) in facts.into_iter().chain(settings) {
        let _ = writeln!(text, "<dt>{}</dt><dd>{}</dd>", Escaped(name), Escaped(&value));
    }
    text.push_str("</dl>\n</details>\n");
}
