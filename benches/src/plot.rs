//! Bar charts as SVG files, drawn as the report of `certify` draws them.
use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use dev_support::svg::{Bar, Ink, bars};

const WIDTH: f64 = 720.0;

pub struct Chart {
    unit: &'static str,
    /// Label and value.
    pub bars: Vec<(String, f64)>,
}

impl Chart {
    pub fn new(unit: &'static str) -> Self {
        Chart {
            unit,
            bars: Vec::new(),
        }
    }

    fn svg(&self, title: &str) -> String {
        let bar = |(label, value): &(String, f64)| Bar {
            label: label.clone(),
            value: *value,
            shown: three_digits(*value),
            ink: match label.starts_with("everfresh") {
                true => Ink::Ours,
                false => Ink::Other,
            },
        };
        let drawn: Vec<Bar> = self.bars.iter().map(bar).collect();
        let words = drawn
            .iter()
            .map(|bar| format!("{}: {}", bar.label, bar.shown));
        let words: Vec<String> = words.collect();
        let words = format!("In {}. {}.", self.unit, words.join("; "));
        bars(title, self.unit, &drawn, WIDTH).file(title, &words)
    }
}

/// A value with as many digits as matter; never fewer than the digits before the point.
fn three_digits(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => "not measured".to_owned(),
        0.0 => "0".to_owned(),
        v if v < 0.01 => format!("{value:.4}"),
        v if v < 1.0 => format!("{value:.3}"),
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

pub fn write(charts: &BTreeMap<String, Chart>, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (title, chart) in charts {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = title.chars().map(plain).collect();
        fs::write(folder.join(format!("{name}.svg")), chart.svg(title))?;
    }
    Ok(())
}
