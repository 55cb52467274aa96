//! Rows under headings, as wide as the terminal.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::escape;

/// How a column's cells are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// A column. The first to give way in a narrow terminal are those that may shrink, down to
/// `least`; then those with the highest `rank` are left out.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub title: &'static str,
    pub align: Align,
    /// The width that the column may shrink to; `usize::MAX`: it does not.
    pub least: usize,
    /// 0 is always shown.
    pub rank: u8,
}

const GAP: usize = 2;

/// Writes `rows` (a cell for each of `columns`). Without a `width` nothing is cut.
pub fn write(
    out: &mut impl Write,
    columns: &[Column],
    rows: &[Vec<String>],
    width: Option<usize>,
) -> io::Result<()> {
    let rows: Vec<Vec<_>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| escape(cell)).collect())
        .collect();
    let mut widths: Vec<usize> = columns.iter().map(|column| column.title.width()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width().max(*width);
        }
    }
    let shown = fit(columns, &mut widths, width);

    let titles: Vec<_> = columns.iter().map(|column| column.title.into()).collect();
    for row in std::iter::once(&titles).chain(&rows) {
        let mut line = String::new();
        for &index in &shown {
            if !line.is_empty() {
                line.push_str("  ");
            }
            line.push_str(&pad(&row[index], widths[index], columns[index].align));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Shrinks `widths` to fit; returns the columns to show.
fn fit(columns: &[Column], widths: &mut Vec<usize>, limit: Option<usize>) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let Some(limit) = limit else {
        return shown;
    };
    loop {
        let mut tried = widths.clone();
        if shrink(columns, &mut tried, &shown, limit) {
            *widths = tried;
            return shown;
        }
        match shown
            .iter()
            .copied()
            .max_by_key(|&index| columns[index].rank)
        {
            Some(index) if columns[index].rank > 0 => shown.retain(|&kept| kept != index),
            _ => {
                *widths = tried;
                return shown;
            }
        }
    }
}

/// Takes one character at a time from the widest column that may shrink; whether that was enough.
fn shrink(columns: &[Column], widths: &mut [usize], shown: &[usize], limit: usize) -> bool {
    let gaps = GAP * shown.len().saturating_sub(1);
    while shown.iter().map(|&index| widths[index]).sum::<usize>() + gaps > limit {
        let widest = shown
            .iter()
            .copied()
            .filter(|&index| widths[index] > columns[index].least)
            .max_by_key(|&index| widths[index]);
        match widest {
            Some(index) => widths[index] -= 1,
            None => return false,
        }
    }
    true
}

/// `text` in exactly `width` columns, `…` for what does not fit.
pub fn pad(text: &str, width: usize, align: Align) -> String {
    let mut shown = cut(text, width);
    let room = width.saturating_sub(shown.width());
    match align {
        Align::Left => shown.push_str(&" ".repeat(room)),
        Align::Right => shown.insert_str(0, &" ".repeat(room)),
    }
    shown
}

/// `text` in at most `width` columns.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut used = 0;
    for character in text.chars() {
        let next = character.width().unwrap_or(0);
        if used + next + 1 > width {
            break;
        }
        used += next;
        shown.push(character);
    }
    if width > 0 {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column {
            title: "PID",
            align: Align::Right,
            least: usize::MAX,
            rank: 0,
        },
        Column {
            title: "PATH",
            align: Align::Left,
            least: 5,
            rank: 0,
        },
        Column {
            title: "AGENT",
            align: Align::Left,
            least: usize::MAX,
            rank: 1,
        },
    ];

    fn table(width: Option<usize>) -> String {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [
            row(["7", "/a", "curl"]),
            row(["4711", "/rooms/blue", "node"]),
        ];
        let mut out = Vec::new();
        write(&mut out, COLUMNS, &rows, width).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let expected =
            " PID  PATH         AGENT\n   7  /a           curl\n4711  /rooms/blue  node\n";
        assert_eq!(table(None), expected);
        assert_eq!(table(Some(80)), expected);
    }

    #[test]
    fn a_narrow_terminal_cuts_first_and_leaves_out_then() {
        assert_eq!(
            table(Some(20)),
            " PID  PATH     AGENT\n   7  /a       curl\n4711  /rooms…  node\n"
        );
        assert_eq!(table(Some(12)), " PID  PATH\n   7  /a\n4711  /room…\n");
    }

    #[test]
    fn a_wide_character_takes_two_columns() {
        assert_eq!(cut("会话会话", 5), "会话…");
        assert_eq!(pad("会", 4, Align::Right), "  会");
    }
}
