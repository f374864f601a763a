//! All results of one run.
use std::path::PathBuf;
use std::time::Duration;

use dev_support::report::{micros, time, verdict};
use serde_json::{Value, json};

use crate::cold::Cold;
use crate::evolution::{self, LOADS};
use crate::memory::Memory;
use crate::report::Part;
use crate::stampede::StampedeRow;
use crate::through::Through;
use crate::trace;

pub struct Findings {
    /// The value, and its cost on this machine.
    pub intro: Part,
    /// The time of a light forecast.
    pub light: Duration,
    pub stale: Vec<StampedeRow>,
    pub through: Option<Through>,
    pub cold: Cold,
    pub generations: Vec<evolution::EvolutionRow>,
    pub memory: Memory,
    pub replayed: Option<Replayed>,
    pub took: Duration,
}

/// A trace, and the results of each policy.
pub struct Replayed {
    pub path: PathBuf,
    pub keys: Vec<u32>,
    pub rows: Vec<trace::TraceRow>,
}

impl Replayed {
    pub fn part(&self) -> Part {
        trace::part(&self.rows, &self.keys, &self.path)
    }
}

impl Findings {
    /// The certified parts, in the order of their measurement.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = self.stale.iter().map(StampedeRow::part).collect();
        parts.extend(self.through.iter().flat_map(Through::parts));
        parts.push(self.cold.part());
        parts.push(evolution::part(&self.generations, self.light));
        parts.push(self.memory.part());
        parts.extend(self.replayed.iter().map(Replayed::part));
        parts
    }

    pub fn pass(&self) -> bool {
        self.parts().iter().all(|part| part.pass != Some(false))
    }

    /// The last line of the report for people.
    pub fn conclusion(&self) -> String {
        format!(
            "{}, measured in {}\n",
            verdict(self.pass()),
            time(self.took)
        )
    }

    pub fn json(&self) -> Value {
        let [at_once, in_turn] = LOADS.each_ref().map(|load| {
            let rows = self.generations.iter().filter(|row| row.is_under(load));
            Value::from_iter(rows.map(evolution::EvolutionRow::json))
        });
        let replayed = self.replayed.iter().flat_map(|replayed| &replayed.rows);
        json!({
            "stale": Value::from_iter(self.stale.iter().map(StampedeRow::json)),
            "redis": self.through.as_ref().map(Through::json),
            "cold": self.cold.json(),
            "evolution": at_once,
            "evolution_in_turn": in_turn,
            "memory": self.memory.json(),
            "trace": Value::from_iter(replayed.map(trace::TraceRow::json)),
            "runs": self.stale.iter().map(|row| row.runs).min(),
            "took_us": micros(self.took),
            "pass": self.pass(),
        })
    }
}
