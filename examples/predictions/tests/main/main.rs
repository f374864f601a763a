//! The reference application from outside: over a real socket, with a real Redis, in a real browser.
//!
//! Without `redis-server`, `chromium` and `chromedriver` in the path these tests fail; they are never skipped. Ports come from the
//! operating system. Conditions are waited for; how long that takes decides nothing.

mod browser;
mod contract;
mod ending;
mod http;
mod page;
mod processes;
