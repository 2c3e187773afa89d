//! Rows into lines: columns two by two, no wider than the screen, and what names a thing kept whole as long as it can.

use tabled::builder::Builder;
use tabled::settings::peaker::Peaker;
use tabled::settings::{Padding, Style, Width};

use super::columns::Worth;

/// Between two columns.
const GAP: usize = 3;
/// A column is not cut below this while another can be.
const FLOOR: usize = 12;
/// Before a column is cut below this, those that may go, go.
const ROOM: usize = 20;

/// A heading with its worth, and what stands below it.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) heading: &'static str,
    pub(super) worth: Worth,
    pub(super) cells: Vec<String>,
}

impl Column {
    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(self.heading.chars().count())
    }
}

/// Columns side by side. Where they do not fit, those that may go, go; then the widest are cut.
pub(super) fn drawn(mut columns: Vec<Column>, width: Option<usize>) -> String {
    if let Some(width) = width {
        while least(&columns) > width {
            let Some(last) = columns.iter().rposition(|column| column.worth == Worth::May) else { break };
            columns.remove(last);
        }
    }
    let mut rows = Builder::default();
    rows.push_record(columns.iter().map(|column| column.heading));
    for row in 0..columns.first().map_or(0, |column| column.cells.len()) {
        rows.push_record(columns.iter().map(|column| column.cells[row].as_str()));
    }
    let mut table = rows.build();
    table.with(Style::empty()).with(Padding::new(0, GAP, 0, 0));
    if let Some(width) = width {
        // The gap after the last column is cut off again below.
        table.with(Width::truncate(width.max(20) + GAP).suffix("…").priority(Widest));
    }
    trimmed(&table.to_string())
}

/// Names and values, one pair a line; a value that is too long goes on below itself.
pub(super) fn pairs(pairs: Vec<(String, String)>, width: Option<usize>) -> String {
    let names = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut rows = Builder::default();
    for (name, value) in pairs {
        rows.push_record([name, value]);
    }
    let mut table = rows.build();
    table.with(Style::empty()).with(Padding::new(0, GAP, 0, 0));
    if let Some(width) = width {
        let width = width.max(names + 2 * GAP + 20);
        table.with(Width::wrap(width + GAP).keep_words(true).priority(Widest));
    }
    trimmed(&table.to_string())
}

fn least(columns: &[Column]) -> usize {
    let widths = columns.iter().enumerate().map(|(index, column)| match index {
        0 => column.width(),
        _ => column.width().min(ROOM.max(column.heading.chars().count())),
    });
    widths.sum::<usize>() + GAP * columns.len().saturating_sub(1)
}

fn trimmed(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Takes from the widest column but the first, which names the row, and from that one last.
#[derive(Clone, Debug, Default)]
struct Widest;

impl Peaker for Widest {
    fn peak(&mut self, mins: &[usize], widths: &[usize]) -> Option<usize> {
        let free = |index: usize| widths[index] > mins.get(index).copied().unwrap_or(0);
        let widest = |floor: usize| {
            let others = (1..widths.len()).filter(|index| free(*index) && widths[*index] > floor);
            others.max_by_key(|index| widths[*index])
        };
        widest(FLOOR + GAP)
            .or_else(|| (!widths.is_empty() && free(0) && widths[0] > 2 * FLOOR).then_some(0))
            .or_else(|| widest(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(heading: &'static str, worth: Worth, cell: &str) -> Column {
        Column { heading, worth, cells: vec![cell.into()] }
    }

    #[test]
    fn what_names_the_row_is_kept_and_what_may_go_goes() {
        let id = "op-1234-site-a-site-with-a-long-name-of-32-chr";
        let columns = || {
            vec![
                column("ID", Worth::Must, id),
                column("STATUS", Worth::Must, "parked"),
                column("SITE", Worth::May, "a-site-with-a-long-name-of-32-chr"),
                column("MESSAGE", Worth::Must, &"words ".repeat(30)),
            ]
        };
        let text = drawn(columns(), Some(80));
        assert!(text.contains(id) && text.contains("parked") && !text.contains("SITE"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(drawn(columns(), None).contains("SITE"));
    }

    #[test]
    fn a_long_value_is_wrapped_and_whole() {
        let text = pairs(vec![("message:".into(), "word ".repeat(40).trim().into())], Some(60));
        assert!(text.lines().count() > 2 && text.lines().all(|line| line.chars().count() <= 60), "{text}");
        assert_eq!(text.matches("word").count(), 40, "{text}");
    }
}
