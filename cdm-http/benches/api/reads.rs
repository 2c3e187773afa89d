//! The cost of a read: one site, and a page of a long list.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use tokio::runtime::Runtime;

use crate::arms::{self, Arm};
use crate::client::{Load, RequestPlan, load, send_one};
use crate::measure::Rounds;
use crate::{CONNECTIONS, MANY, ROUNDS};

/// Requests of a round: for one site, and for a page.
const SINGLES: usize = 10_000;
const PAGES: usize = 400;
/// Sites of a page.
const PAGE: usize = 100;

/// The rounds of one arm.
#[derive(Default)]
struct Measured {
    rate: Rounds,
    p50: Rounds,
    p99: Rounds,
    server: Rounds,
    bytes: usize,
}

impl Measured {
    fn push(&mut self, load: &Load) {
        self.rate.push(load.rate);
        self.p50.push(load.p50.as_secs_f64() * 1e3);
        self.p99.push(load.p99.as_secs_f64() * 1e3);
        self.server.push(load.server_us);
        self.bytes = load.bytes;
    }
}

fn plan(arm: &Arm, line: fn(usize) -> String) -> RequestPlan {
    RequestPlan {
        address: arm.address,
        header: arm.header,
        token: arm.token.clone(),
        method: Method::GET,
        line: Arc::new(move |n| (line(n), String::new())),
        status: StatusCode::OK,
    }
}

fn one(n: usize) -> String {
    // A stride that visits every site and never the same site twice in a row.
    format!("/sites/{}", arms::id(n * 7_919 % MANY))
}

fn page(n: usize) -> String {
    match n * PAGE % MANY {
        0 => format!("/sites?limit={PAGE}"),
        first => {
            let place = format!("s{}", arms::id(first - 1));
            format!("/sites?limit={PAGE}&cursor={}", hex::encode(place))
        }
    }
}

fn console_page(n: usize) -> String {
    format!("/console{}", page(n))
}

/// The path of the nth request.
type PathOf = fn(usize) -> String;

/// Prints all tables.
pub(crate) fn measure(runtime: &Runtime) {
    let dir = crate::directory();
    let process = runtime.block_on(async {
        let process = arms::open(&arms::config(dir.path(), Duration::from_millis(5))).await;
        arms::fill(process.ports(), MANY).await;
        process
    });
    let servers = runtime.block_on(async {
        [
            arms::all_in_memory(&process, MANY).await,
            arms::tokens_in_memory(&process).await,
            arms::complete(&process).await,
        ]
    });
    println!(
        "\n(a) `GET /sites/{{id}}`, each of {MANY} sites in turn, {CONNECTIONS} connections, {SINGLES} requests a \
         round; targets: 0.60 of the rate, 1.6 of the p99\n"
    );
    compare(runtime, &with_bare_handler(runtime, &servers, one), SINGLES);
    println!(
        "\n(b) `GET /sites?limit={PAGE}` over {MANY} sites, {CONNECTIONS} connections, {PAGES} requests per round\n"
    );
    compare(runtime, &with_bare_handler(runtime, &servers, page), PAGES);
    println!(
        "\n(c) The console's table of {MANY} sites, {PAGE} per page, compared to the same page of the API, {CONNECTIONS} \
         connections, {PAGES} requests a round; target: 0.50 of the rate\n"
    );
    let [.., complete] = servers;
    let console = runtime.block_on(arms::console(&process, &complete));
    compare(runtime, &[(Arm { name: "the API", ..complete }, page), (console, console_page)], PAGES);
    runtime.block_on(process.stop(Duration::from_secs(5)));
}

/// Prepends the bare handler, which returns the response of the last server.
fn with_bare_handler(runtime: &Runtime, servers: &[Arm], line: PathOf) -> Vec<(Arm, PathOf)> {
    let body = servers.last().map(|arm| runtime.block_on(send_one(&plan(arm, line), 1)));
    let bare = runtime.block_on(arms::bare(body.unwrap_or_default()));
    std::iter::once(bare).chain(servers.iter().cloned()).map(|arm| (arm, line)).collect()
}

/// Measures all arms in turns, and compares them to the first.
fn compare(runtime: &Runtime, arms: &[(Arm, PathOf)], requests: usize) {
    let bodies = arms.iter().map(|(arm, line)| runtime.block_on(send_one(&plan(arm, *line), 1)));
    let lengths: Vec<usize> = bodies.map(|body: Bytes| body.len()).collect();
    let mut measured: Vec<Measured> = arms.iter().map(|_| Measured::default()).collect();
    for round in 0..=ROUNDS {
        let mut order: Vec<usize> = (0..arms.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let (arm, line) = &arms[index];
            let load = load(&plan(arm, *line), CONNECTIONS, requests);
            if round > 0 {
                measured[index].push(&load);
            }
        }
    }
    let (Some((first, _)), Some(base)) = (arms.first(), measured.first()) else { return };
    println!(
        "| arm | per second | relative to {0} | p50, ms | p99, ms | p99, relative | server CPU, µs |",
        first.name.trim_start_matches("the ")
    );
    println!("|---|---|---|---|---|---|---|");
    for ((arm, _), own) in arms.iter().zip(&measured) {
        println!(
            "| {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} |",
            arm.name,
            own.rate,
            own.rate.with(&base.rate, |own, base| own / base),
            own.p50,
            own.p99,
            own.p99.with(&base.p99, |own, base| own / base),
            own.server,
        );
    }
    println!("\nA body has {lengths:?} bytes; each round of the first arm returned {} bytes.", base.bytes);
}
