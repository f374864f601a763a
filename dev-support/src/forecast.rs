//! A football forecast by simulation: real work that is worth caching.
//!
//! Goals follow two Poisson laws whose low scores are corrected for dependence (Dixon and Coles,
//! "Modelling Association Football Scores and Inefficiencies in the Football Betting Market",
//! 1997). The strength of the teams is uncertain too: every simulated match draws their form
//! anew, so there is no closed form.

use serde::{Deserialize, Serialize};

/// One match: the home team and the away team.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fixture {
    pub home: &'static str,
    pub away: &'static str,
}

/// The match that this program forecasts.
pub const MATCH: Fixture = Fixture {
    home: "ManCity",
    away: "Liverpool",
};

/// Simulated matches of a full forecast, which takes about 200 ms of one core.
pub const FULL: u32 = 1_700_000;

/// Simulated matches of a light forecast, which takes about 20 ms of one core.
pub const LIGHT: u32 = FULL / 10;

/// A fixed seed, so that every run makes the same forecast.
const SEED: u64 = 1892;

/// The probability of each result, 0 to 1, and the expected goals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    pub home: f64,
    pub draw: f64,
    pub away: f64,
    pub home_goals: f64,
    pub away_goals: f64,
    pub likeliest: (usize, usize),
}

impl Forecast {
    /// Whether the probabilities of the three results add up to 1.
    pub fn is_sound(&self) -> bool {
        (self.home + self.draw + self.away - 1.0).abs() < 1e-9
    }
}

/// The logarithms of the goals that a team scores and concedes, relative to the average team.
struct Strength {
    attack: f64,
    defence: f64,
}

/// The league: each team with its attack and its defence, made up and plausible.
pub const TEAMS: [(&str, f64, f64); 20] = [
    ("Arsenal", 0.43, -0.36),
    ("AstonVilla", 0.26, -0.05),
    ("Bournemouth", 0.02, 0.08),
    ("Brentford", 0.09, 0.07),
    ("Brighton", 0.11, 0.04),
    ("Burnley", -0.33, 0.25),
    ("Chelsea", 0.28, -0.06),
    ("CrystalPalace", 0.03, 0.01),
    ("Everton", -0.18, -0.04),
    ("Fulham", 0.01, 0.05),
    ("Leeds", -0.12, 0.16),
    ("Liverpool", 0.48, -0.27),
    ("ManCity", 0.52, -0.34),
    ("ManUnited", 0.13, 0.02),
    ("Newcastle", 0.35, -0.02),
    ("NottinghamForest", -0.05, 0.06),
    ("Sunderland", -0.28, 0.18),
    ("Tottenham", 0.29, 0.06),
    ("WestHam", 0.04, 0.14),
    ("Wolves", -0.08, 0.12),
];

fn strength(team: &str) -> Strength {
    let found = TEAMS.iter().find(|(name, ..)| *name == team);
    let (attack, defence) = found.map_or((0.0, 0.0), |(_, attack, defence)| (*attack, *defence));
    Strength { attack, defence }
}

/// Goals of an average team away.
const BASE_GOALS: f64 = 1.25;
/// The logarithm of the advantage at home.
const HOME_ADVANTAGE: f64 = 0.26;
/// The dependence of low scores, as Dixon and Coles found it.
const RHO: f64 = -0.13;
/// The standard deviation of a team's form on the day, on the same logarithmic scale.
const FORM: f64 = 0.15;

/// The most goals of a team that are counted; a higher score counts as this.
const MOST: usize = 15;

/// Plays the match `simulations` times.
pub fn forecast(fixture: &Fixture, simulations: u32) -> Forecast {
    let (home, away) = (strength(fixture.home), strength(fixture.away));
    let home_rate = BASE_GOALS * (HOME_ADVANTAGE + home.attack + away.defence).exp();
    let away_rate = BASE_GOALS * (away.attack + home.defence).exp();

    let mut random = Random(SEED);
    let mut scores = [[0u32; MOST + 1]; MOST + 1];
    for _ in 0..simulations {
        let (home_form, away_form) = random.normals();
        let (home_goals, away_goals) = play(
            home_rate * (FORM * home_form).exp(),
            away_rate * (FORM * away_form).exp(),
            &mut random,
        );
        scores[home_goals.min(MOST)][away_goals.min(MOST)] += 1;
    }
    summarise(&scores, simulations)
}

/// Plays one match by rejection sampling: draws independent goals and accepts them as often as the
/// correction says.
fn play(home_rate: f64, away_rate: f64, random: &mut Random) -> (usize, usize) {
    let none = (-home_rate).exp();
    let none_away = (-away_rate).exp();
    // The largest value of the correction, for a negative RHO.
    let most = (1.0 - home_rate * away_rate * RHO).max(1.0 - RHO);
    loop {
        let goals = (random.poisson(none), random.poisson(none_away));
        let correction = match goals {
            (0, 0) => 1.0 - home_rate * away_rate * RHO,
            (0, 1) => 1.0 + home_rate * RHO,
            (1, 0) => 1.0 + away_rate * RHO,
            (1, 1) => 1.0 - RHO,
            _ => 1.0,
        };
        if random.uniform() * most < correction {
            return goals;
        }
    }
}

fn summarise(scores: &[[u32; MOST + 1]; MOST + 1], simulations: u32) -> Forecast {
    let each = 1.0 / f64::from(simulations.max(1));
    let mut forecast = Forecast {
        home: 0.0,
        draw: 0.0,
        away: 0.0,
        home_goals: 0.0,
        away_goals: 0.0,
        likeliest: (0, 0),
    };
    for (home, row) in scores.iter().enumerate() {
        for (away, &count) in row.iter().enumerate() {
            let chance = f64::from(count) * each;
            match home.cmp(&away) {
                std::cmp::Ordering::Greater => forecast.home += chance,
                std::cmp::Ordering::Equal => forecast.draw += chance,
                std::cmp::Ordering::Less => forecast.away += chance,
            }
            forecast.home_goals += home as f64 * chance;
            forecast.away_goals += away as f64 * chance;
            if count > scores[forecast.likeliest.0][forecast.likeliest.1] {
                forecast.likeliest = (home, away);
            }
        }
    }
    forecast
}

/// SplitMix64: small, fast, the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number above 0 and at most 1.
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Two independent draws of the standard normal law (Box and Muller).
    fn normals(&mut self) -> (f64, f64) {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        (radius * cosine, radius * sine)
    }

    /// A Poisson draw, given the chance of none (Knuth).
    fn poisson(&mut self, none: f64) -> usize {
        let mut count = 0;
        let mut product = self.uniform();
        while product > none {
            count += 1;
            product *= self.uniform();
        }
        count
    }
}
