//! Tables for people, JSON for scripts.

use std::{
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate_proto::DESCRIPTORS;
use comfy_table::{Table, presets::NOTHING};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use crate::failure::Failure;

/// Writes to standard output. A closed pipe ends the program quietly.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// A message of the contract as JSON, with the names of the `.proto` files.
pub(super) fn json(name: &str, message: &impl Message) -> Result<serde_json::Value, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::Failed(format!("the answer could not be written as JSON: {error}"))
    };
    let pool = DescriptorPool::decode(DESCRIPTORS).map_err(|error| fail(&error))?;
    let descriptor = pool.get_message_by_name(&format!("broadgate.v1.{name}")).ok_or_else(|| fail(&name))?;
    let dynamic =
        DynamicMessage::decode(descriptor, &message.encode_to_vec()[..]).map_err(|error| fail(&error))?;
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true)
        .skip_default_fields(false);
    dynamic.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| fail(&error))
}

pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// A plain table: aligned columns, nothing drawn.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
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
    fn json_has_the_contracts_names() {
        let receipt = v1::Receipt { clients: 1 << 60, ..v1::Receipt::default() };
        let value = json("Receipt", &receipt).unwrap();
        assert_eq!(value["clients"], 1u64 << 60);
        assert!(value["unknown_clients"].is_array());
    }
}
