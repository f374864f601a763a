//! The report of `certify`: its parts as text here and as a page in `page`.
use std::io::{IsTerminal, Write as _};

use dev_support::report::{Check, Table, checks};
use serde_json::Value;

/// One part of the report: a table with its title and notes.
pub struct Part {
    pub title: String,
    /// Text before the table, empty if the title is enough.
    pub lead: String,
    /// Without columns if the part has no table.
    pub table: Table,
    /// Lines after the table.
    pub notes: Vec<String>,
    /// `None` if the part has no verdict.
    pub pass: Option<bool>,
}

impl Part {
    /// A part with a title and checks.
    pub fn checked(title: String, checks: &[Check]) -> Part {
        Part {
            title,
            lead: String::new(),
            table: self::checks(checks),
            notes: Vec::new(),
            pass: Some(checks.iter().all(|check| check.pass)),
        }
    }

    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.title);
        if !self.lead.is_empty() {
            text += &format!("{}\n", self.lead);
        }
        text += &self.table.text();
        for note in &self.notes {
            text += &format!("  {note}\n");
        }
        text
    }
}

/// The count that is farther from one.
pub fn worse(count: usize, other: usize) -> usize {
    match count.abs_diff(1) >= other.abs_diff(1) {
        true => count,
        false => other,
    }
}

pub fn percent(part: usize, whole: usize) -> String {
    match whole {
        0 => "-".to_owned(),
        _ => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

/// Merges two JSON objects.
pub fn joined(mut object: Value, more: Value) -> Value {
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

/// One line of progress on stderr, if it is a terminal.
pub struct Progress {
    shown: bool,
}

impl Progress {
    pub fn new() -> Progress {
        Progress {
            shown: std::io::stderr().is_terminal(),
        }
    }

    pub fn step(&self, stage: &str, done: usize, of: usize) {
        const WIDTH: usize = 30;
        let filled = WIDTH * done / of.max(1);
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(WIDTH - filled));
        self.write(&format!("\r\x1b[K[{bar}] {stage}, {done} of {of}"));
    }

    pub fn clear(&self) {
        self.write("\r\x1b[K");
    }

    fn write(&self, text: &str) {
        if self.shown {
            let mut err = std::io::stderr().lock();
            let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
        }
    }
}
