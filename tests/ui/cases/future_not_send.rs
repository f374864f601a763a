//! A loader that holds an `Rc` over an `await`.

use std::convert::Infallible;
use std::rc::Rc;

use everfresh::{Cache, Loader, Request};

struct Squares;

impl Loader<u64, u64> for Squares {
    type Value = u64;
    type Error = Infallible;

    async fn load(&self, request: &Request<u64, u64>) -> Result<u64, Infallible> {
        let root = Rc::new(*request.key());
        std::future::ready(()).await;
        Ok(*root * *root)
    }
}

fn main() {
    let _squares = Cache::<u64, u64>::builder().loader(Squares).build();
}
