//! When loads start: permits, classes, queues, rates and breakers.

mod breaker;
mod budget;
mod ends;
mod nested;
mod order;
mod rate;
