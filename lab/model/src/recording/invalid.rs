//! What conntrack logged about a segment.

use faultlab_net::wire::segment::Header;

/// A segment that conntrack spoke of, and what it said.
///
/// Most are INVALID then. It says the like of some segments that it ignores,
/// which stay in their flow: from 6.1 on also of those below a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidLog {
    /// The headers of the segment, as conntrack met them.
    pub header: Header,
    /// How much it carried, in bytes.
    pub length: usize,
    /// What was said.
    pub words: String,
}
