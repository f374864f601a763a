//! A type without an implementation of `Loader`.

use everfresh::Cache;

struct Users;

fn main() {
    let _users = Cache::<u64, String>::builder().loader(Users).build();
}
