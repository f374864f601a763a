//! The results, as lines of JSON or as tables for people.

use std::collections::BTreeMap;

use crate::plot::Chart;

enum Field {
    Text(String),
    Count(u64),
    Number(f64),
}

impl Field {
    fn json(&self) -> String {
        match self {
            Field::Text(text) => {
                format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
            }
            Field::Count(count) => count.to_string(),
            Field::Number(number) if number.is_finite() => trimmed(*number, 4),
            Field::Number(_) => "null".to_owned(),
        }
    }

    fn plain(&self) -> String {
        match self {
            Field::Text(text) => text.clone(),
            Field::Count(count) => count.to_string(),
            Field::Number(number) if number.abs() < 10.0 => format!("{number:.2}"),
            Field::Number(number) => format!("{number:.1}"),
        }
    }
}

fn trimmed(number: f64, places: usize) -> String {
    let text = format!("{number:.places$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// One line of a report.
pub struct Figure {
    bench: &'static str,
    fields: Vec<(&'static str, Field)>,
    targets: Vec<String>,
    met: bool,
    bar: Option<(String, String, f64, &'static str)>,
}

impl Figure {
    pub fn new(bench: &'static str) -> Self {
        Figure {
            bench,
            fields: Vec::new(),
            targets: Vec::new(),
            met: true,
            bar: None,
        }
    }

    pub fn text(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, Field::Text(value.into())));
        self
    }

    pub fn count(mut self, name: &'static str, value: u64) -> Self {
        self.fields.push((name, Field::Count(value)));
        self
    }

    pub fn number(mut self, name: &'static str, value: f64) -> Self {
        self.fields.push((name, Field::Number(value)));
        self
    }

    /// A target, with the figure that was reached.
    pub fn at_most(self, what: &str, reached: f64, limit: f64) -> Self {
        let met = reached <= limit;
        let what = format!("{what} {reached:.2}, at most {limit}");
        self.target(what.trim_start().to_owned(), met)
    }

    pub fn at_least(self, what: &str, reached: f64, limit: f64) -> Self {
        let what = format!("{what} {reached:.2}, at least {limit}");
        self.target(what.trim_start().to_owned(), reached >= limit)
    }

    pub fn target(mut self, what: String, met: bool) -> Self {
        self.targets.push(what);
        self.met &= met;
        self
    }

    /// Shows the figure in a chart.
    pub fn bar(mut self, chart: &str, label: &str, value: f64, unit: &'static str) -> Self {
        self.bar = Some((chart.to_owned(), label.to_owned(), value, unit));
        self
    }

    fn json(&self) -> String {
        let fields = self
            .fields
            .iter()
            .map(|(name, field)| (*name, field.json()));
        let fields = fields.map(|(name, value)| format!(",\"{name}\":{value}"));
        format!(
            "{{\"bench\":\"{}\"{}}}",
            self.bench,
            fields.collect::<String>()
        )
    }

    fn row(&self) -> Vec<String> {
        let mut row: Vec<String> = self.fields.iter().map(|(_, field)| field.plain()).collect();
        row.push(match self.targets.is_empty() {
            true => String::new(),
            false => format!(
                "{} ({})",
                if self.met { "met" } else { "MISSED" },
                self.targets.join("; ")
            ),
        });
        row
    }

    fn header(&self) -> Vec<String> {
        let names = self.fields.iter().map(|(name, _)| (*name).to_owned());
        names.chain(["target".to_owned()]).collect()
    }
}

pub struct Report {
    json: bool,
    /// Not yet printed, because the widest row sets the width of the table.
    waiting: Vec<Figure>,
    charts: BTreeMap<String, Chart>,
    met: usize,
    missed: usize,
}

impl Report {
    pub fn new(json: bool) -> Self {
        Report {
            json,
            waiting: Vec::new(),
            charts: BTreeMap::new(),
            met: 0,
            missed: 0,
        }
    }

    /// Adds a remark beside the figures.
    pub fn note(&mut self, text: &str) {
        self.flush();
        match self.json {
            true => eprintln!("{text}"),
            false => println!("- {text}"),
        }
    }

    pub fn title(&mut self, bench: &str) {
        self.flush();
        match self.json {
            true => eprintln!("{bench} ..."),
            false => println!("\n== {bench} =="),
        }
    }

    pub fn add(&mut self, figure: Figure) {
        match (figure.targets.is_empty(), figure.met) {
            (true, _) => {}
            (_, true) => self.met += 1,
            (_, false) => self.missed += 1,
        }
        if let Some((chart, label, value, unit)) = &figure.bar {
            let chart = self.charts.entry(chart.clone()).or_insert(Chart::new(unit));
            chart.bars.push((label.clone(), *value));
        }
        if self.json {
            println!("{}", figure.json());
            return;
        }
        if self
            .waiting
            .first()
            .is_some_and(|first| first.header() != figure.header())
        {
            self.flush();
        }
        self.waiting.push(figure);
    }

    fn flush(&mut self) {
        let Some(first) = self.waiting.first() else {
            return;
        };
        let mut rows = vec![first.header()];
        rows.extend(self.waiting.iter().map(Figure::row));
        let columns = rows[0].len();
        let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
        for row in &rows {
            let cells = row.iter().zip(&widths);
            let line: Vec<String> = cells
                .map(|(cell, &width)| format!("{cell:<width$}"))
                .collect();
            println!("{}", line.join("  ").trim_end());
        }
        println!();
        self.waiting.clear();
    }

    /// Prints the remaining rows, and returns the charts.
    pub fn finish(mut self) -> BTreeMap<String, Chart> {
        self.flush();
        if self.met + self.missed > 0 {
            let (met, all) = (self.met, self.met + self.missed);
            self.note(&format!("{met} of {all} targets met"));
        }
        self.charts
    }
}
