//! The picture of the waits of callers: their share against time, on scales that show the few slow
//! callers.
use std::time::Duration;

use dev_support::report::time;
use dev_support::svg::{Anchor, Ink, Picture, width_of};

use crate::spread::Spread;

/// One crowd, measured once or in several runs.
pub struct Curve<'a> {
    pub name: String,
    pub ink: Ink,
    /// The quantiles of all calls.
    pub all: Spread,
    /// The quantiles of each run, if there are several.
    pub runs: &'a [Spread],
    /// Only for comparison: a thin line without a label; the caption explains it.
    pub aside: bool,
}

/// A time to compare with.
pub struct Limit {
    pub name: String,
    pub at: Duration,
}

impl Curve<'_> {
    /// At each part, the quantiles of the best and of the worst run.
    fn band(&self) -> Vec<(f64, [Duration; 2])> {
        let Some(first) = self.runs.first() else {
            return Vec::new();
        };
        let at = |(index, (part, _)): (usize, &(f64, Duration))| {
            let times = self.runs.iter().filter_map(|run| run.quantiles.get(index));
            let times = times.map(|(_, time)| *time);
            Some((*part, [times.clone().min()?, times.max()?]))
        };
        let parts = first.quantiles.iter().enumerate();
        parts.filter_map(at).collect()
    }

    /// The whole line.
    fn line(&self) -> &[(f64, Duration)] {
        &self.all.quantiles
    }

    fn figure(&self, wanted: f64) -> Option<Duration> {
        let found = self.line().iter().find(|(part, _)| *part == wanted);
        found.map(|(_, time)| *time)
    }

    fn in_words(&self) -> String {
        let figures = [(0.5, "p50"), (0.99, "p99"), (1.0, "slowest")].map(|(part, name)| {
            let figure = self.figure(part).map(time);
            format!("{name} {}", figure.as_deref().unwrap_or("unknown"))
        });
        format!("{}: {}", self.name, figures.join(", "))
    }
}

/// The content of the picture in words, for readers that cannot see it.
pub fn in_words(curves: &[Curve<'_>], limits: &[Limit]) -> String {
    let curves = curves.iter().map(Curve::in_words);
    let limits = limits
        .iter()
        .map(|limit| format!("{}: {}", limit.name, time(limit.at)));
    let all: Vec<String> = curves.chain(limits).collect();
    format!(
        "Share of callers against the time to their answer. {}.",
        all.join("; ")
    )
}

const LEFT: f64 = 62.0;
const RIGHT: f64 = 20.0;
/// The height from one nine to the next.
const DECADE: f64 = 54.0;
/// The height above the last nine.
const ALL: f64 = 26.0;
const LINE: f64 = 16.0;

/// The scales: time grows to the right, decade by decade; shares grow upwards, nine by nine.
struct Field {
    /// Powers of ten of a nanosecond.
    decades: (i32, i32),
    top: f64,
    bottom: f64,
    right: f64,
}

impl Field {
    fn new(curves: &[Curve<'_>], limits: &[Limit], width: f64) -> Field {
        let mut times: Vec<Duration> = limits.iter().map(|limit| limit.at).collect();
        let mut nines = 2.0;
        for curve in curves {
            times.extend(curve.band().iter().flat_map(|(_, edges)| edges));
            for (part, time) in curve.line() {
                times.push(*time);
                if *part < 1.0 {
                    nines = f64::max(nines, -(1.0 - part).log10());
                }
            }
        }
        let power = |time: Option<&Duration>| (nanos(time.copied().unwrap_or_default())).log10();
        let low = power(times.iter().min()).floor() as i32;
        let high = power(times.iter().max()).ceil() as i32;
        let top = 12.0 + LINE * limits.len() as f64;
        Field {
            decades: (low, high.max(low + 1)),
            top,
            bottom: top + ALL + DECADE * nines,
            right: width - RIGHT,
        }
    }

    fn x(&self, time: Duration) -> f64 {
        self.x_of(nanos(time).log10())
    }

    fn x_of(&self, power: f64) -> f64 {
        let (low, high) = (f64::from(self.decades.0), f64::from(self.decades.1));
        LEFT + (self.right - LEFT) * (power - low) / (high - low)
    }

    fn y(&self, part: f64) -> f64 {
        let nines = -(1.0 - part).log10();
        match nines.is_finite() {
            true => self.bottom - DECADE * nines,
            false => self.top,
        }
    }

    fn grid(&self, picture: &mut Picture) {
        let (low, high) = self.decades;
        let every = if self.x_of(1.0) - self.x_of(0.0) < 46.0 {
            2
        } else {
            1
        };
        for power in low..=high {
            let x = self.x_of(f64::from(power));
            picture.line(&[(x, self.top), (x, self.bottom + 4.0)], Ink::Grid, "");
            if (power - low) % every == 0 {
                let place = (x, self.bottom + 18.0);
                let label = power_of_ten(power);
                picture.text(place, Anchor::Middle, Ink::Dim, "small", &label);
            }
            for digit in (2..10).filter(|_| power < high) {
                let x = self.x_of(f64::from(power) + f64::from(digit).log10());
                picture.line(&[(x, self.bottom), (x, self.bottom + 3.0)], Ink::Dim, "");
            }
        }
        let parts = [
            (0.0, "0 %"),
            (0.5, "50 %"),
            (0.9, "90 %"),
            (0.99, "99 %"),
            (0.999, "99.9 %"),
            (0.9999, "99.99 %"),
            (1.0, "all"),
        ];
        for (part, label) in parts {
            let y = self.y(part);
            if y >= self.top {
                picture.line(&[(LEFT, y), (self.right, y)], Ink::Grid, "");
                let place = (LEFT - 7.0, y + 4.0);
                picture.text(place, Anchor::End, Ink::Dim, "small", label);
            }
        }
        picture.line(
            &[(LEFT, self.bottom), (self.right, self.bottom)],
            Ink::Dim,
            "",
        );
        let middle = ((LEFT + self.right) / 2.0, self.bottom + 37.0);
        let axis = "time from call to answer";
        picture.text(middle, Anchor::Middle, Ink::Dim, "small", axis);
        let above = (2.0, self.top - 12.0);
        picture.text(above, Anchor::Start, Ink::Dim, "small", "answered");
    }

    /// Times without a name yet stand out of the way above the field, one line each.
    fn limits(&self, picture: &mut Picture, limits: &[Limit]) {
        for (at, limit) in limits.iter().enumerate() {
            let x = self.x(limit.at);
            let y = LINE * at as f64 + 4.0;
            picture.line(&[(x, y), (x, self.bottom)], Ink::Dim, "dash");
            let label = format!("{}: {}", limit.name, time(limit.at));
            let (anchor, beside) = match x - width_of(&label) > 0.0 {
                true => (Anchor::End, x - 6.0),
                false => (Anchor::Start, x + 6.0),
            };
            picture.text((beside, y + 9.0), anchor, Ink::Dim, "small", &label);
        }
    }
}

/// At least one nanosecond, so that it has a logarithm.
fn nanos(time: Duration) -> f64 {
    (time.as_nanos() as f64).max(1.0)
}

fn power_of_ten(power: i32) -> String {
    let units = ["ns", "µs", "ms", "s"];
    let unit = (power.max(0) / 3).min(3);
    format!(
        "{} {}",
        10u64.pow((power - 3 * unit).max(0) as u32),
        units[unit as usize]
    )
}

struct Label<'a> {
    text: &'a str,
    ink: Ink,
    more: &'static str,
    /// A label that is left out if there is no room.
    needed: bool,
}

/// Its top left and its bottom right corner.
type Corners = [(f64, f64); 2];

fn apart([from, to]: &Corners, [other_from, other_to]: &Corners) -> bool {
    to.0 < other_from.0 || other_to.0 < from.0 || to.1 < other_from.1 || other_to.1 < from.1
}

/// Places on which no label may stand.
#[derive(Default)]
struct Taken {
    lines: Vec<Corners>,
    labels: Vec<Corners>,
}

/// The share of callers with an answer after each time: a curve for each crowd, in a band from its
/// best run to its worst. Dots mark p50 and p99.
pub fn picture(curves: &[Curve<'_>], limits: &[Limit], width: f64) -> Picture {
    let field = Field::new(curves, limits, width);
    let mut picture = Picture::new(width, field.bottom + 44.0);
    field.grid(&mut picture);
    field.limits(&mut picture, limits);
    let mut taken = Taken::default();
    let mut dots = Vec::new();
    for curve in curves {
        let place = |part: f64, time: Duration| (field.x(time), field.y(part));
        let band = curve.band();
        let edge = |of: usize| {
            band.iter()
                .map(move |(part, edges)| place(*part, edges[of]))
        };
        if curve.runs.len() > 1 {
            let around: Vec<_> = edge(0).chain(edge(1).rev()).collect();
            picture.area(&around, curve.ink);
        }
        let line = curve.line().iter();
        let line: Vec<_> = line.map(|(part, time)| place(*part, *time)).collect();
        let more = if curve.aside { "round" } else { "bold round" };
        picture.line(&line, curve.ink, more);
        // A label can be read on a band, but not on a line. A slanting piece is taken in steps.
        for piece in line.windows(2) {
            let ((x, y), (to_x, to_y)) = (piece[0], piece[1]);
            for step in 0..8 {
                let at = |step: u32| {
                    let part = f64::from(step) / 8.0;
                    (x + (to_x - x) * part, y + (to_y - y) * part)
                };
                let (low, high) = (at(step), at(step + 1));
                taken
                    .lines
                    .push([(low.0 - 1.0, high.1 - 2.0), (high.0 + 1.0, low.1 + 2.0)]);
            }
        }
        for (part, name) in [(0.5, "p50"), (0.99, "p99")] {
            if let Some(figure) = curve.figure(part).filter(|_| !curve.aside) {
                let label = format!("{name} {}", time(figure));
                dots.push((place(part, figure), curve.ink, label));
            }
        }
    }
    // Last, so that no curve crosses them.
    for (place, ink, label) in &dots {
        picture.dot(*place, 3.5, *ink);
        beside(
            &field,
            &mut picture,
            &mut taken,
            &[0.0, 12.0, -12.0].map(|down| (place.0, place.1 + down)),
            &Label {
                text: label,
                ink: *ink,
                more: "small",
                needed: false,
            },
        );
    }
    for curve in curves.iter().filter(|curve| !curve.aside) {
        let level = |wanted: f64| {
            let near = curve.line().iter().find(|(part, _)| *part >= wanted);
            near.map(|(part, time)| (field.x(*time), field.y(*part)))
        };
        let levels = [0.92, 0.96, 0.8, 0.995, 0.998, 0.6, 0.2, 0.9995].into_iter();
        let levels = levels.chain(curve.line().iter().map(|(part, _)| *part));
        let places: Vec<_> = levels.filter_map(level).collect();
        beside(
            &field,
            &mut picture,
            &mut taken,
            &places,
            &Label {
                text: &curve.name,
                ink: curve.ink,
                more: "strong",
                needed: true,
            },
        );
    }
    picture
}

/// Writes beside the first free place, to the right of it or else to the left.
fn beside(
    field: &Field,
    picture: &mut Picture,
    taken: &mut Taken,
    places: &[(f64, f64)],
    label: &Label<'_>,
) {
    let width = width_of(label.text) * if label.more == "small" { 0.9 } else { 1.02 };
    let boxes = places.iter().flat_map(|&(x, y)| {
        [(x + 8.0, Anchor::Start), (x - 8.0 - width, Anchor::End)]
            .map(|(left, anchor)| (anchor, [(left, y - 8.0), (left + width, y + 8.0)]))
    });
    let free = |area: &Corners| {
        let [from, to] = area;
        let across = from.0 > LEFT && to.0 < field.right + RIGHT;
        let down = from.1 > field.top - 6.0 && to.1 < field.bottom;
        across && down && taken.labels.iter().all(|label| apart(area, label))
    };
    let unlined = |area: &Corners| taken.lines.iter().all(|line| apart(area, line));
    let boxes: Vec<_> = boxes.collect();
    let Some((anchor, [from, to])) = boxes
        .iter()
        .find(|(_, area)| free(area) && unlined(area))
        // A label can be read across a line, but not across another label.
        .or_else(|| boxes.iter().find(|(_, area)| label.needed && free(area)))
        .or_else(|| boxes.iter().find(|_| label.needed))
    else {
        return;
    };
    let x = if *anchor == Anchor::Start {
        from.0
    } else {
        to.0
    };
    let place = (x, from.1 + 12.0);
    picture.text(place, *anchor, label.ink, label.more, label.text);
    taken.labels.push([*from, *to]);
}
