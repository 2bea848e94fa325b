//! Headers of calls, and refusals as their status.

use std::time::Duration;

use broadgate_proto::v1;
use tonic::{Code, Status, metadata::MetadataMap};

use crate::command::CommandRefusal;

/// The header with the highest epoch that a single call's caller has seen, as TERM.COUNT.
pub(super) const EPOCH_HEADER: &str = "broadgate-epoch";

/// Digits of a time in gRPC's header.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// The epoch that a single call's caller knows.
pub(super) fn after(metadata: &MetadataMap) -> Result<Option<v1::Epoch>, Status> {
    let Some(value) = metadata.get(EPOCH_HEADER) else { return Ok(None) };
    let epoch = value.to_str().ok().and_then(|text| text.parse().ok());
    epoch.map(Some).ok_or_else(|| {
        Status::invalid_argument(format!("{EPOCH_HEADER} is not TERM.COUNT as in an answer's epoch"))
    })
}

/// How long gateways may be waited for, so that a caller who waits for a time still gets the answer that names those
/// that did not answer: some of the time is for the way there and back. None if it did not say how long it waits.
pub(super) fn patience(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > TIMEOUT_DIGITS_MAX {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    let waits = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Some(waits - waits / 5)
}

pub(super) fn status(refused: CommandRefusal) -> Status {
    Status::new(Code::from_i32(refused.code), refused.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_a_callers_time_is_for_the_others() {
        let patience = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            patience(&metadata)
        };
        assert_eq!(patience("1000000u"), Some(Duration::from_millis(800)));
        assert_eq!(patience("2S"), Some(Duration::from_millis(1600)));
        assert_eq!(patience("99999999H"), Some(Duration::from_secs(99_999_999 * 3600) * 4 / 5));
        for odd in ["", "S", "1", "x1S", "-1S", "123456789S"] {
            assert_eq!(patience(odd), None, "{odd}");
        }
        assert_eq!(super::patience(&MetadataMap::new()), None);
    }
}
