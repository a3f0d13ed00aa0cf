//! The conntrack entries of an arm over time: a lane for each, divided into its states.

use std::fmt::Write;
use std::time::Duration;

use super::escaped::Escaped;
use faultlab_base::text::{Cell, Line};
use faultlab_net::capture::{Capture, ConntrackEvent, EventKind};

/// The maximum number of lanes that are drawn.
const LANES: usize = 12;

/// The width of the plot, the x coordinate and the length of its time axis, and the height
/// of a lane including its name, in pixels.
const WIDTH: usize = 700;
const FIRST: usize = 8;
const TIME: u32 = 684;
const LANE: usize = 40;
/// The maximum width of a character in the name of a state, in pixels.
const LETTER: f64 = 7.0;

/// The conntrack events captured in an arm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lanes {
    all: Vec<Lane>,
    events: Vec<ConntrackEvent>,
    /// The end of the arm, as time since the network was set up.
    until: Duration,
    /// Whether events were left out of the capture.
    more: bool,
}

/// The lifetime of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lane {
    key: (Cell, u32),
    flow: Line,
    /// The states and when each began.
    states: Vec<(Duration, Cell)>,
    gone: Option<Duration>,
}

impl Lanes {
    /// The lanes of a capture; `None` if it has no conntrack events.
    #[must_use]
    pub fn of(capture: &Capture) -> Option<Self> {
        let mut lanes: Vec<Lane> = vec![];
        for event in &capture.tracked {
            let key = (event.host.clone(), event.id);
            let known = lanes.iter_mut().rfind(|lane| lane.key == key && lane.gone.is_none());
            match (event.happened, known) {
                (EventKind::Destroy, Some(lane)) => lane.gone = Some(event.at),
                (_, Some(lane)) => {
                    if lane.states.last().is_none_or(|(_, state)| *state != event.state) {
                        lane.states.push((event.at, event.state.clone()));
                    }
                }
                // An entry without a NEW event begins with its first event.
                (_, None) => lanes.push(Lane {
                    key,
                    flow: event.flow.clone(),
                    states: vec![(event.at, event.state.clone())],
                    gone: (event.happened == EventKind::Destroy).then_some(event.at),
                }),
            }
        }
        let (events, more) = (capture.tracked.clone(), capture.events_cut);
        (!lanes.is_empty()).then_some(Self { all: lanes, events, until: capture.until, more })
    }

    /// A text alternative for the plot, in one sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let entries = |n: usize| if n == 1 { "1 entry".to_owned() } else { format!("{n} entries") };
        let gone = self.all.iter().filter(|lane| lane.gone.is_some()).count();
        let mut text = format!("{} in {:.3} s", entries(self.all.len()), self.until.as_secs_f64());
        if gone > 0 {
            text.push_str(&format!(", {gone} gone before the end"));
        }
        if self.all.len() > LANES {
            text.push_str(&format!("; the first {LANES} are drawn"));
        }
        if self.more {
            text.push_str("; there was more than was kept");
        }
        text
    }

    /// The events, one per line.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut text = String::new();
        for event in &self.events {
            let happened = match event.happened {
                EventKind::New => "NEW",
                EventKind::Update => "UPDATE",
                EventKind::Destroy => "DESTROY",
            };
            let at = event.at.as_secs_f64();
            let ConntrackEvent { host, flow, state, .. } = event;
            let _ = writeln!(text, "{at:>12.3} s  {host}: {:9} {state:11} {flow}", format!("[{happened}]"));
        }
        text
    }

    /// The plot as an `<svg>` element, in the colour of the surrounding text. It uses the CSS
    /// custom property `--bad`, if the page defines it.
    #[must_use]
    pub fn svg(&self, title: &str) -> String {
        let drawn = self.all.len().min(LANES);
        let bottom = drawn * LANE + 8;
        let height = bottom + 20;
        let mut svg = format!(
            "<svg role=\"img\" aria-label=\"{}: {}\" \
             viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
             <g fill=\"currentColor\" font-family=\"ui-monospace, monospace\" font-size=\"11\">\n",
            Escaped(title),
            Escaped(&self.summary()),
        );
        for (at, lane) in self.all.iter().take(LANES).enumerate() {
            self.draw(&mut svg, lane, at * LANE);
        }
        for (quarter, anchor) in [(0, "start"), (1, "middle"), (2, "middle"), (3, "middle"), (4, "end")] {
            let at = self.begun() + self.length() * quarter / 4;
            let x = self.place(at);
            let _ = writeln!(
                svg,
                "<path d=\"M{x:.1} {bottom}v4\" stroke=\"currentColor\"/>\n\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
                bottom + 15,
                time(at, self.length()),
            );
        }
        svg.push_str("</g>\n</svg>\n");
        svg
    }

    fn draw(&self, svg: &mut String, lane: &Lane, top: usize) {
        let Lane { key: (host, _), flow, states, gone } = lane;
        let (name, bar) = (top + 12, top + 17);
        let words = Escaped(&format!("{host}: {flow}")).to_string();
        let _ = writeln!(svg, "<text x=\"{FIRST}\" y=\"{name}\">{words}</text>");
        let end = gone.unwrap_or(self.until);
        let ends = states.iter().skip(1).map(|(at, _)| *at).chain([end]);
        for ((begun, state), ended) in states.iter().zip(ends) {
            let (from, to) = (self.place(*begun), self.place(ended));
            let width = (to - from).max(1.0);
            let shade = if state == "ESTABLISHED" { 0.3 } else { 0.12 };
            let _ = writeln!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{bar}\" width=\"{width:.1}\" height=\"16\" \
                 fill-opacity=\"{shade}\" stroke=\"currentColor\" stroke-width=\".5\"/>"
            );
            let letters = u32::try_from(state.chars().count()).unwrap_or(u32::MAX);
            if f64::from(letters) * LETTER + 14.0 < width {
                let (x, y, state) = (from + 4.0, bar + 12, Escaped(state));
                let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\">{state}</text>");
            }
        }
        if let Some(gone) = gone {
            let (x, y) = (self.place(*gone), bar + 8);
            let _ = writeln!(
                svg,
                "<path transform=\"translate({x:.1} {y})\" d=\"M-4 -4L4 4M-4 4L4 -4\" \
                 style=\"stroke:var(--bad, #c00)\" stroke-width=\"2\"/>"
            );
        }
    }

    /// The start of the time axis: the time of the first event.
    fn begun(&self) -> Duration {
        self.events.first().map_or(Duration::ZERO, |event| event.at)
    }

    fn length(&self) -> Duration {
        self.until.saturating_sub(self.begun())
    }

    /// The x coordinate of a time.
    fn place(&self, at: Duration) -> f64 {
        let (after, length) = (at.saturating_sub(self.begun()), self.length());
        let part = if length.is_zero() { 0.0 } else { after.as_secs_f64() / length.as_secs_f64() };
        8.0 + part.min(1.0) * f64::from(TIME)
    }
}

/// A time in seconds, with a precision that suits an axis of length `of`.
fn time(at: Duration, of: Duration) -> String {
    let seconds = at.as_secs_f64();
    match of.as_millis() {
        20_000.. => format!("{seconds:.0} s"),
        200.. => format!("{seconds:.2} s"),
        20.. => format!("{seconds:.3} s"),
        _ => format!("{seconds:.4} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, id: u32, happened: EventKind, state: &str) -> ConntrackEvent {
        ConntrackEvent {
            at: Duration::from_secs(at),
            host: "<nat>".into(),
            id,
            happened,
            flow: format!("tcp 10.0.1.2:{id} > 192.0.2.2:80").into(),
            state: state.into(),
        }
    }

    fn capture() -> Capture {
        let tracked = vec![
            event(0, 1, EventKind::New, "SYN_SENT"),
            event(1, 1, EventKind::Update, "ESTABLISHED"),
            event(1, 1, EventKind::Update, "ESTABLISHED"),
            event(2, 2, EventKind::Destroy, "TIME_WAIT"),
            event(30, 1, EventKind::Destroy, "ESTABLISHED"),
            event(31, 1, EventKind::New, "ESTABLISHED"),
        ];
        Capture { tracked, until: Duration::from_secs(40), ..Capture::default() }
    }

    #[test]
    fn an_entry_that_came_back_has_a_life_of_its_own() {
        let lanes = Lanes::of(&capture()).unwrap();
        assert_eq!(lanes.summary(), "3 entries in 40.000 s, 2 gone before the end");
        let svg = lanes.svg("<b>");
        assert_eq!((svg.matches("<rect ").count(), svg.matches("translate(").count()), (4, 2));
        assert!(!svg.contains("<nat>") && !svg.contains("<b>"), "{svg}");
        insta::assert_snapshot!(lanes.lines(), @r"
           0.000 s  <nat>: [NEW]     SYN_SENT    tcp 10.0.1.2:1 > 192.0.2.2:80
           1.000 s  <nat>: [UPDATE]  ESTABLISHED tcp 10.0.1.2:1 > 192.0.2.2:80
           1.000 s  <nat>: [UPDATE]  ESTABLISHED tcp 10.0.1.2:1 > 192.0.2.2:80
           2.000 s  <nat>: [DESTROY] TIME_WAIT   tcp 10.0.1.2:2 > 192.0.2.2:80
          30.000 s  <nat>: [DESTROY] ESTABLISHED tcp 10.0.1.2:1 > 192.0.2.2:80
          31.000 s  <nat>: [NEW]     ESTABLISHED tcp 10.0.1.2:1 > 192.0.2.2:80
    ");
    }

    #[test]
    fn nothing_heard_is_nothing_drawn() {
        assert_eq!(Lanes::of(&Capture { tracked: vec![], ..capture() }), None);
        // An arm that took no time at all.
        let svg = Lanes::of(&Capture { until: Duration::ZERO, ..capture() }).unwrap().svg("");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
