//! The page, in a browser: buttons are clicked and numbers read.

use std::io::Write;

use dev_support::forecast::TEAMS;

use crate::browser::{Browser, ENTER, TAB};
use crate::http::connect;
use crate::processes::{RunningService, eventually, redis};

fn open(browser: &Browser, service: &RunningService) {
    browser.open(&format!("http://127.0.0.1:{}/", service.port));
    browser.says("#link", "Live");
}

/// Clicks one of the two burst buttons, and reads the result.
fn burst(browser: &Browser, requests: u64) -> Met {
    browser.script("document.getElementById('burst-requests').textContent = ''");
    browser.click(&format!("[data-burst='{requests}']"));
    eventually("the burst is over", || {
        browser.number("#burst-requests") == Some(requests)
    });
    let figure = |name: &str| browser.number(&format!("#burst-{name}")).expect(name);
    Met {
        computes: figure("computes"),
        stale: figure("stale"),
        waited: figure("waited"),
        failed: figure("failed"),
    }
}

#[derive(Debug, PartialEq)]
struct Met {
    computes: u64,
    stale: u64,
    waited: u64,
    failed: u64,
}

#[test]
fn the_buttons_do_what_they_say_and_the_numbers_show_it() {
    let redis = redis();
    let service = RunningService::start(&["--redis", &redis.url(), "--fresh", "600000"]);
    let browser = Browser::start("buttons");
    open(&browser, &service);
    assert_eq!(browser.text("#store"), "up");

    for requests in [100, 1_000] {
        let met = burst(&browser, requests);
        assert_eq!((met.computes, met.waited, met.failed), (1, 0, 0));
        assert!(met.stale > 0, "{met:?}");
        assert!(
            browser
                .text("#said")
                .contains("1 compute, 0 waited, 0 failed")
        );
        assert!(browser.text("#burst-p99").ends_with('s'), "with its unit");
    }
    // The first load, and a refresh for each burst.
    eventually("three computes", || browser.number("#computes") == Some(3));
    eventually("all are counted", || {
        let count = |kind: &str| browser.number(&format!("#kind-{kind}")).unwrap_or_default();
        count("fresh") + count("early") + count("stale") >= 1_100 && count("failed") == 0
    });
    eventually("the timeline shows values and refreshes", || {
        let shown = "return document.querySelectorAll('#timeline .fresh').length > 0 \
                     && document.querySelectorAll('#timeline rect[class^=refresh]').length >= 3";
        browser.script(shown) == true
    });

    browser.click("[data-switch=loader]");
    browser.says("[data-switch=loader]", "Mend the loader");
    let met = burst(&browser, 100);
    assert_eq!((met.computes, met.waited, met.failed), (0, 0, 0));
    assert!(browser.text("#said").contains("1 failed refresh"));
    browser.click("[data-switch=loader]");
    browser.says("[data-switch=loader]", "Break the loader");
    assert_eq!(burst(&browser, 100).computes, 1);

    browser.click("[data-switch=store]");
    browser.says("#store", "down");
    let met = burst(&browser, 100);
    assert_eq!((met.computes, met.waited, met.failed), (1, 0, 0));
    browser.click("[data-switch=store]");
    browser.says("#store", "up");

    browser.click("[data-switch=traffic]");
    eventually("requests arrive", || browser.number("#rate") > Some(0));
    browser.click("[data-switch=traffic]");
    eventually("requests end", || browser.number("#rate") == Some(0));
}

#[test]
fn the_page_shows_the_loads_that_run_and_those_that_wait() {
    // Computations that last for seconds, and more of them than the service has threads.
    let service = RunningService::start(&["--simulations", "500000000"]);
    let browser = Browser::start("loads");
    open(&browser, &service);
    eventually("there is no load", || {
        (browser.number("#running"), browser.number("#waiting")) == (Some(0), Some(0))
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let teams = TEAMS.iter().map(|(name, ..)| *name);
    let pairings = teams.clone().flat_map(|home| {
        let others = teams.clone().filter(move |away| *away != home);
        others.map(move |away| format!("/predict/{home}/{away}"))
    });
    let asking = pairings.take(cores + 2).map(|path| {
        let mut stream = connect(service.port);
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        stream
    });
    let asking: Vec<_> = asking.collect();
    eventually("the threads are busy, and the other loads wait", || {
        let threads = (cores / 2).max(1);
        let waiting = (asking.len() - threads) as u64;
        (browser.number("#running"), browser.number("#waiting"))
            == (Some(threads as u64), Some(waiting))
    });
    service.kill();
}

#[test]
fn the_page_works_by_keyboard_on_a_phone_in_the_dark_and_without_redis() {
    let service = RunningService::start(&["--fresh", "600000"]);
    let browser = Browser::start("needs");
    open(&browser, &service);
    let disabled = "return document.querySelector('[data-switch=store]').disabled";
    eventually("there is no Redis to break", || {
        browser.script(disabled) == true
    });
    assert!(browser.text("#why").contains("--redis"));

    let focused = "return document.activeElement.dataset.burst ?? ''";
    for _ in 0..10 {
        if browser.script(focused) == "100" {
            break;
        }
        browser.press(TAB);
    }
    assert_eq!(browser.script(focused), "100");
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_ne!(browser.script(outline), "none", "the focus must be visible");
    browser.press(ENTER);
    browser.says("#said", "1 compute, 0 waited, 0 failed");
    let live = "return document.getElementById('said').getAttribute('aria-live')";
    assert_eq!(browser.script(live), "polite");

    let mut papers = Vec::new();
    for scheme in ["light", "dark"] {
        browser.screen(360, scheme);
        let width = browser.script("return document.documentElement.scrollWidth");
        assert_eq!(width, 360, "no content is wider than the screen");
        papers.push(browser.script("return getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(papers[0], papers[1]);
}

#[test]
fn the_page_shows_a_lost_service_and_reconnects_by_itself() {
    let options = ["--fresh", "600000"];
    let service = RunningService::start(&options);
    let browser = Browser::start("lost");
    open(&browser, &service);
    let port = service.kill();
    browser.says("#link", "Lost the service");
    let _again = RunningService::on(port, &options);
    browser.says("#link", "Live");
}
