//! The results, as lines of JSON or as tables for people.

use std::collections::BTreeMap;

use crate::pairing;
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Missed,
    Met,
    /// The machine has too few cores, or the run has too few threads.
    NotMeasured,
}

/// One line of a report.
pub struct Figure {
    bench: &'static str,
    fields: Vec<(&'static str, Field)>,
    /// The threads of the figure. Its targets hold if each thread has a core of its own.
    threads: usize,
    targets: Vec<(String, Verdict)>,
    bar: Option<(String, String, f64, &'static str)>,
}

impl Figure {
    pub fn new(bench: &'static str) -> Self {
        Figure {
            bench,
            fields: Vec::new(),
            threads: 1,
            targets: Vec::new(),
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

    /// The number of threads that ran at once.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self.count("threads", threads as u64)
    }

    /// A target, with the figure that was reached.
    pub fn at_most(self, what: &str, reached: f64, limit: f64) -> Self {
        self.compare(
            1,
            what,
            reached,
            reached <= limit,
            &format!("at most {limit}"),
        )
    }

    pub fn at_least(self, what: &str, reached: f64, limit: f64) -> Self {
        self.compare(
            1,
            what,
            reached,
            reached >= limit,
            &format!("at least {limit}"),
        )
    }

    /// A target for so many threads. It is not measured by fewer threads.
    pub fn at_most_with(self, threads: usize, what: &str, reached: f64, limit: f64) -> Self {
        self.compare(
            threads,
            what,
            reached,
            reached <= limit,
            &format!("at most {limit}"),
        )
    }

    /// See [`at_most_with`](Self::at_most_with).
    pub fn at_least_with(self, threads: usize, what: &str, reached: f64, limit: f64) -> Self {
        self.compare(
            threads,
            what,
            reached,
            reached >= limit,
            &format!("at least {limit}"),
        )
    }

    fn compare(mut self, threads: usize, what: &str, reached: f64, met: bool, limit: &str) -> Self {
        let missing = missing(threads, self.threads, pairing::cores());
        let text = match &missing {
            None => format!("{what} {reached:.2}, {limit}"),
            Some(missing) => format!("{what} {limit}: {missing}"),
        };
        let verdict = match (missing, met) {
            (Some(_), _) => Verdict::NotMeasured,
            (None, true) => Verdict::Met,
            (None, false) => Verdict::Missed,
        };
        self.targets.push((text.trim_start().to_owned(), verdict));
        self
    }

    /// A target that the caller has compared.
    pub fn target(mut self, text: String, met: bool) -> Self {
        let verdict = if met { Verdict::Met } else { Verdict::Missed };
        self.targets.push((text, verdict));
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
        let mut fields: String = fields
            .map(|(name, value)| format!(",\"{name}\":{value}"))
            .collect();
        if !self.targets.is_empty() {
            fields += &format!(",\"target\":{}", Field::Text(self.verdicts()).json());
        }
        format!("{{\"bench\":\"{}\"{fields}}}", self.bench)
    }

    fn count_of(&self, verdict: Verdict) -> usize {
        self.targets
            .iter()
            .filter(|target| target.1 == verdict)
            .count()
    }

    fn verdicts(&self) -> String {
        let words = [
            (Verdict::Missed, "MISSED"),
            (Verdict::Met, "met"),
            (Verdict::NotMeasured, "not measured"),
        ];
        let groups = words.iter().filter_map(|&(verdict, word)| {
            let targets = self.targets.iter().filter(|target| target.1 == verdict);
            let texts: Vec<&str> = targets.map(|(text, _)| text.as_str()).collect();
            (!texts.is_empty()).then(|| format!("{word} ({})", texts.join("; ")))
        });
        groups.collect::<Vec<_>>().join(", ")
    }

    fn row(&self) -> Vec<String> {
        let mut row: Vec<String> = self.fields.iter().map(|(_, field)| field.plain()).collect();
        row.push(self.verdicts());
        row
    }

    fn header(&self) -> Vec<String> {
        let names = self.fields.iter().map(|(name, _)| (*name).to_owned());
        names.chain(["target".to_owned()]).collect()
    }
}

/// Why a target for `wanted` threads is not measured by `threads` threads on so many cores.
fn missing(wanted: usize, threads: usize, cores: usize) -> Option<String> {
    let needed = wanted.max(threads);
    if cores < needed {
        return Some(format!("needs {needed} cores, here are {cores}"));
    }
    (threads < wanted).then(|| format!("needs {wanted} threads, here are {threads}"))
}

/// The processor's name, or its architecture where the system does not tell the name.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':'));
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim())
        .to_owned()
}

pub struct Report {
    json: bool,
    processor: String,
    /// Not yet printed, because the widest row sets the width of the table.
    waiting: Vec<Figure>,
    charts: BTreeMap<String, Chart>,
    met: usize,
    missed: usize,
    not_measured: usize,
}

impl Report {
    pub fn new(json: bool) -> Self {
        Report {
            json,
            processor: processor(),
            waiting: Vec::new(),
            charts: BTreeMap::new(),
            met: 0,
            missed: 0,
            not_measured: 0,
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
        let figure = figure
            .count("cores", pairing::cores() as u64)
            .text("processor", &self.processor);
        self.met += figure.count_of(Verdict::Met);
        self.missed += figure.count_of(Verdict::Missed);
        self.not_measured += figure.count_of(Verdict::NotMeasured);
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
        if self.not_measured > 0 {
            let targets = self.not_measured;
            self.note(&format!(
                "{targets} targets not measured, because they need more threads"
            ));
        }
        self.charts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_for_more_threads_than_cores_is_not_measured() {
        assert_eq!(missing(16, 16, 16), None);
        assert_eq!(missing(2, 16, 16), None);
        let cores = "needs 16 cores, here are 2";
        assert_eq!(missing(16, 2, 2).as_deref(), Some(cores));
        assert_eq!(missing(2, 16, 2).as_deref(), Some(cores));
        let threads = "needs 16 threads, here are 2";
        assert_eq!(missing(16, 2, 16).as_deref(), Some(threads));
    }

    #[test]
    fn a_row_claims_no_target_that_was_not_measured() {
        let figure = Figure::new("insert").threads(1).at_most("", 0.2, 0.3);
        let figure = figure.at_most_with(usize::MAX, "to moka", 0.1, 1.0);
        assert_eq!(figure.count_of(Verdict::Met), 1);
        let verdicts = figure.verdicts();
        let (met, rest) = verdicts
            .split_once(", not measured (to moka at most 1: needs")
            .unwrap();
        assert_eq!(met, "met (0.20, at most 0.3)");
        assert!(rest.contains("here are"), "{rest}");
    }
}
