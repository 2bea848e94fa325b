//! Variables of the environment.

/// A variable whose value is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {0}: its value is not UTF-8: set it to a text, or unset it")]
pub struct NotText(pub String);

/// The value of a variable; none if it is not set or empty, as deployments leave variables that they
/// do not use.
///
/// # Errors
/// If the value is not UTF-8: a secret that cannot be read must not count as none.
pub fn variable(name: &str) -> Result<Option<String>, NotText> {
    let value = std::env::var_os(name).map(|value| value.into_string().map_err(|_| NotText(name.to_owned())));
    Ok(value.transpose()?.filter(|value| !value.is_empty()))
}
