//! The picture of a stampede: every caller a line from arrival to answer, every compute a bar.
use std::time::{Duration, Instant};

use dev_support::report::time;
use dev_support::svg::{Anchor, Ink, Picture, Scale, width_of};

use crate::crowd::{Answer, Call, Compute};

/// One crowd and its computes.
pub struct Scene<'a> {
    pub name: &'a str,
    /// The figures beside its name.
    pub figures: String,
    pub calls: &'a [Call],
    pub ran: &'a [Compute],
}

const LEFT: f64 = 44.0;
const RIGHT: f64 = 10.0;
/// The distance from one caller to the next.
const PITCH: f64 = 1.35;
/// The height above the callers: the name, then computes in the background.
const HEAD: f64 = 24.0;
const LINE: f64 = 16.0;
const BACKGROUND: f64 = 16.0;
const GAP: f64 = 14.0;
/// The space to the right of the last end.
const LABEL: f64 = 128.0;

impl Scene<'_> {
    fn start(&self) -> Option<Instant> {
        self.calls.iter().map(|call| call.began).min()
    }

    /// The time until the last answer and the last publication.
    fn lasts(&self) -> Duration {
        let answers = self.calls.iter().map(|call| call.ended);
        let computes = self
            .ran
            .iter()
            .map(|ran| ran.published.unwrap_or(ran.ended));
        let end = answers.chain(computes).max();
        let lasts = end.zip(self.start());
        lasts.map_or(Duration::ZERO, |(end, start)| end - start)
    }

    /// Name and figures stand on one line, or on two if there is no room.
    fn head(&self, width: f64) -> f64 {
        match self.beside(width) {
            Some(_) => HEAD,
            None => HEAD + LINE,
        }
    }

    /// The start of the figures if they stand on the line of the name.
    fn beside(&self, width: f64) -> Option<f64> {
        let start = 2.0 + 1.06 * width_of(self.name) + 8.0;
        (start + width_of(&self.figures) < width).then_some(start)
    }

    fn height(&self, width: f64) -> f64 {
        self.head(width) + BACKGROUND + PITCH * self.calls.len() as f64
    }

    fn in_words(&self) -> String {
        let last = self.calls.iter().map(|call| call.ended).max();
        let last = last.zip(self.start()).map(|(last, start)| last - start);
        format!(
            "{}: {} callers, {}, the last answer after {}",
            self.name,
            self.calls.len(),
            self.figures,
            time(last.unwrap_or_default())
        )
    }
}

pub fn in_words(scenes: &[Scene<'_>]) -> String {
    let scenes: Vec<String> = scenes.iter().map(Scene::in_words).collect();
    format!("Each caller from arrival to answer. {}.", scenes.join("; "))
}

/// The scenes one below the other, on one scale of time; `came` describes the arrival of the
/// callers.
pub fn picture(scenes: &[Scene<'_>], came: &str, width: f64) -> Picture {
    let lasts = scenes.iter().map(Scene::lasts).max().unwrap_or_default();
    // Labels stand to the right of their bars.
    let across = width - RIGHT - LEFT;
    let scale = Scale::new(
        millis(lasts) * across / (across - LABEL),
        LEFT,
        width - RIGHT,
    );
    let heights = scenes.iter().map(|scene| scene.height(width) + GAP);
    let bottom = heights.sum::<f64>() - GAP + 6.0;
    let mut picture = Picture::new(width, bottom + 40.0);
    for (value, label) in scale.ticks() {
        let x = scale.at(value);
        picture.line(&[(x, HEAD + LINE), (x, bottom + 4.0)], Ink::Grid, "");
        picture.text(
            (x, bottom + 18.0),
            Anchor::Middle,
            Ink::Dim,
            "small",
            &label,
        );
    }
    picture.line(&[(LEFT, bottom), (width - RIGHT, bottom)], Ink::Dim, "");
    picture.text(
        ((LEFT + width - RIGHT) / 2.0, bottom + 36.0),
        Anchor::Middle,
        Ink::Dim,
        "small",
        &format!("ms since the first caller, {came}"),
    );
    let mut top = 0.0;
    for scene in scenes {
        Drawn {
            scene,
            scale: &scale,
            top,
            head: scene.head(width),
            width,
        }
        .on(&mut picture);
        top += scene.height(width) + GAP;
    }
    picture
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A scene in its place.
struct Drawn<'a> {
    scene: &'a Scene<'a>,
    scale: &'a Scale,
    top: f64,
    head: f64,
    width: f64,
}

impl Drawn<'_> {
    fn x(&self, at: Instant) -> f64 {
        let since = self
            .scene
            .start()
            .map(|start| at.saturating_duration_since(start));
        self.scale.at(millis(since.unwrap_or_default()))
    }

    fn y(&self, lane: usize) -> f64 {
        self.top + self.head + BACKGROUND + PITCH * (lane as f64 + 0.5)
    }

    fn on(&self, picture: &mut Picture) {
        let Scene {
            name,
            figures,
            calls,
            ran,
            ..
        } = self.scene;
        // The first caller is at the top; `turns` maps a lane to its caller.
        let mut turns: Vec<usize> = (0..calls.len()).collect();
        turns.sort_by_key(|turn| (calls[*turn].began, calls[*turn].ended));
        let lane_of = |turn: usize| turns.iter().position(|other| *other == turn);

        let ours = *name == "everfresh";
        let title = (2.0, self.top + 14.0);
        picture.text(title, Anchor::Start, Ink::Text, "strong", name);
        let beside = match self.scene.beside(self.width) {
            Some(start) => (start, title.1),
            None => (title.0, title.1 + LINE),
        };
        picture.text(beside, Anchor::Start, Ink::Dim, "", figures);
        let foot = self.y(calls.len().saturating_sub(1));
        for lane in [0, calls.len().saturating_sub(1)] {
            let place = (LEFT - 7.0, self.y(lane) + 4.0);
            let number = (lane + 1).to_string();
            picture.text(place, Anchor::End, Ink::Dim, "small", &number);
        }

        for (lane, turn) in turns.iter().enumerate() {
            let (from, to) = (self.x(calls[*turn].began), self.x(calls[*turn].ended));
            let y = self.y(lane);
            if to - from > 0.5 {
                picture.line(&[(from, y), (to, y)], Ink::Wait, "thin");
            }
            picture.dot((to, y), 1.1, if ours { Ink::Ours } else { Ink::Text });
        }
        for compute in *ran {
            let (from, to) = (self.x(compute.began), self.x(compute.ended));
            let lane = compute.by.and_then(lane_of);
            match lane {
                Some(lane) => picture.block((from, self.y(lane) - 0.9), to - from, 1.8, Ink::Work),
                None => {
                    let y = self.top + self.head + 3.0;
                    picture.block((from, y), to - from, 7.0, Ink::Work);
                }
            }
        }
        // A single publication is drawn. With many, each compute ends in one, so none is drawn.
        if let [only] = *ran
            && let Some(published) = only.published
        {
            let x = self.x(published);
            picture.line(
                &[(x, self.top + self.head - 2.0), (x, foot + 2.0)],
                Ink::Work,
                "dash",
            );
        }
        self.labels(picture, &turns);
    }

    /// Explains a line, a bar and a dot, once each.
    fn labels(&self, picture: &mut Picture, turns: &[usize]) {
        let Scene { calls, ran, .. } = self.scene;
        let Some(first) = ran.iter().min_by_key(|compute| compute.began) else {
            return;
        };
        let took = time(first.ended - first.began);
        let lane_of = |turn: usize| turns.iter().position(|other| *other == turn);
        let lane = first.by.and_then(lane_of);
        let (y, label) = match lane {
            Some(_) if ran.len() > 1 => (self.y(0) + 4.0, format!("{} compute", ran.len())),
            Some(_) => (self.y(0) + 4.0, format!("1 computes, {took}")),
            None => (self.top + self.head + 11.0, format!("1 refresh, {took}")),
        };
        let end = first.published.unwrap_or(first.ended);
        let answered = first.by.and_then(|turn| calls.get(turn));
        let end = answered.map_or(end, |call| end.max(call.ended));
        self.label(picture, self.x(end) + 8.0, y, Ink::Work, &label);

        let waits = calls.iter().enumerate().filter(|(turn, call)| match lane {
            // The label counts immediate answers instead of waits, because a caller may also have
            // lost its core.
            None => call.answer == Answer::Waited,
            Some(_) => {
                let computes = ran.iter().any(|compute| compute.by == Some(*turn));
                !computes && call.ended - call.began > Duration::from_millis(1)
            }
        });
        let waits: Vec<usize> = waits.map(|(turn, _)| turn).collect();
        let lanes: Vec<usize> = waits.iter().copied().filter_map(lane_of).collect();
        if let Some(lane) = lanes.iter().copied().max() {
            let lane = lane.min(calls.len() / 2);
            let x = turns.get(lane).map(|turn| self.x(calls[*turn].ended));
            let label = match waits.len() {
                1 => "1 waits".to_owned(),
                count => format!("{count} wait"),
            };
            self.label(
                picture,
                x.unwrap_or(LEFT) + 8.0,
                (self.y(lane) + 4.0).max(y + 18.0),
                Ink::Dim,
                &label,
            );
        } else if lane.is_none() {
            let lane = calls.len() * 6 / 10;
            let x = turns.get(lane).map(|turn| self.x(calls[*turn].ended));
            let x = x.unwrap_or(LEFT) + 8.0;
            let label = format!("{} answered at once", calls.len());
            self.label(picture, x, self.y(lane) - 4.0, Ink::Ours, &label);
        }
    }

    fn label(&self, picture: &mut Picture, x: f64, y: f64, ink: Ink, text: &str) {
        let room = self.width - width_of(text);
        picture.text((x.min(room).max(LEFT), y), Anchor::Start, ink, "", text);
    }
}
