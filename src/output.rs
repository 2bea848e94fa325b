//! Tables for people, JSON for scripts.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate_proto::DESCRIPTORS;
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use prost::Message;
use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage, SerializeOptions};

use crate::{failure::Failure, terminal_text};

/// Writes to standard output, as a terminal may show it. A closed pipe ends the program quietly.
pub fn print(text: &str) -> Result<(), Failure> {
    print_as_it_is(&terminal_text::lines(text))
}

/// The same for what holds no text of strangers, and colours or tabs.
pub(crate) fn print_as_it_is(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// The contract; read once, since a dashboard asks for it again and again.
static POOL: LazyLock<Result<DescriptorPool, DescriptorError>> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS));

/// A message of the contract as JSON, with the names of the `.proto` files.
pub(super) fn json(name: &str, message: &impl Message) -> Result<serde_json::Value, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::Failed(format!("the answer could not be written as JSON: {error}"))
    };
    let pool = POOL.as_ref().map_err(|error| fail(error))?;
    let descriptor = pool.get_message_by_name(&format!("broadgate.v1.{name}")).ok_or_else(|| fail(&name))?;
    let dynamic =
        DynamicMessage::decode(descriptor, &message.encode_to_vec()[..]).map_err(|error| fail(&error))?;
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true)
        .skip_default_fields(false);
    dynamic.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| fail(&error))
}

/// Writes JSON to standard output.
pub fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print_as_it_is(&terminal_text::json(&format!("{value:#}\n")))
}

/// One object a line: a message of a stream.
pub(crate) fn print_json_line(value: &serde_json::Value) -> Result<(), Failure> {
    print_as_it_is(&terminal_text::json(&format!("{value}\n")))
}

/// A plain table: aligned columns, nothing drawn.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    fitted(None, header, &[], rows)
}

/// How wide the terminal is on which the output is read; none if it goes elsewhere. COLUMNS comes first.
pub(crate) fn screen() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    said.or_else(|| Table::new().width().map(usize::from)).filter(|width| *width > 0)
}

/// A table that fits a width: the columns in `spare` are left out, the first of them first, as far as that is
/// needed, and named below; if it is still too wide, cells are wrapped.
pub(crate) fn fitted<const N: usize>(
    width: Option<usize>,
    header: [&str; N],
    spare: &[&str],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let cells = |row: [String; N]| row.map(|cell| terminal_text::one_line(&cell));
    let rows: Vec<[String; N]> = rows.into_iter().map(cells).collect();
    let mut whole = plain_table();
    whole.set_header(header).add_rows(&rows);
    let Some(width) = width else { return text(&whole) };
    // A space on each side; the last one is not printed.
    let widths: Vec<usize> =
        whole.column_max_content_widths().into_iter().map(|width| usize::from(width) + 2).collect();
    let mut shown: Vec<usize> = (0..N).collect();
    let is_wide = |shown: &[usize]| shown.iter().map(|&column| widths[column]).sum::<usize>() > width + 1;
    let mut left_out = Vec::new();
    for name in spare {
        if !is_wide(&shown) {
            break;
        }
        shown.retain(|&column| header[column] != *name);
        left_out.push(*name);
    }
    let mut table = plain_table();
    if is_wide(&shown) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    }
    table.set_header(shown.iter().map(|&column| header[column]));
    table.add_rows(rows.iter().map(|row| shown.iter().map(|&column| &row[column]).collect::<Vec<_>>()));
    let mut text = text(&table);
    if !left_out.is_empty() {
        text += &format!(" (left out at {width} columns: {})\n", left_out.join(", "));
    }
    text
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table
}

fn text(table: &Table) -> String {
    let text = table.to_string();
    text.lines().map(str::trim_end).fold(String::new(), |text, line| text + line + "\n")
}

/// "3d 4h", "12 min", "5 s": two units at most.
pub(super) fn age(since: Duration) -> String {
    let seconds = since.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// The age of something that began at a time since the Unix epoch.
pub(super) fn age_since_ms(since_ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    age(now.saturating_sub(Duration::from_millis(since_ms)))
}

/// "0", "0.4", "18", "4.1k", "311k", "2.5M".
pub(super) fn rate(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 999_500.0 => (value / 1e6, "M"),
        value if value >= 999.5 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let is_whole = value >= 99.5 || (value - value.round()).abs() < 0.05;
    if is_whole { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") }
}

/// "1 client", "2 clients".
pub(super) fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// "512 B", "64.0 KiB".
pub(super) fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use broadgate_business::v1;

    use super::*;

    #[test]
    fn people_read_ages_and_sizes() {
        assert_eq!(age(Duration::from_secs(59)), "59 s");
        assert_eq!(age(Duration::from_secs(3 * 60 + 5)), "3 min");
        assert_eq!(age(Duration::from_secs(26 * 3600)), "1d 2h");
        assert_eq!((counted(0, "client"), counted(1, "client")), ("0 clients".into(), "1 client".into()));
        assert_eq!((bytes(10), bytes(2048)), ("10 B".into(), "2.0 KiB".into()));
    }

    #[test]
    fn tables_have_no_trailing_space() {
        let text = table(["name", "n"], [["a".into(), "1".into()], ["long".into(), "".into()]]);
        assert_eq!(text, " name  n\n a     1\n long\n");
    }

    #[test]
    fn tables_fit_the_terminal() {
        let row = || [["gateway-1".to_owned(), "0.1.0".to_owned(), "group ".repeat(20)]];
        let header = ["GATEWAY", "VERSION", "GROUPS"];
        let widest = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap();
        let wide = fitted(None, header, &["VERSION"], row());
        assert!(widest(&wide) > 130 && wide == fitted(Some(200), header, &["VERSION"], row()), "{wide}");
        for width in [40, 60, 80] {
            let fits = fitted(Some(width), header, &["VERSION"], row());
            assert!(widest(&fits) <= width, "{fits}");
            assert!(
                !fits.contains("0.1.0") && fits.contains("left out at") && fits.contains("gateway-1"),
                "{fits}"
            );
            assert_eq!(fits.matches("group").count(), 20, "{fits}");
        }
        let less = fitted(Some(141), header, &["VERSION"], row());
        assert!(less.contains("0.1.0") && widest(&less) <= 141, "nothing is left out without need: {less}");
    }

    #[test]
    fn json_has_the_contracts_names() {
        let receipt = v1::Receipt { clients: 1 << 60, ..v1::Receipt::default() };
        let value = json("Receipt", &receipt).unwrap();
        assert_eq!(value["clients"], 1u64 << 60);
        assert!(value["unknown_clients"].is_array());
    }
}
