//! The cost of the program itself: startup, memory, idling, size.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::measure::{ProcessStats, Rounds, must};
use crate::{MANY, SLOW_ROUNDS, arms, directory};

/// The server, built with this benchmark.
const SERVER: &str = env!("CARGO_BIN_EXE_cdm-server");
/// The administrator's token of every server that is started here.
const ADMIN: &str = "an-administrator-of-the-benchmarks-0123456789";
/// Sites of the existing directory.
const EXISTING: usize = 1_000;
/// Measured starts on each directory; one warm-up start precedes them.
const STARTS: usize = 2 * SLOW_ROUNDS + 1;
/// Timeout for a server that does not respond.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle server is measured.
const IDLE_WINDOW: Duration = Duration::from_secs(10);

/// A running server, which is killed when this value is dropped.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prints all tables of the program.
pub(crate) fn measure(runtime: &Runtime) {
    let full = directory();
    filled(runtime, &full.path().join("data"), EXISTING);
    start(full.path());
    let many = directory();
    filled(runtime, &many.path().join("data"), MANY);
    idle(many.path());
    size();
}

fn filled(runtime: &Runtime, dir: &Path, sites: usize) {
    runtime.block_on(async {
        let process = arms::open(&arms::config(dir, Duration::from_millis(150))).await;
        arms::fill(process.ports(), sites).await;
        process.stop(START_TIMEOUT).await;
    });
}

/// Starts the server on `dir/data`, and waits for its first 200; returns how long that took.
fn started(dir: &Path) -> Option<(Running, Duration)> {
    // The port is free again, and is not assigned to another process for a while.
    let free = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?;
    let mut command = Command::new(SERVER);
    command
        .env("CDM_LISTEN", free.to_string())
        .env("CDM_ROUTER_LISTEN", "127.0.0.1:0")
        .env("CDM_DATA_DIR", dir.join("data"))
        .env("CDM_ADMIN_TOKEN", ADMIN)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let since = Instant::now();
    let child = command.spawn().ok()?;
    let running = Running { child, address: free };
    while since.elapsed() < START_TIMEOUT {
        if send(free, "/healthz").is_some_and(|response| response.starts_with("HTTP/1.1 200")) {
            return Some((running, since.elapsed()));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    None
}

fn send(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ADMIN}\r\n");
    stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    Some(response)
}

/// Measures the program from its first line to its last without work: the base cost of starting a process.
fn version() -> Option<Duration> {
    let since = Instant::now();
    let output = Command::new(SERVER).arg("--version").stdout(Stdio::null()).status();
    output.ok().filter(std::process::ExitStatus::success).map(|_| since.elapsed())
}

fn start(full: &Path) {
    println!("\n(d) From exec to the first 200 on `/healthz`, {STARTS} starts each; target 50 ms\n");
    println!("| what | ms |");
    println!("|---|---|");
    let (mut nothing, mut fresh, mut existing) = (Rounds::default(), Rounds::default(), Rounds::default());
    let millis = |span: Duration| span.as_secs_f64() * 1e3;
    for round in 0..=STARTS {
        let new = directory();
        let spans =
            [version(), started(new.path()).map(|(_, span)| span), started(full).map(|(_, span)| span)];
        for (rounds, span) in [&mut nothing, &mut fresh, &mut existing].into_iter().zip(spans) {
            match span {
                Some(span) if round > 0 => rounds.push(millis(span)),
                Some(_) => {}
                None => println!("| a start without a response | |"),
            }
        }
    }
    println!("| `cdm-server --version`, complete run | {nothing:.1} |");
    println!("| a fresh directory | {fresh:.1} |");
    println!("| {EXISTING} sites, after a kill | {existing:.1} |");
}

fn idle(many: &Path) {
    println!("\n(e) A server on {MANY} sites; target 20 MB idle\n");
    let Some((running, _)) = started(many) else { return println!("It did not start.") };
    let stats = ProcessStats(running.child.id());
    let memory = |when: &str| match stats.resident() {
        Some((now, most)) => println!("| {when} | {now:.1} | {most:.1} |"),
        None => println!("| {when} | not reported by this system | |"),
    };
    println!("| when | resident, MB | peak, MB |");
    println!("|---|---|---|");
    std::thread::sleep(Duration::from_secs(2));
    memory("2 s after the start");
    let (cpu, wakeups, calls) = (stats.cpu(), stats.wakeups(), stats.calls());
    std::thread::sleep(IDLE_WINDOW);
    let (cpu, wakeups) = (stats.cpu().saturating_sub(cpu), stats.wakeups().saturating_sub(wakeups));
    let calls = stats.calls().zip(calls).map(|(after, before)| (after.0 - before.0, after.1 - before.1));
    memory("after 10 s idle");
    let listed = list_all(running.address);
    memory(&format!("after {listed} sites were listed"));
    std::thread::sleep(Duration::from_secs(2));
    memory("2 s later");
    println!(
        "\nIdle for {} s with {} threads: {:.1} ms of CPU ({:.3} % of one core), {wakeups} thread wakeups{}.",
        IDLE_WINDOW.as_secs(),
        stats.threads(),
        cpu.as_secs_f64() * 1e3,
        cpu.as_secs_f64() * 100.0 / IDLE_WINDOW.as_secs_f64(),
        calls.map_or_else(String::new, |(read, write)| format!(", {read} reads and {write} writes")),
    );
}

/// Lists every site, page by page, and returns their number.
fn list_all(address: SocketAddr) -> usize {
    let (mut listed, mut path) = (0, "/sites?limit=100".to_owned());
    for _ in 0..=MANY / 100 {
        let Some(response) = send(address, &path) else { return listed };
        let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let Ok(page) = serde_json::from_str::<serde_json::Value>(body) else { return listed };
        listed += page["items"].as_array().map_or(0, Vec::len);
        match page["next"].as_str() {
            Some(next) => path = format!("/sites?limit=100&cursor={next}"),
            None => return listed,
        }
    }
    listed
}

fn size() {
    println!("\n(f) Size of the server; target 30 MB stripped\n");
    let megabytes = |path: &Path| std::fs::metadata(path).map(|file| file.len() as f64 / 1e6);
    let built = must("the server", megabytes(Path::new(SERVER)));
    let dir = directory();
    let stripped: PathBuf = dir.path().join("stripped");
    let done = Command::new("strip").arg("-o").arg(&stripped).arg(SERVER).status();
    match done.ok().filter(std::process::ExitStatus::success).and_then(|_| megabytes(&stripped).ok()) {
        Some(size) => println!("{size:.1} MB; as built for this benchmark, with symbols, {built:.1} MB."),
        None => println!("{built:.1} MB as built; `strip` is not installed."),
    }
}
