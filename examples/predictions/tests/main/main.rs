//! The reference application from outside: over a real socket, with a real Redis, in a real
//! browser.
//!
//! Without `redis-server`, `chromium` and `chromedriver` in the path these tests fail; they are
//! never skipped. The operating system chooses the ports. Tests wait for conditions, and no outcome
//! depends on the time.

mod browser;
mod contract;
mod ending;
mod http;
mod page;
mod processes;
