//! Figures with their units, in aligned tables.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

/// One figure, its target, and whether it meets the target.
pub struct Check {
    pub figure: &'static str,
    pub measured: String,
    /// The same figure of the control, if the control has it.
    pub control: Option<String>,
    pub target: String,
    pub pass: bool,
}

impl Check {
    /// A count that must be met exactly.
    pub fn exactly(figure: &'static str, measured: usize, target: usize) -> Check {
        Check {
            figure,
            measured: grouped(measured),
            control: None,
            target: grouped(target),
            pass: measured == target,
        }
    }

    /// A duration that must not be exceeded, and the reason for the limit.
    pub fn at_most(
        figure: &'static str,
        measured: Duration,
        limit: Duration,
        reason: &str,
    ) -> Check {
        Check {
            figure,
            measured: time(measured),
            control: None,
            target: format!("at most {} ({reason})", time(limit)),
            pass: measured <= limit,
        }
    }

    /// A duration beside that of the control: the limit is twice the control plus `more`.
    ///
    /// The machine delays both crowds, but never twice in the same way. So `more` is longer than a
    /// caller can be without a core, and shorter than a wait for the load.
    pub fn beside(
        figure: &'static str,
        measured: Duration,
        control: Duration,
        more: Duration,
        reason: &str,
    ) -> Check {
        let limit = control * 2 + more;
        Check {
            figure,
            measured: time(measured),
            control: Some(time(control)),
            target: format!(
                "at most {} (2 x control + {}: {reason})",
                time(limit),
                time(more)
            ),
            pass: measured <= limit,
        }
    }
}

pub fn verdict(pass: bool) -> &'static str {
    if pass { "PASS" } else { "FAIL" }
}

/// A row for each check, and a column for the control if one of the checks has a control.
pub fn checks(checks: &[Check]) -> Table {
    let controlled = checks.iter().any(|check| check.control.is_some());
    let rows = checks.iter().map(|check| {
        let mut row = vec![check.figure.to_owned(), check.measured.clone()];
        if controlled {
            row.push(check.control.clone().unwrap_or_default());
        }
        row.extend([verdict(check.pass).to_owned(), check.target.clone()]);
        row
    });
    let (headers, left): (_, &[usize]) = match controlled {
        true => (vec!["", "measured", "control", "", "target"], &[0, 4]),
        false => (vec!["", "measured", "", "target"], &[0, 3]),
    };
    Table {
        headers,
        rows: rows.collect(),
        left,
    }
}

/// A cell for each header in every row. Numbers are right-aligned, the columns in `left` are
/// left-aligned.
#[derive(Default)]
pub struct Table {
    pub headers: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
    pub left: &'static [usize],
}

impl Table {
    /// As text, in columns as wide as their widest cell.
    pub fn text(&self) -> String {
        if self.headers.is_empty() {
            return String::new();
        }
        let headers = self.headers.iter().map(|header| (*header).to_owned());
        let headers: Vec<String> = headers.collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&headers).chain(&self.rows).collect();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let mut text = String::new();
        for line in &lines {
            let mut row = String::new();
            for (column, cell) in line.iter().enumerate() {
                let width = width(column);
                // Writing to a string cannot fail.
                let _ = match self.left.contains(&column) {
                    true => write!(row, "  {cell:<width$}"),
                    false => write!(row, "  {cell:>width$}"),
                };
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A duration with three significant digits and a unit.
pub fn time(duration: Duration) -> String {
    let nanos = duration.as_nanos() as f64;
    let (value, unit) = match nanos {
        n if n < 1e3 => return format!("{n:.0} ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    match value {
        v if v < 10.0 => format!("{v:.2} {unit}"),
        v if v < 100.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

/// 10000 as "10 000".
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Microseconds, for JSON.
pub fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

/// Writes to stdout. A reader that has closed it is no error.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
