//! Folds a long ladder: selects the rows that are drawn.

use super::{Folded, Place, Row};

/// The number of rows drawn at the start and at the end of a ladder without a pivot.
pub(super) const HEAD_ROWS: usize = 23;
pub(super) const TAIL_ROWS: usize = 17;
/// The number of rows drawn before the pivot, and from the pivot on.
pub(super) const ROWS_BEFORE: usize = 12;
pub(super) const ROWS_FROM: usize = 28;
/// The number of rows drawn from the packet of each probe that a row of the outcome
/// reports, wherever it is; and the maximum number of such probes.
pub(super) const PROBE_ROWS: usize = 6;
pub(super) const PROBES_MAX: usize = 3;

/// Replaces the rows that are not drawn by [`Row::Folded`]. `pivot` is the index of the row
/// before and from which rows are drawn.
pub(super) fn fold<T>(rows: Vec<(Row, Option<T>)>, pivot: Option<usize>) -> Vec<(Row, Option<T>)> {
    let count = rows.len();
    if count <= HEAD_ROWS + TAIL_ROWS + 1 {
        return rows;
    }
    let is_in_part = |at: usize| match pivot {
        None => at < HEAD_ROWS || at >= count - TAIL_ROWS,
        Some(pivot) => {
            let first = pivot.saturating_sub(ROWS_BEFORE).min(count - ROWS_BEFORE - ROWS_FROM);
            (first..first + ROWS_BEFORE + ROWS_FROM).contains(&at)
        }
    };
    let is_reported = |row: &Row| matches!(row, Row::Arrow(arrow) if arrow.reported);
    let reported = rows.iter().enumerate().filter(|(at, (row, _))| !is_in_part(*at) && is_reported(row));
    let reported: Vec<_> = reported.map(|(at, _)| at).take(PROBES_MAX).collect();
    let is_chosen =
        |at: usize| is_in_part(at) || reported.iter().any(|probe| (*probe..probe + PROBE_ROWS).contains(&at));
    // Folding a single row would save no line.
    let is_alone = |at: usize| (at == 0 || is_chosen(at - 1)) && (at + 1 == count || is_chosen(at + 1));
    let is_drawn = |at: usize| is_chosen(at) || is_alone(at);
    let mut kept: Vec<(Row, Option<T>)> = vec![];
    for (at, row) in rows.into_iter().enumerate() {
        let packets = usize::from(matches!(row.0, Row::Arrow(_)));
        match kept.last_mut() {
            _ if is_drawn(at) => kept.push(row),
            Some((Row::Folded(folded), _)) => folded.packets += packets,
            before => {
                let place = if before.is_none() { Place::Before } else { Place::Between };
                kept.push((Row::Folded(Folded { packets, place }), None));
            }
        }
    }
    if let Some((Row::Folded(folded), _)) = kept.last_mut() {
        folded.place = Place::After;
    }
    // Folded silences need no row.
    kept.retain(|(row, _)| !matches!(row, Row::Folded(Folded { packets: 0, .. })));
    kept
}
