//! faultlab
fn main() {}
