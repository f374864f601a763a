//! Pictures as SVG: the marks, the colours and the bars that the reports of `certify` and of
//! `everfresh-benches` have in common.
//!
//! The colours are from the palette of Okabe and Ito ("Color Universal Design", 2008), which
//! colour-blind readers can distinguish. They are chosen so that their greys differ, too. Each mark
//! also has a width or a label of its own.

use std::fmt::Write;

/// The meaning of a mark, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Figures of everfresh.
    Ours,
    /// Figures of the others, for comparison.
    Other,
    /// A compute.
    Work,
    /// A caller that waits.
    Wait,
    /// The main text.
    Text,
    /// Secondary text.
    Dim,
    Grid,
}

/// Name, colour on white, colour on black.
const INKS: [(Ink, &str, &str, &str); 7] = [
    (Ink::Ours, "ours", "#0072b2", "#56b4e9"),
    (Ink::Other, "other", "#8f8f8f", "#8a9097"),
    (Ink::Work, "work", "#c24e00", "#f0914a"),
    (Ink::Wait, "wait", "#b9bec4", "#5d656d"),
    (Ink::Text, "text", "#1a1a1a", "#e9e9e9"),
    (Ink::Dim, "dim", "#595959", "#a9afb5"),
    (Ink::Grid, "grid", "#e2e2e2", "#2f353a"),
];

/// The paper, white and black.
pub const PAPER: [&str; 2] = ["#ffffff", "#14171a"];

/// The style sheet of every picture. It follows the dark mode of a screen; on paper it is black on
/// white.
pub fn style() -> String {
    let colours = |dark: bool| {
        let paper = PAPER[usize::from(dark)];
        let mut rules = format!(".paper{{fill:{paper}}}.halo{{stroke:{paper}}}\n");
        for (_, name, light, night) in INKS {
            let colour = if dark { night } else { light };
            // Writing to a string cannot fail.
            let _ = writeln!(
                rules,
                ".fill.{name}{{fill:{colour}}}.line.{name}{{stroke:{colour}}}"
            );
        }
        rules
    };
    format!(
        "svg{{font:13px -apple-system,\"Segoe UI\",Roboto,\
         \"Helvetica Neue\",Arial,\"Liberation Sans\",sans-serif;\
         font-variant-numeric:tabular-nums}}\n\
         .line{{fill:none;stroke-width:1}}.thin{{stroke-width:.8}}.bold{{stroke-width:2}}\
         .dash{{stroke-dasharray:5 3}}\
         .round{{stroke-linecap:round}}.pale{{opacity:.22}}.strong{{font-weight:600}}\
         .small{{font-size:11.5px}}\n\
         .halo{{paint-order:stroke;stroke-width:4;stroke-linejoin:round}}\n\
         {}@media screen and (prefers-color-scheme:dark){{\n{}}}\n",
        colours(false),
        colours(true),
    )
}

impl Ink {
    fn name(self) -> &'static str {
        let of_mine = INKS.iter().find(|(ink, ..)| *ink == self);
        of_mine.map_or("text", |(_, name, ..)| name)
    }
}

/// The direction in which a text runs from its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture that is being drawn. Lengths are pixels of a screen; (0, 0) is the top left corner.
pub struct Picture {
    width: f64,
    height: f64,
    marks: String,
}

impl Picture {
    pub fn new(width: f64, height: f64) -> Picture {
        Picture {
            width,
            height,
            marks: String::new(),
        }
    }

    /// A line through the points; `more` names more classes: bold, dash, round.
    pub fn line(&mut self, points: &[(f64, f64)], ink: Ink, more: &str) {
        let _ = writeln!(
            self.marks,
            "<polyline class=\"line {} {more}\" points=\"{}\"/>",
            ink.name(),
            places(points)
        );
    }

    /// The area that the points enclose, pale.
    pub fn area(&mut self, points: &[(f64, f64)], ink: Ink) {
        let _ = writeln!(
            self.marks,
            "<polygon class=\"fill {} pale\" points=\"{}\"/>",
            ink.name(),
            places(points)
        );
    }

    pub fn block(&mut self, (x, y): (f64, f64), width: f64, height: f64, ink: Ink) {
        let _ = writeln!(
            self.marks,
            "<rect class=\"fill {}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" \
             height=\"{height:.1}\"/>",
            ink.name(),
            width.max(1.0)
        );
    }

    pub fn dot(&mut self, (x, y): (f64, f64), radius: f64, ink: Ink) {
        let _ = writeln!(
            self.marks,
            "<circle class=\"fill {}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\"/>",
            ink.name()
        );
    }

    /// A text on a thin border of paper, so that it can be read across lines. `more` names more
    /// classes: strong, small.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, ink: Ink, more: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.marks,
            "<text class=\"fill halo {} {more}\" x=\"{x:.1}\" y=\"{y:.1}\" \
             text-anchor=\"{anchor}\">{}</text>",
            ink.name(),
            escaped(text)
        );
    }

    /// The picture for a page that has the style sheet. The description says in words what it
    /// shows.
    pub fn inline(&self, title: &str, description: &str) -> String {
        self.svg(0.0, "", title, description, "")
    }

    /// The picture as a file of its own.
    pub fn file(&self, title: &str, description: &str) -> String {
        const MARGIN: f64 = 14.0;
        let paper = format!(
            "<style>\n{}</style>\n<rect class=\"paper\" x=\"-{MARGIN}\" y=\"-{MARGIN}\" \
             width=\"100%\" height=\"100%\"/>\n",
            style()
        );
        let space = " xmlns=\"http://www.w3.org/2000/svg\"";
        self.svg(MARGIN, space, title, description, &paper)
    }

    fn svg(&self, margin: f64, space: &str, title: &str, description: &str, first: &str) -> String {
        let at = 0.0 - margin;
        let (width, height) = (self.width + 2.0 * margin, self.height + 2.0 * margin);
        format!(
            "<svg{space} role=\"img\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"{at:.0} {at:.0} {width:.0} {height:.0}\">\n\
             <title>{}</title><desc>{}</desc>\n{first}{}</svg>\n",
            escaped(title),
            escaped(description),
            self.marks
        )
    }
}

fn places(points: &[(f64, f64)]) -> String {
    let places = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}"));
    places.collect::<Vec<_>>().join(" ")
}

/// Escapes text for elements and for attributes in double quotes.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            // A document must not contain control characters, escaped or not.
            control if control.is_control() && control != '\n' => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

/// The approximate width of a text.
pub fn width_of(text: &str) -> f64 {
    6.9 * text.chars().count() as f64
}

/// A scale from 0 that ends at a round number.
pub struct Scale {
    start: f64,
    end: f64,
    high: f64,
    step: f64,
}

impl Scale {
    /// From 0 at `start` to at least `high` at `end`, with at most five steps of 1, 2 or 5 times a
    /// power of ten.
    pub fn new(high: f64, start: f64, end: f64) -> Scale {
        let high = if high.is_finite() {
            high.max(1e-9)
        } else {
            1.0
        };
        let power = 10f64.powf((high / 5.0).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|times| times * power);
        let fits = |step: &&f64| **step * 5.0 >= high * 0.999_999;
        let step = *steps.iter().find(fits).unwrap_or(&steps[3]);
        Scale {
            start,
            end,
            high,
            step,
        }
    }

    /// Extends the scale to the next tick.
    pub fn rounded(mut self) -> Scale {
        self.high = (self.high / self.step - 1e-6).ceil() * self.step;
        self
    }

    pub fn at(&self, value: f64) -> f64 {
        self.start + (self.end - self.start) * value / self.high
    }

    /// Value and label of each tick.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let places = (-self.step.log10().floor()).max(0.0) as usize;
        let count = (self.high / self.step + 1e-6) as usize;
        let ticks = (0..=count).map(|tick| tick as f64 * self.step);
        ticks
            .map(|value| (value, format!("{value:.places$}")))
            .collect()
    }
}

/// One bar, its value as a number and as text.
pub struct Bar {
    pub label: String,
    pub value: f64,
    pub shown: String,
    pub ink: Ink,
}

/// Bars from zero, each with its value. Labels stand before the bars, or above them if the picture
/// is narrow.
pub fn bars(title: &str, unit: &str, bars: &[Bar], width: f64) -> Picture {
    const ABOVE: f64 = 500.0;
    const BAR: f64 = 14.0;
    let narrow = width < ABOVE;
    let widest = |text: fn(&Bar) -> &String| {
        let widths = bars.iter().map(|bar| width_of(text(bar)));
        widths.fold(0.0, f64::max)
    };
    let left = match narrow {
        true => 2.0,
        false => widest(|bar| &bar.label) + 12.0,
    };
    let row = if narrow { 36.0 } else { 23.0 };
    let right = width - widest(|bar| &bar.shown) - 12.0;
    let (top, bottom) = (34.0, 34.0 + row * bars.len() as f64);

    let most = bars.iter().map(|bar| bar.value);
    let most = most.filter(|value| value.is_finite()).fold(0.0, f64::max);
    let scale = Scale::new(most, left, right).rounded();
    let mut picture = Picture::new(width, bottom + 40.0);
    picture.text((2.0, 17.0), Anchor::Start, Ink::Text, "strong", title);
    for (value, label) in scale.ticks() {
        let x = scale.at(value);
        picture.line(&[(x, top - 6.0), (x, bottom)], Ink::Grid, "");
        let anchor = if narrow && value == 0.0 {
            Anchor::Start
        } else {
            Anchor::Middle
        };
        let place = (if narrow && value == 0.0 { 2.0 } else { x }, bottom + 15.0);
        picture.text(place, anchor, Ink::Dim, "small", &label);
    }
    picture.text(
        ((left + right) / 2.0, bottom + 32.0),
        Anchor::Middle,
        Ink::Dim,
        "small",
        unit,
    );
    for (at, bar) in bars.iter().enumerate() {
        let y = top + row * at as f64;
        let (y, label, anchor) = match narrow {
            true => (y + 15.0, (left, y + 9.0), Anchor::Start),
            false => (y, (left - 8.0, y + 12.0), Anchor::End),
        };
        let weight = if bar.ink == Ink::Ours { "strong" } else { "" };
        picture.text(label, anchor, Ink::Text, weight, &bar.label);
        let value = if bar.value.is_finite() {
            bar.value.max(0.0)
        } else {
            0.0
        };
        let length = scale.at(value) - left;
        picture.block((left, y), length, BAR, bar.ink);
        let end = (left + length.max(1.0) + 6.0, y + 12.0);
        picture.text(end, Anchor::Start, Ink::Text, weight, &bar.shown);
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(high: f64) -> Vec<String> {
        let scale = Scale::new(high, 0.0, 100.0).rounded();
        assert!(!high.is_finite() || scale.at(high) <= 100.001, "{high}");
        scale.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_reach_the_highest_value() {
        assert_eq!(ticks(100.0), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(ticks(99.0).last().map(String::as_str), Some("100"));
        assert_eq!(
            ticks(0.23),
            ["0.00", "0.05", "0.10", "0.15", "0.20", "0.25"]
        );
        assert_eq!(ticks(1_234.0), ["0", "500", "1000", "1500"]);
        for high in [0.0, 1e-9, 3.0, 7.7e12, f64::NAN, f64::INFINITY] {
            assert!((2..=7).contains(&ticks(high).len()), "{high}");
        }
    }

    #[test]
    fn bars_begin_at_zero_and_are_as_long_as_their_values() {
        let bar = |value| Bar {
            label: "a < b".to_owned(),
            value,
            shown: "as written".to_owned(),
            ink: Ink::Ours,
        };
        for width in [348.0, 720.0] {
            let bars = bars(
                "title & more",
                "ns",
                &[bar(10.0), bar(5.0), bar(f64::NAN)],
                width,
            );
            let file = bars.file("title & more", "in words");
            let blocks = file.split("<rect class=\"fill ours\"").skip(1);
            let number = |block: &str, name: &str| {
                let value = block
                    .split_once(&format!(" {name}=\""))?
                    .1
                    .split('"')
                    .next()?;
                value.parse::<f64>().ok()
            };
            let blocks: Vec<_> = blocks.collect();
            let starts: Vec<_> = blocks.iter().map(|block| number(block, "x")).collect();
            let [Some(full), Some(half), Some(none)] =
                [0, 1, 2].map(|at| number(blocks[at], "width"))
            else {
                panic!("{file}");
            };
            assert!(starts.iter().all(|start| *start == starts[0]));
            assert!(
                (full - 2.0 * half).abs() < 0.2 && none == 1.0,
                "{full} {half} {none}"
            );
            assert!(file.contains("title &amp; more") && file.contains("a &lt; b"));
            assert!(!file.contains("NaN"));
        }
    }
}
