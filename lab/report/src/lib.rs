//! Output formats: outcomes and captures as text, HTML, KTAP, JUnit, pcapng and drawings.

pub mod escaped;
pub mod exercise;
mod grid;
pub mod html;
pub mod junit;
pub mod ktap;
pub mod ladder;
pub mod lanes;
#[cfg(any(test, feature = "made"))]
pub mod made;
pub mod matrix;
#[cfg(test)]
mod outside_tests;
pub mod pcapng;
pub mod progress;
#[cfg(test)]
mod reference_tests;
pub mod standing;
pub mod table;
pub mod tally;

pub use table::Style;
