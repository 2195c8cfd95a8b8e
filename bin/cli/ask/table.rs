//! Tables that fit the terminal.
//!
//! Columns are as wide as their longest text. If the terminal is too narrow, columns that may be
//! cut become narrower, then the least important columns are left out. Output into a pipe is never
//! cut.

use std::fmt::Write;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::terminal::{Style, Terminal};

/// Columns between two columns of a table.
const GAP: usize = 2;

/// The width to which a column is cut before another column is left out.
const CUT_MIN: usize = 12;

/// The side at which the text of a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) align: Align,
    /// Whether its text may end in an ellipsis.
    pub(crate) may_be_cut: bool,
    /// The column with the highest number is left out first; 0 always stays.
    pub(crate) dispensable: u8,
}

impl Column {
    pub(crate) const fn left(name: &'static str) -> Self {
        Self {
            name,
            align: Align::Left,
            may_be_cut: false,
            dispensable: 0,
        }
    }

    pub(crate) const fn right(name: &'static str) -> Self {
        Self {
            align: Align::Right,
            ..Self::left(name)
        }
    }

    pub(crate) const fn cut(self) -> Self {
        Self {
            may_be_cut: true,
            ..self
        }
    }

    pub(crate) const fn dispensable(self, dispensable: u8) -> Self {
        Self {
            dispensable,
            ..self
        }
    }
}

/// The text of a row in one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self::styled(text, Style::Plain)
    }

    pub(crate) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self {
            text: printable(text.as_ref()),
            style,
        }
    }
}

/// Escapes characters that would move the cursor: peers choose parts of the text.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for it in text.chars() {
        if it.is_control() || matches!(it, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            shown.extend(it.escape_default());
        } else {
            shown.push(it);
        }
    }
    shown
}

/// A table that is written in blocks of rows; columns never become narrower.
pub(crate) struct Table {
    columns: Vec<Column>,
    terminal: Terminal,
    widths: Vec<usize>,
    has_head: bool,
}

impl Table {
    pub(crate) fn new(columns: &[Column], terminal: Terminal) -> Self {
        Self {
            columns: columns.to_vec(),
            terminal,
            widths: columns.iter().map(|it| it.name.width()).collect(),
            has_head: false,
        }
    }

    /// Formats rows, with the head before the first; each row has a cell for each column.
    pub(crate) fn block(&mut self, rows: &[Vec<Cell>]) -> String {
        for row in rows {
            debug_assert_eq!(row.len(), self.columns.len());
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        let widths = fit(&self.columns, &self.widths, self.terminal.width);
        let mut text = String::new();
        if !std::mem::replace(&mut self.has_head, true) {
            let head = self.columns.iter();
            let head: Vec<Cell> = head.map(|it| Cell::styled(it.name, Style::Bold)).collect();
            self.line(&mut text, &widths, &head);
        }
        for row in rows {
            self.line(&mut text, &widths, row);
        }
        text
    }

    fn line(&self, to: &mut String, widths: &[Option<usize>], row: &[Cell]) {
        let mut spaces = 0;
        for ((column, width), cell) in self.columns.iter().zip(widths).zip(row) {
            let Some(width) = *width else { continue };
            if cell.text.is_empty() {
                // A line must not end with spaces.
                spaces += width + GAP;
                continue;
            }
            let text = shorten(&cell.text, width);
            let free = width.saturating_sub(text.width());
            let (before, after) = match column.align {
                Align::Left => (0, free),
                Align::Right => (free, 0),
            };
            let (mark, end) = self.terminal.marks(cell.style);
            let indent = spaces + before;
            write!(to, "{:indent$}{mark}{text}{end}", "").expect("a String takes all");
            spaces = after + GAP;
        }
        to.push('\n');
    }
}

/// Returns the width of each column, `None` for a column that is left out.
fn fit(columns: &[Column], wanted: &[usize], limit: Option<usize>) -> Vec<Option<usize>> {
    let mut widths: Vec<Option<usize>> = wanted.iter().copied().map(Some).collect();
    let Some(limit) = limit else { return widths };
    loop {
        let count = widths.iter().flatten().count();
        let total = widths.iter().flatten().sum::<usize>() + GAP * count.saturating_sub(1);
        let Some(excess) = total.checked_sub(limit).filter(|it| *it > 0) else {
            return widths;
        };
        // The widest column is cut first, down to the width of the second.
        let widest = (0..columns.len())
            .filter(|at| columns[*at].may_be_cut && widths[*at].is_some_and(|it| it > CUT_MIN))
            .max_by_key(|at| widths[*at]);
        if let Some(at) = widest {
            let width = widths[at].unwrap_or_default();
            let second = (0..columns.len())
                .filter(|other| *other != at && columns[*other].may_be_cut)
                .filter_map(|other| widths[other])
                .max()
                .unwrap_or_default();
            let step = excess.min(width.saturating_sub(second).max(1));
            widths[at] = Some(width.saturating_sub(step).max(CUT_MIN));
            continue;
        }
        let least = (0..columns.len())
            .filter(|at| columns[*at].dispensable > 0 && widths[*at].is_some())
            .max_by_key(|at| columns[*at].dispensable);
        match least {
            Some(at) => {
                widths[at] = None;
                // There may be room for the others again.
                for (other, width) in widths.iter_mut().enumerate() {
                    *width = width.map(|_| wanted[other]);
                }
            }
            None => return widths,
        }
    }
}

/// Shortens a text to at most `width` columns, with an ellipsis if it was longer.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.into();
    }
    let mut taken = 0;
    let fits = |it: &char| {
        taken += it.width().unwrap_or(0);
        taken < width
    };
    let mut short: String = text.chars().take_while(fits).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::left("NAME").cut(),
        Column::right("COUNT"),
        Column::left("NOTE").cut(),
        Column::left("EXTRA").dispensable(1),
    ];

    fn rows() -> Vec<Vec<Cell>> {
        let row = |cells: [&str; 4]| cells.map(Cell::new).to_vec();
        vec![
            row(["a name of some length", "1", "short", "more"]),
            row(["b", "12345", "a note that goes on and on", ""]),
        ]
    }

    fn of_width(width: Option<usize>) -> String {
        Table::new(&COLUMNS, Terminal::of_width(width)).block(&rows())
    }

    #[test]
    fn pipe_gets_everything() {
        assert_eq!(
            of_width(None),
            "NAME                   COUNT  NOTE                        EXTRA\n\
             a name of some length      1  short                       more\n\
             b                      12345  a note that goes on and on\n"
        );
    }

    #[test]
    fn every_width_is_kept() {
        for width in 40..70 {
            for line in of_width(Some(width)).lines() {
                assert!(line.width() <= width, "{width}: {line}");
            }
        }
        assert!(of_width(Some(50)).contains("EXTRA"));
        assert!(of_width(Some(50)).contains('…'));
        assert!(!of_width(Some(35)).contains("EXTRA"));
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(shorten("日本語テキスト", 14), "日本語テキスト");
        assert_eq!(shorten("日本語テキスト", 7), "日本語…");
        assert_eq!(shorten("日本語テキスト", 6), "日本…");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\x1b[2Jb\n\u{202e}"), "a\\u{1b}[2Jb\\n\\u{202e}");
    }
}
