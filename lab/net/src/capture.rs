//! The frames of one arm: where each was seen, when, and what it was.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What was captured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// Where frames were seen.
    pub ends: Vec<End>,
    /// The frames, in the order of time; one that crosses a link is seen twice,
    /// where it leaves and where it arrives.
    pub frames: Vec<Frame>,
    /// When the capture ended; zero where that was not told.
    #[serde(default)]
    pub until: Duration,
    /// How many more frames there were, for which the rings had no room.
    pub lost: u64,
    /// What happened to conntrack's entries, in the order of time.
    #[serde(default)]
    pub tracked: Vec<Tracked>,
    /// Whether more happened to them than is kept.
    #[serde(default)]
    pub untold: bool,
    /// What was tried over TCP, in the order in which it began.
    #[serde(default)]
    pub probes: Vec<Probe>,
}

impl Capture {
    /// Puts into the order of time what it has.
    pub fn sort(&mut self) {
        // What leaves an end is older than what arrives at the other.
        self.frames.sort_by_key(|frame| frame.at);
        self.tracked.sort_by_key(|tracked| tracked.at);
    }
}

/// An interface of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The host.
    pub host: String,
    /// The interface's name there.
    pub interface: String,
    /// Its addresses, of either family.
    pub addresses: Vec<IpAddr>,
    /// The end at the other side of its link, a position in [`Capture::ends`]. None
    /// for the loopback, and for a device that was made later.
    #[serde(default)]
    pub peer: Option<usize>,
}

/// A frame where it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// When, since the network was there.
    pub at: Duration,
    /// Where: a position in [`Capture::ends`].
    pub end: usize,
    /// Whether it left the host there.
    pub outgoing: bool,
    /// How long it is, in bytes.
    pub length: u32,
    /// As much of it as was kept, from the Ethernet header on.
    #[serde(with = "hexadecimal")]
    pub bytes: Vec<u8>,
    /// What is to be said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What the wire did with it that it left for; none where there is no wire,
    /// or the wire does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Carried>,
}

/// What a wire did with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carried {
    /// It passed it on.
    Passed,
    /// It kept it, and had it still when the arm ended.
    Held,
    /// It dropped it.
    Lost,
    /// It had not met it yet when the arm ended.
    Waits,
}

/// Something that was tried from a host: what a row of the outcome tells of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// When it began, since the network was there.
    pub at: Duration,
    /// The host.
    pub host: String,
    /// What it does.
    pub act: Act,
    /// Its address and port at its host; none where it came to none.
    pub local: Option<SocketAddr>,
    /// The address and port that it has to do with, as its host knows them.
    pub remote: SocketAddr,
    /// What it met; none where nobody stayed for that.
    pub met: Option<String>,
    /// The row that tells of it, where one does.
    pub row: Option<String>,
}

/// What a probe does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// It opens a connection.
    Connects,
    /// It opens a connection, asks a question and has it answered.
    Asks,
    /// It sends over a connection that there is.
    Speaks,
    /// It waits for what may come over a connection that there is.
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
    /// The whole note, a sentence.
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

/// Something that happened to an entry of conntrack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracked {
    /// When, since the network was there.
    pub at: Duration,
    /// The host whose entry it is.
    pub host: String,
    /// Tells entries of one flow apart.
    pub id: u32,
    /// What happened.
    pub happened: Happened,
    /// The flow's addresses, before and after translation.
    pub flow: String,
    /// The state of a TCP connection, or whether the flow was answered.
    pub state: String,
}

/// What may happen to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happened {
    /// It is there.
    New,
    /// Its state or its status has changed.
    Update,
    /// It is gone.
    Destroy,
}

/// Bytes as a string of hexadecimal digits: JSON knows no bytes.
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
