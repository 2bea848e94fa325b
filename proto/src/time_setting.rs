//! Times in settings: texts such as `30s`, with a bound, so that sums of them are times as well.

use std::time::Duration;

use serde::{Deserializer, de::Error as _};

use crate::limits::TIME_SETTING_MAX;

/// For `#[serde(deserialize_with = …)]`.
///
/// # Errors
/// If it is no time, or longer than [`TIME_SETTING_MAX`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let time: Duration = humantime_serde::deserialize(deserializer)?;
    check(time).map_err(D::Error::custom)
}

/// The same for a time that may be absent.
///
/// # Errors
/// As for [`deserialize`].
pub fn deserialize_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let time: Option<Duration> = humantime_serde::deserialize(deserializer)?;
    time.map(check).transpose().map_err(D::Error::custom)
}

/// Refuses a time that is longer than [`TIME_SETTING_MAX`].
///
/// # Errors
/// One sentence.
pub fn check(time: Duration) -> Result<Duration, &'static str> {
    if time > TIME_SETTING_MAX { Err("a time of more than 365 days: make it shorter") } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_time_is_a_year() {
        assert_eq!(check(TIME_SETTING_MAX), Ok(TIME_SETTING_MAX));
        check(TIME_SETTING_MAX + Duration::from_nanos(1)).unwrap_err();
        assert_eq!(TIME_SETTING_MAX, Duration::from_secs(365 * 24 * 60 * 60));
        assert!(check(Duration::MAX).is_err());
    }
}
