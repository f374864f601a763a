//! The arguments of a command line.

use std::ffi::OsString;
use std::fmt::Display;
use std::ops::RangeBounds;
use std::str::FromStr;

/// Reads the arguments of a program one by one, with messages for wrong arguments.
pub struct Words<I> {
    rest: I,
    /// The last argument that was read.
    name: OsString,
}

impl<I: Iterator<Item = OsString>> Words<I> {
    /// The arguments after the program's name.
    pub fn new(rest: I) -> Self {
        Words {
            rest,
            name: OsString::new(),
        }
    }

    /// The next argument.
    pub fn next_word(&mut self) -> Option<String> {
        self.name = self.rest.next()?;
        Some(self.name())
    }

    fn name(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }

    /// The value after the argument, as bytes that need not be text.
    pub fn value(&mut self) -> Result<OsString, String> {
        let value = self.rest.next();
        value.ok_or_else(|| format!("{} needs a value", self.name()))
    }

    /// The value after the argument, as text.
    pub fn text(&mut self) -> Result<String, String> {
        let text = self.value()?.into_string();
        text.map_err(|_| format!("{} needs a value that is text", self.name()))
    }

    /// The value after the argument, as a number within `range`, which `words` describes.
    pub fn number<N: FromStr + PartialOrd>(
        &mut self,
        range: impl RangeBounds<N>,
        words: impl Display,
    ) -> Result<N, String> {
        let value = self.value()?;
        let number = value.to_str().and_then(|text| text.parse().ok());
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                let value = value.to_string_lossy();
                format!("{} must be {words}, not {value}", self.name())
            })
    }

    /// The error for an argument that the program does not know.
    pub fn unknown<T>(&self) -> Result<T, String> {
        Err(format!("unknown argument {}", self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Words<impl Iterator<Item = OsString>> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Words::new(words.into_iter())
    }

    #[test]
    fn values_follow_their_names() {
        let mut words = words("--runs 12 --redis here --json");
        assert_eq!(words.next_word().as_deref(), Some("--runs"));
        assert_eq!(words.number(1..=100, "1 to 100"), Ok(12));
        assert_eq!(words.next_word().as_deref(), Some("--redis"));
        assert_eq!(words.text().as_deref(), Ok("here"));
        assert_eq!(words.next_word().as_deref(), Some("--json"));
        assert_eq!(words.next_word(), None);
    }

    #[test]
    fn a_message_names_the_argument_and_the_value() {
        let mut words = words("--runs 120 --runs");
        words.next_word();
        let wrong = words.number(1..=100, "1 to 100").unwrap_err();
        assert_eq!(wrong, "--runs must be 1 to 100, not 120");
        words.next_word();
        assert_eq!(words.value().unwrap_err(), "--runs needs a value");
        assert_eq!(
            words.unknown::<()>().unwrap_err(),
            "unknown argument --runs"
        );
    }
}
