//! Bar charts as SVG, by hand.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

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
        const ROW: usize = 24;
        const LEFT: usize = 210;
        const LONGEST: f64 = 420.0;
        let height = 50 + ROW * self.bars.len();
        let most = self
            .bars
            .iter()
            .map(|(_, value)| *value)
            .fold(f64::MIN_POSITIVE, f64::max);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"740\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"12\" y=\"24\" font-size=\"16\">{} ({})</text>\n",
            escaped(title),
            self.unit,
        );
        for (at, (label, value)) in self.bars.iter().enumerate() {
            let y = 40 + at * ROW;
            let length = (value / most * LONGEST).max(1.0);
            let color = match label.starts_with("everfresh") {
                true => "#d9480f",
                false => "#4c6a92",
            };
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"16\" fill=\"{color}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{value:.1}</text>",
                LEFT - 8,
                y + 13,
                escaped(label),
                LEFT as f64 + length + 6.0,
                y + 13,
            );
        }
        svg + "</svg>\n"
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
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
