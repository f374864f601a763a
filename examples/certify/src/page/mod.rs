//! The report as one self-contained page: the printed tables, with pictures of the same runs.
use std::fmt::Write;
use std::num::NonZero;
use std::time::{SystemTime, UNIX_EPOCH};

use dev_support::report::{Table, time, verdict};
use dev_support::svg::{self, Bar, Ink, escaped};

use crate::findings::Findings;
use crate::latency::{self, Curve, Limit};
use crate::report::Part;
use crate::spread::Times;
use crate::stampede::StampedeRow;
use crate::timeline::{self, Scene};
use crate::{evolution, trace};

/// The machine and the date of the measurement.
pub struct Circumstances {
    pub machine: String,
    pub date: String,
}

impl Circumstances {
    /// This machine at this time.
    pub fn here() -> Circumstances {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let system = format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH);
        let described = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = described
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let cores = match cores {
            1 => "1 core".to_owned(),
            several => format!("{several} cores"),
        };
        let machine = match model {
            Some((_, model)) => format!("{cores} of {}, {system}", model.trim()),
            None => format!("{cores}, {system}"),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Circumstances {
            machine,
            date: date(now.map_or(0, |since| since.as_secs())),
        }
    }
}

/// Day and minute in universal time, from seconds since the beginning of 1970.
fn date(seconds: u64) -> String {
    let (mut days, minutes) = (seconds / 86_400, seconds % 86_400 / 60);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let day = days + 1;
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02} UTC",
        minutes / 60,
        minutes % 60
    )
}

const AGAIN: &str = concat!(
    "<p class=\"dim\">To measure again: ",
    "<code>cargo run --release -p certify -- --report FILE.html</code></p>\n",
);

const WIDE: f64 = 720.0;
const NARROW: f64 = 348.0;

/// The whole page.
pub fn page(findings: &Findings, circumstances: &Circumstances) -> String {
    let (met, all) = counted(findings);
    let headline = match met == all {
        true => format!("everfresh keeps its promises here: all {all} checks passed"),
        false => format!("everfresh: {} of {all} checks failed here", all - met),
    };
    let sections = [
        crowds(findings),
        generations(findings),
        redis(findings),
        accesses(findings),
        Some(section("memory", "Memory", "", &[findings.memory.part()])),
    ];
    let sections: Vec<String> = sections.into_iter().flatten().collect();
    let intro = &findings.intro;
    let intro: Vec<&String> = std::iter::once(&intro.title).chain(&intro.notes).collect();
    let intro = intro.iter().map(|line| paragraph("", line));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'\"/>\n\
         <title>everfresh certified: {verdict}</title>\n<style>\n{}{}</style>\n</head>\n<body>\n\
         <header>\n<h1>{}</h1>\n{}{}{}</header>\n<main>\n{}\n{}</main>\n\
         </body>\n</html>\n",
        include_str!("page.css"),
        svg::style(),
        escaped(&headline),
        paragraph(
            "dim",
            &format!(
                "{}, measured in {}. {}.",
                circumstances.date,
                time(findings.took),
                circumstances.machine
            )
        ),
        intro.collect::<String>(),
        AGAIN,
        verdicts(findings),
        sections.join("\n"),
        verdict = verdict(findings.pass()),
    )
}

/// The number of checks that are met, and of all checks.
fn counted(findings: &Findings) -> (usize, usize) {
    let parts = findings.parts();
    let cells = parts
        .iter()
        .flat_map(|part| part.table.rows.iter().flatten());
    let of = |wanted| {
        cells
            .clone()
            .filter(|cell| *cell == verdict(wanted))
            .count()
    };
    (of(true), of(true) + of(false))
}

fn verdicts(findings: &Findings) -> String {
    let mut list = "<ul class=\"verdicts\">\n".to_owned();
    for part in findings.parts() {
        if let Some(pass) = part.pass {
            let title = part.title.trim_end_matches('.');
            let _ = writeln!(
                list,
                "<li>{}<span>{}</span></li>",
                marked(pass),
                escaped(title)
            );
        }
    }
    list + "</ul>"
}

fn marked(pass: bool) -> String {
    let class = if pass { "verdict" } else { "verdict fail" };
    format!("<span class=\"{class}\">{}</span>", verdict(pass))
}

fn paragraph(class: &str, text: &str) -> String {
    format!("<p class=\"{class}\">{}</p>\n", escaped(text))
}

fn section(id: &str, title: &str, figures: &str, parts: &[Part]) -> String {
    let parts: String = parts.iter().map(sheet).collect();
    format!(
        "<section id=\"{id}\">\n<h2>{}</h2>\n{figures}{parts}</section>",
        escaped(title)
    )
}

/// A figure of pictures beside each other, or below each other if there is no room.
fn figure(pictures: &[String], caption: &str) -> String {
    format!(
        "<figure>\n<div class=\"row\">\n{}</div>\n<figcaption>{}</figcaption>\n</figure>\n",
        pictures.concat(),
        escaped(caption)
    )
}

/// A picture as wide as the page, and a second one for phones, where its letters would be too
/// small.
fn for_both(draw: impl Fn(f64) -> String) -> String {
    format!(
        "<div class=\"wide\">{}</div><div class=\"narrow\">{}</div>\n",
        draw(WIDE),
        draw(NARROW)
    )
}

/// A part as a table, its figures aligned by their units.
fn sheet(part: &Part) -> String {
    let Table {
        headers,
        rows,
        left,
    } = &part.table;
    let units: Vec<usize> = (0..headers.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let units = cells.map(|cell| measure(cell).map_or(0, |(_, unit)| unit.chars().count()));
            units.max().unwrap_or(0)
        })
        .collect();
    let mut table = format!("<div class=\"part\">\n<h3>{}</h3>\n", escaped(&part.title));
    if !part.lead.is_empty() {
        table += &paragraph("dim", &part.lead);
    }
    // A table wider than the page scrolls, by keyboard too.
    let _ = writeln!(
        table,
        "<div class=\"sheet\" role=\"region\" tabindex=\"0\" \
         aria-label=\"{}\">\n<table>\n<thead><tr>",
        escaped(&part.title)
    );
    let class = |column: usize| {
        if left.contains(&column) {
            " class=\"words\""
        } else {
            ""
        }
    };
    for (column, header) in headers.iter().enumerate() {
        let _ = match header.is_empty() {
            true => write!(table, "<td></td>"),
            false => write!(
                table,
                "<th scope=\"col\"{}>{}{}</th>",
                class(column),
                escaped(header),
                room(units[column], "")
            ),
        };
    }
    table += "</tr></thead>\n<tbody>\n";
    for row in rows {
        table += "<tr>";
        for (column, cell) in row.iter().enumerate() {
            let shown = match (cell.as_str(), measure(cell)) {
                ("PASS", _) => marked(true),
                ("FAIL", _) => marked(false),
                (_, Some((number, unit))) if !left.contains(&column) => {
                    format!("{}{}", escaped(number), room(units[column], unit))
                }
                ("", _) => String::new(),
                (_, None) if !left.contains(&column) => {
                    format!("{}{}", escaped(cell), room(units[column], ""))
                }
                _ => escaped(cell),
            };
            let _ = match column {
                0 => write!(
                    table,
                    "<th scope=\"row\" class=\"words first\">{shown}</th>"
                ),
                _ if cell == "PASS" || cell == "FAIL" => {
                    write!(table, "<td class=\"says\">{shown}</td>")
                }
                _ => write!(table, "<td{}>{shown}</td>", class(column)),
            };
        }
        table += "</tr>\n";
    }
    table += "</tbody>\n</table>\n</div>\n";
    if !part.notes.is_empty() {
        let notes = part
            .notes
            .iter()
            .map(|note| format!("<li>{}</li>", escaped(note)));
        let _ = writeln!(
            table,
            "<ul class=\"notes\">{}</ul>",
            notes.collect::<String>()
        );
    }
    table + "</div>\n"
}

/// A figure and its unit, if the cell holds one.
fn measure(cell: &str) -> Option<(&str, &str)> {
    let (number, unit) = cell.rsplit_once(' ')?;
    let is_number = number.starts_with(|first: char| first.is_ascii_digit());
    let is_unit = !unit.is_empty() && !unit.starts_with(|first: char| first.is_ascii_digit());
    (is_number && is_unit && !number.contains(char::is_alphabetic)).then_some((number, unit))
}

/// A unit in a space as wide as the longest unit of its column.
fn room(widest: usize, unit: &str) -> String {
    match (widest, unit) {
        (0, _) => String::new(),
        (_, "") => format!("<span class=\"unit\" style=\"width:{widest}.6ch\"></span>"),
        _ => format!(
            " <span class=\"unit\" style=\"width:{widest}.6ch\">{}</span>",
            escaped(unit)
        ),
    }
}

/// The picture of the waits of these crowds.
fn waiting(curves: &[Curve<'_>], limits: &[Limit], title: &str, caption: &str) -> String {
    let drawn = for_both(|width| {
        latency::picture(curves, limits, width).inline(title, &latency::in_words(curves, limits))
    });
    figure(&[drawn], caption)
}

const HOW_TO_READ: &str = "The scale gives each further nine of the callers the same room, so \
     that the few slow ones can be seen. Line: the callers of all runs. Band: from the best run \
     to the worst. Dots: p50 and p99, as in the table. Thin: the control, the same crowd at a \
     plain value.";

/// A crowd and its control.
fn curves(row: &StampedeRow, ink: Ink) -> [Curve<'_>; 2] {
    [
        Curve {
            name: row.name.clone(),
            ink,
            all: row.cache.spread(),
            runs: &row.cache.runs,
            aside: false,
        },
        control(format!("control, {}", row.name), &row.control),
    ]
}

fn control(name: String, times: &Times) -> Curve<'static> {
    Curve {
        name,
        ink: Ink::Other,
        all: times.spread(),
        runs: &[],
        aside: true,
    }
}

/// The limits for callers of a stale entry, besides the control.
fn limits(rows: &[StampedeRow]) -> Vec<Limit> {
    let shortest = rows.iter().map(|row| row.compute).min();
    let compute = shortest.unwrap_or_default();
    let limit = |name: &str, at| Limit {
        name: name.to_owned(),
        at,
    };
    vec![
        limit("one compute", compute),
        limit("10 % of a compute", compute / 10),
        limit("1 % of a compute", compute / 100),
    ]
}

fn crowds(findings: &Findings) -> Option<String> {
    let inks = [Ink::Ours, Ink::Text].into_iter().cycle();
    let rows = findings.stale.iter().zip(inks);
    let mut curves: Vec<_> = rows.flat_map(|(row, ink)| curves(row, ink)).collect();
    let cold = &findings.cold;
    curves.push(Curve {
        name: cold.name(),
        ink: Ink::Work,
        all: cold.cache.times.spread(),
        runs: &cold.cache.times.runs,
        aside: false,
    });
    let name = format!("control, {}", cold.name());
    curves.push(control(name, &cold.control.times));
    let figure = waiting(
        &curves,
        &limits(&findings.stale),
        "How long a crowd waits for one value",
        &format!(
            "Callers of a stale entry read it and go on. Only callers without a value wait for the \
             load. {HOW_TO_READ}"
        ),
    );
    let parts: Vec<Part> = findings.stale.iter().map(StampedeRow::part).collect();
    let parts: Vec<Part> = parts.into_iter().chain([findings.cold.part()]).collect();
    Some(section("crowds", "A crowd on one value", &figure, &parts))
}

fn redis(findings: &Findings) -> Option<String> {
    let through = findings.through.as_ref()?;
    let inks = [Ink::Ours, Ink::Text].into_iter().cycle();
    let rows = through.crowds.iter().zip(inks);
    let curves: Vec<_> = rows.flat_map(|(row, ink)| curves(row, ink)).collect();
    let figure = waiting(
        &curves,
        &limits(&through.crowds),
        "How long a crowd on a stale entry waits with Redis behind the cache",
        &format!("Reads of a stale entry do not wait for Redis either. {HOW_TO_READ}"),
    );
    Some(section(
        "redis",
        "With Redis behind it",
        &figure,
        &through.parts(),
    ))
}

fn accesses(findings: &Findings) -> Option<String> {
    let replayed = findings.replayed.as_ref()?;
    let inks = [Ink::Other, Ink::Work, Ink::Ours, Ink::Text];
    let rows = replayed.rows.iter().zip(inks.into_iter().cycle());
    let curves: Vec<_> = rows
        .map(|(row, ink)| Curve {
            name: row.name.to_owned(),
            ink,
            all: row.spread.clone(),
            runs: &[],
            aside: false,
        })
        .collect();
    let load = [Limit {
        name: "a load".to_owned(),
        at: trace::LOAD,
    }];
    let figure = waiting(
        &curves,
        &load,
        "How long accesses of a trace wait, by policy",
        "The same accesses at the same pace under each policy. The scale gives each further nine \
         of the accesses the same room. Dots: p50 and p99, as in the table.",
    );
    let title = "Real accesses, replayed";
    Some(section("accesses", title, &figure, &[replayed.part()]))
}

fn generations(findings: &Findings) -> Option<String> {
    let loads = evolution::LOADS.each_ref().map(|load| {
        let rows = findings.generations.iter();
        let rows: Vec<_> = rows.filter(|row| row.is_under(load)).collect();
        (load, rows)
    });
    let mut figures = String::new();

    let computes = loads.each_ref().map(|(load, rows)| {
        let bars: Vec<Bar> = rows.iter().map(|row| row.bar()).collect();
        let title = format!("Computes; callers come {}", load.arrival);
        let words = bars
            .iter()
            .map(|bar| format!("{}: {}", bar.label, bar.shown));
        let words: Vec<String> = words.collect();
        svg::bars(&title, "computes", &bars, NARROW)
            .inline(&title, &format!("{}.", words.join("; ")))
    });
    figures += &figure(
        &computes,
        "How often 100 callers of one stale key compute its value; one compute is enough.",
    );

    let stampede =
        |rows: &[&evolution::EvolutionRow], arrival: &str, title: &str, caption: &str| {
            let scenes: Vec<Scene<'_>> = rows.iter().map(|row| row.scene()).collect();
            let drawn = for_both(|width| {
                timeline::picture(&scenes, arrival, width)
                    .inline(title, &timeline::in_words(&scenes))
            });
            figure(&[drawn], caption)
        };
    if let Some(unprotected) = loads[0].1.first() {
        figures += &stampede(
            &[unprotected],
            loads[0].0.arrival,
            "A stampede",
            "The stampede, all at once. Each caller is a line from arrival to answer (a dot), \
             thick while the caller computes.",
        );
    }
    for (load, rows) in &loads {
        let best = &rows[rows.len().saturating_sub(2)..];
        let caption = format!(
            "Callers {}: the best of the locks, and everfresh, on one scale. Dashed: the new value \
             is published.",
            load.arrival
        );
        figures += &stampede(
            best,
            load.arrival,
            &format!("Callers of one stale key, {}", load.arrival),
            &caption,
        );
    }
    let part = evolution::part(&findings.generations, findings.light);
    let title = "By generation of protection";
    Some(section("generations", title, &figures, &[part]))
}

#[cfg(test)]
mod tests;
