//! The captured frames of one arm: where, when and what.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use faultlab_base::text::{Cell, Line};

/// What was captured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// The capture points.
    pub ends: Vec<End>,
    /// The frames, in order of time once they are [sorted](Capture::sort). A frame
    /// that crosses a link is captured twice: where it leaves and where it arrives.
    pub frames: Vec<Frame>,
    /// When the capture ended; zero if unknown.
    #[serde(default)]
    pub until: Duration,
    /// How many more frames there were that did not fit into the rings.
    pub lost: u64,
    /// The events of conntrack entries, in order of time once they are
    /// [sorted](Capture::sort).
    #[serde(default)]
    pub tracked: Vec<ConntrackEvent>,
    /// Whether there were more events than were kept.
    #[serde(rename = "untold", default)]
    pub events_cut: bool,
    /// The TCP probes, in the order in which they began.
    #[serde(default)]
    pub probes: Vec<Probe>,
}

impl Capture {
    /// Sorts frames and conntrack events by time. At equal times the order of the
    /// hosts stays.
    pub fn sort(&mut self) {
        self.frames.sort_by_key(|frame| frame.at);
        self.tracked.sort_by_key(|tracked| tracked.at);
    }
}

/// An interface of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The host.
    pub host: Cell,
    /// The interface's name there.
    pub interface: Cell,
    /// Its addresses, of either family.
    pub addresses: Vec<IpAddr>,
    /// The other end of its link, an index into [`Capture::ends`]. `None` for the
    /// loopback, and for a device that was made later.
    #[serde(default)]
    pub peer: Option<usize>,
}

/// A frame as captured at one end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// When, since the capture began.
    pub at: Duration,
    /// Where: an index into [`Capture::ends`].
    pub end: usize,
    /// Whether it was outgoing.
    pub outgoing: bool,
    /// How long it is, in bytes.
    pub length: u32,
    /// The captured bytes, from the Ethernet header on.
    #[serde(with = "hexadecimal")]
    pub bytes: Vec<u8>,
    /// A comment on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Line>,
    /// What the wire did with a frame that was sent into one; `None` without a
    /// wire or its record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Carried>,
}

/// What a wire did with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carried {
    /// The wire passed it on.
    Passed,
    /// The wire still held it when the arm ended.
    Held,
    /// The wire dropped it.
    Lost,
    /// It had not arrived at the wire when the arm ended.
    Waits,
}

/// A probe from a host: what a row of the outcome reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// When it began, since the capture began.
    pub at: Duration,
    /// The host.
    pub host: Cell,
    /// What it does.
    pub act: Act,
    /// Its local address and port; `None` if it never had any.
    pub local: Option<SocketAddr>,
    /// The remote address and port, as its host addresses them.
    pub remote: SocketAddr,
    /// The result; `None` if nothing waited for it.
    pub met: Option<Line>,
    /// The row that reports it, if one does.
    pub row: Option<Cell>,
}

/// What a probe does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// It opens a connection.
    Connects,
    /// It opens a connection, sends a request and waits for the answer.
    Asks,
    /// It sends over an existing connection.
    Speaks,
    /// It waits for data on an existing connection.
    Waits,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connects => "connects",
            Self::Asks => "asks",
            Self::Speaks => "speaks",
            Self::Waits => "waits",
        })
    }
}

impl fmt::Display for Probe {
    /// The whole note, as a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, act, remote, .. } = self;
        match act {
            Act::Connects | Act::Speaks => write!(f, "{host} {act} to {remote}")?,
            Act::Asks => write!(f, "{host} {act} {remote}")?,
            Act::Waits => {
                let (seconds, rest) = (self.at.as_secs(), self.at.subsec_millis());
                write!(f, "{host} {act} for {remote} on this connection, from {seconds}.{rest:03} s on")?;
            }
        }
        let met = self.met.as_deref().unwrap_or("nobody stayed to see");
        write!(f, ", and meets: {met}")
    }
}

/// An event of a conntrack entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackEvent {
    /// When, since the capture began.
    pub at: Duration,
    /// The host that has the entry.
    pub host: Cell,
    /// Distinguishes entries of the same flow.
    pub id: u32,
    /// What happened to it.
    pub happened: EventKind,
    /// The flow's addresses, before and after translation.
    pub flow: Line,
    /// The state of a TCP connection, or else whether the flow was answered.
    pub state: Cell,
}

/// What can happen to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// It was created.
    New,
    /// Its state or status changed.
    Update,
    /// It was removed.
    Destroy,
}

/// Bytes as a string of hexadecimal digits: JSON has no byte strings.
mod hexadecimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).expect("a nibble");
        let text: String = bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect();
        serializer.serialize_str(&text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |c: u8| (c as char).to_digit(16).ok_or_else(|| D::Error::custom("no hexadecimal digit"));
        let byte = |pair: &[u8]| match pair {
            [high, low] => Ok(u8::try_from(digit(*high)? << 4 | digit(*low)?).unwrap_or_default()),
            _ => Err(D::Error::custom("half a byte")),
        };
        text.as_bytes().chunks(2).map(byte).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_survive_json(bytes: Vec<u8>) {
            let frame = Frame { at: Duration::from_nanos(1), end: 0, outgoing: true, length: 60, bytes, comment: None, carried: None };
            let text = serde_json::to_string(&frame).unwrap();
            prop_assert_eq!(serde_json::from_str::<Frame>(&text).unwrap(), frame);
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let json = serde_json::json!({
                "at": { "secs": 0, "nanos": 0 }, "end": 0, "outgoing": true, "length": 1, "bytes": text,
            });
            let _ = serde_json::from_value::<Frame>(json);
        }
    }
}
