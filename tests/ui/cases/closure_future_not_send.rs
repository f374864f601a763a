//! An async closure that holds an `Rc` over an `await`.

use std::rc::Rc;

use everfresh::Cache;

fn main() {
    let _squares = Cache::<u64, u64>::builder()
        .load(async |n: &u64| {
            let root = Rc::new(*n);
            std::future::ready(()).await;
            *root * *root
        })
        .build();
}
