//! Tables and numbers for a screen of any width. Pure.

use ratatui::text::Span;

use crate::output::bytes;

/// Between two columns.
const GAP: usize = 2;
/// As wide as a name is at least before other columns are left out.
const NAME_LEAST: usize = 16;

/// A column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TopColumn {
    pub(super) head: &'static str,
    pub(super) right: bool,
    /// The columns of the highest number are left out first where the screen is too narrow; 0 never.
    pub(super) spare: u8,
    /// If it is the first one: it is not made narrower than this before others are left out.
    pub(super) least: usize,
}

impl TopColumn {
    /// The first column, if what is in it is of no use when it is cut.
    pub(super) const fn id(head: &'static str, least: usize) -> Self {
        Self { head, right: false, spare: 0, least }
    }

    pub(super) const fn text(head: &'static str, spare: u8) -> Self {
        Self { head, right: false, spare, least: NAME_LEAST }
    }

    pub(super) const fn number(head: &'static str, spare: u8) -> Self {
        Self { head, right: true, spare, least: 0 }
    }
}

/// A row: cells, or a name with a sentence in place of all other cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TopRow {
    Cells(Vec<String>),
    Sentence(String, String),
}

/// The lines of a table, its head first, each as wide as the screen at most. `sorted` is marked.
pub(super) fn lines(
    columns: &[TopColumn],
    sorted: Option<usize>,
    rows: &[TopRow],
    width: usize,
) -> Vec<String> {
    let head =
        |index: usize| format!("{}{}", columns[index].head, if sorted == Some(index) { "*" } else { "" });
    let widths: Vec<usize> = (0..columns.len())
        .map(|index| {
            let cells = rows.iter().filter_map(|row| match row {
                TopRow::Cells(cells) => cells.get(index).map(|cell| wide(cell)),
                TopRow::Sentence(name, _) => (index == 0).then(|| wide(name)),
            });
            cells.chain([wide(&head(index))]).max().unwrap_or_default()
        })
        .collect();
    let (shown, first) = fit(columns, &widths, sorted, width);
    let line = |cell: &dyn Fn(usize) -> String| {
        let mut line = String::new();
        for (place, &index) in shown.iter().enumerate() {
            let width = if place == 0 { first } else { widths[index] };
            if place > 0 {
                line += &" ".repeat(GAP);
            }
            line += &padded(&cell(index), width, columns[index].right);
        }
        cut(line.trim_end(), width)
    };
    let mut lines = vec![line(&head)];
    lines.extend(rows.iter().map(|row| match row {
        TopRow::Cells(cells) => line(&|index| cells.get(index).cloned().unwrap_or_default()),
        TopRow::Sentence(name, sentence) => {
            cut(&format!("{}{}{sentence}", padded(name, first, false), " ".repeat(GAP)), width)
        }
    }));
    lines
}

/// Which columns are shown, and how wide the first one is.
fn fit(columns: &[TopColumn], widths: &[usize], sorted: Option<usize>, width: usize) -> (Vec<usize>, usize) {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    loop {
        let rest: usize = shown.iter().skip(1).map(|&index| widths[index] + GAP).sum();
        let first = widths.first().copied().unwrap_or_default();
        let room = width.saturating_sub(rest);
        let least = columns.first().map_or(0, |column| column.least);
        if first <= room || room >= least {
            return (shown, first.min(room));
        }
        let spare = shown.iter().copied().filter(|&index| columns[index].spare > 0 && sorted != Some(index));
        match spare.max_by_key(|&index| columns[index].spare) {
            Some(index) => shown.retain(|&other| other != index),
            None => return (shown, first.min(room.max(least))),
        }
    }
}

/// How many columns of a terminal a text takes.
pub(super) fn wide(text: &str) -> usize {
    Span::raw(text).width()
}

/// As much of a text as fits, with an ellipsis for the rest.
pub(super) fn cut(text: &str, width: usize) -> String {
    if wide(text) <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    for char in text.chars() {
        let next = format!("{short}{char}");
        if wide(&next) + 1 > width {
            break;
        }
        short = next;
    }
    if width > 0 {
        short.push('…');
    }
    short
}

fn padded(text: &str, width: usize, right: bool) -> String {
    let text = cut(text, width);
    let space = " ".repeat(width.saturating_sub(wide(&text)));
    if right { space + &text } else { text + &space }
}

/// "1.2 MiB", "88 MiB".
pub(super) fn size(value: f64) -> String {
    bytes(value.max(0.0).round() as u64)
}

/// "12,480".
pub(super) fn whole(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::rate;

    const COLUMNS: [TopColumn; 4] = [
        TopColumn::text("GROUP", 0),
        TopColumn::text("HOME", 2),
        TopColumn::number("OUT/S", 0),
        TopColumn::number("MEMBERS", 1),
    ];

    fn cells(cells: [&str; 4]) -> TopRow {
        TopRow::Cells(cells.map(str::to_owned).to_vec())
    }

    #[test]
    fn numbers_are_short() {
        let rates = [0.0, 0.02, 0.44, 17.96, 18.3, 311.4, 999.4, 999.6, 4_123.0, 311_000.0, 2_510_000.0];
        let texts: Vec<String> = rates.into_iter().map(rate).collect();
        assert_eq!(texts, ["0", "0", "0.4", "18", "18.3", "311", "999", "1k", "4.1k", "311k", "2.5M"]);
        assert_eq!(
            [0, 999, 1000, 12_480, 1_000_000].map(whole),
            ["0", "999", "1,000", "12,480", "1,000,000"]
        );
        assert_eq!((size(0.2), size(2048.0)), ("0 B".to_owned(), "2.0 KiB".to_owned()));
    }

    #[test]
    fn tables_fit_every_width() {
        let rows = [
            cells(["shop/orders.eu", "gw-2", "167k", "9,310"]),
            cells(["shop/日本語", "gw-10", "1", "2"]),
            TopRow::Sentence("gw-3".into(), "NO ANSWER for 4 s".into()),
        ];
        let wide_lines = lines(&COLUMNS, Some(2), &rows, 100);
        assert_eq!(
            wide_lines,
            [
                "GROUP           HOME   OUT/S*  MEMBERS",
                "shop/orders.eu  gw-2     167k    9,310",
                "shop/日本語     gw-10       1        2",
                "gw-3            NO ANSWER for 4 s",
            ]
        );
        for width in 0..60 {
            for line in lines(&COLUMNS, Some(2), &rows, width) {
                assert!(wide(&line) <= width, "{width}: {line:?}");
            }
        }
        let narrow = lines(&COLUMNS, Some(2), &rows, 24);
        assert_eq!(narrow[1], "shop/orders.eu    167k", "what is sorted by stays");
        assert_eq!(lines(&COLUMNS, Some(3), &rows, 33)[0], "GROUP           OUT/S  MEMBERS*");
    }

    #[test]
    fn a_long_name_is_cut_and_not_its_numbers() {
        let long = "x".repeat(200);
        let rows = [cells([&long, "gw-2", "167k", "9,310"])];
        let lines = lines(&COLUMNS, None, &rows, 40);
        assert!(lines[1].starts_with("xxxx") && lines[1].contains("…  gw-2   167k    9,310"), "{lines:?}");
        assert_eq!(wide(&lines[1]), 40);
    }
}
