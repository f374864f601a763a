//! A measurement in a process of its own, so that nothing that ran before has a part in it.

use std::process::{Command, ExitCode};

use crate::{memory, threads};

/// Runs the measurement of this name with these arguments. `None` if it failed.
pub fn run<const N: usize>(name: &str, args: [&str; 2]) -> Option<[f64; N]> {
    let program = std::env::current_exe().ok()?;
    let output = Command::new(program).arg(name).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let numbers: Vec<f64> = text
        .split_whitespace()
        .map(|word| word.parse().ok())
        .collect::<Option<_>>()?;
    numbers.try_into().ok()
}

/// Measures in this process, if `name` is the name of a measurement. `None` if it is not.
pub fn measure(name: &str, words: &mut dyn Iterator<Item = String>) -> Option<ExitCode> {
    let numbers = match name {
        memory::CHILD => memory::child(words),
        threads::CHILD => threads::child(words),
        _ => return None,
    };
    let Some(numbers) = numbers else {
        return Some(ExitCode::FAILURE);
    };
    println!("{} {} {}", numbers[0], numbers[1], numbers[2]);
    Some(ExitCode::SUCCESS)
}
