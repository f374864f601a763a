//! Values that are invalidated together: everything of one tenant, and every page that shows one
//! product.
//!
//! `cargo run --example tenants`; in your `Cargo.toml`: `everfresh = "0.1"`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use everfresh::{Cache, Loaded, Source};

/// A page of a shop: the tenant that it belongs to, and its path.
type Path = (u64, &'static str);

/// Stands for a database: the price of product 9.
static PRICE_OF_9: AtomicU64 = AtomicU64::new(100);

fn price(product: u64) -> u64 {
    match product {
        9 => PRICE_OF_9.load(Relaxed),
        _ => 20,
    }
}

/// Tenants and products are numbered separately, so each kind gets group numbers of its own.
fn tenant_group(tenant: u64) -> u64 {
    tenant << 1
}

fn product_group(product: u64) -> u64 {
    product << 1 | 1
}

/// The products that a page shows.
fn products_of(path: &str) -> &'static [u64] {
    match path {
        "/sale" => &[9, 12],
        "/books" => &[12],
        _ => &[],
    }
}

/// Renders a page, and says which products it shows.
fn render((tenant, path): &Path) -> Loaded<String> {
    let products = products_of(path);
    let lines: Vec<_> = (products.iter())
        .map(|product| format!("{product}: {}", price(*product)))
        .collect();
    let page = format!("shop {tenant}{path} {}", lines.join(", "));
    Loaded::new(page).groups(products.iter().copied().map(product_group))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pages: Cache<Path, String> = Cache::builder()
        .group_by(|(tenant, _)| [tenant_group(*tenant)])
        .compute(render)
        .build()?;
    let all: [Path; 4] = [(7, "/sale"), (7, "/books"), (8, "/sale"), (8, "/books")];
    let sources = || -> Result<Vec<Source>, everfresh::Error> {
        let pages = all.iter().map(|path| pages.get_blocking(path));
        pages.map(|page| page.map(|page| page.source())).collect()
    };
    use Source::{Fresh, Loaded};
    assert_eq!(sources()?, [Loaded; 4]);
    assert_eq!(sources()?, [Fresh; 4]);

    // Product 9 has a new price: first the origin, then every page that shows it.
    PRICE_OF_9.store(110, Relaxed);
    pages.invalidate_group(product_group(9));
    assert_eq!(sources()?, [Loaded, Fresh, Loaded, Fresh]);
    assert_eq!(
        *pages.get_blocking(&(7, "/sale"))?,
        "shop 7/sale 9: 110, 12: 20"
    );

    // Tenant 7 moves out.
    pages.invalidate_group(tenant_group(7));
    assert_eq!(sources()?, [Loaded, Loaded, Fresh, Fresh]);

    println!("{}", pages.stats());
    Ok(())
}
