//! Formats rows as lines that fit the terminal; the first column, which identifies the row, is cut last.

use tabled::builder::Builder;
use tabled::settings::peaker::Peaker;
use tabled::settings::{Padding, Style, Width};

use super::columns::ColumnPriority;

/// Spaces between two columns.
const GAP: usize = 3;
/// A column is not cut below this width while another column can be cut.
const MIN_WIDTH: usize = 12;
/// Optional columns are dropped before a column is cut below this width.
const SOFT_MIN_WIDTH: usize = 20;

/// A heading with its priority, and the cells below it.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) heading: &'static str,
    pub(super) priority: ColumnPriority,
    pub(super) cells: Vec<String>,
}

impl Column {
    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(self.heading.chars().count())
    }
}

/// Formats columns as a table. If they do not fit, optional columns are dropped; then the widest columns are cut.
pub(super) fn render(mut columns: Vec<Column>, width: Option<usize>) -> String {
    if let Some(width) = width {
        while min_width(&columns) > width {
            let Some(last) = columns.iter().rposition(|column| column.priority == ColumnPriority::Optional)
            else {
                break;
            };
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
        // The gap after the last column is trimmed below.
        table.with(Width::truncate(width.max(20) + GAP).suffix("…").priority(Widest));
    }
    trim_lines(&table.to_string())
}

/// Formats names and values, one pair per line; a value that is too long is wrapped.
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
    trim_lines(&table.to_string())
}

fn min_width(columns: &[Column]) -> usize {
    let widths = columns.iter().enumerate().map(|(index, column)| match index {
        0 => column.width(),
        _ => column.width().min(SOFT_MIN_WIDTH.max(column.heading.chars().count())),
    });
    widths.sum::<usize>() + GAP * columns.len().saturating_sub(1)
}

fn trim_lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Cuts the widest column other than the first, which identifies the row; the first column is cut last.
#[derive(Clone, Debug, Default)]
struct Widest;

impl Peaker for Widest {
    fn peak(&mut self, mins: &[usize], widths: &[usize]) -> Option<usize> {
        let free = |index: usize| widths[index] > mins.get(index).copied().unwrap_or(0);
        let widest = |floor: usize| {
            let others = (1..widths.len()).filter(|index| free(*index) && widths[*index] > floor);
            others.max_by_key(|index| widths[*index])
        };
        widest(MIN_WIDTH + GAP)
            .or_else(|| (!widths.is_empty() && free(0) && widths[0] > 2 * MIN_WIDTH).then_some(0))
            .or_else(|| widest(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(heading: &'static str, priority: ColumnPriority, cell: &str) -> Column {
        Column { heading, priority, cells: vec![cell.into()] }
    }

    #[test]
    fn the_first_column_is_kept_and_optional_columns_are_dropped() {
        let id = "op-1234-site-a-site-with-a-long-name-of-32-chr";
        let columns = || {
            vec![
                column("ID", ColumnPriority::Required, id),
                column("STATUS", ColumnPriority::Required, "parked"),
                column("SITE", ColumnPriority::Optional, "a-site-with-a-long-name-of-32-chr"),
                column("MESSAGE", ColumnPriority::Required, &"words ".repeat(30)),
            ]
        };
        let text = render(columns(), Some(80));
        assert!(text.contains(id) && text.contains("parked") && !text.contains("SITE"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(render(columns(), None).contains("SITE"));
    }

    #[test]
    fn a_long_value_is_wrapped_and_not_cut() {
        let text = pairs(vec![("message:".into(), "word ".repeat(40).trim().into())], Some(60));
        assert!(text.lines().count() > 2 && text.lines().all(|line| line.chars().count() <= 60), "{text}");
        assert_eq!(text.matches("word").count(), 40, "{text}");
    }
}
