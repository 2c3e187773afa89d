//! What the program itself costs: start, memory, rest, size.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::measure::{Rounds, Seen, must};
use crate::{FEW, MANY, arms, directory};

/// The server, built with this program.
const SERVER: &str = env!("CARGO_BIN_EXE_cdm-server");
/// The administrator's token of every server that is started here.
const ADMIN: &str = "an-administrator-of-the-benchmarks-0123456789";
/// Sites of the directory that exists.
const EXISTING: usize = 1_000;
/// How often the server is started on each directory, besides the first, which only warms up.
const STARTS: usize = 2 * FEW + 1;
/// When a server that does not answer is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an idle server is watched.
const WATCH: Duration = Duration::from_secs(10);

/// A server that runs, ended when it is dropped.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All tables of the program.
pub(crate) fn measure(runtime: &Runtime) {
    let full = directory();
    filled(runtime, &full.path().join("data"), EXISTING);
    start(full.path());
    let many = directory();
    filled(runtime, &many.path().join("data"), MANY);
    rest(many.path());
    size();
}

fn filled(runtime: &Runtime, dir: &Path, sites: usize) {
    runtime.block_on(async {
        let process = arms::open(&arms::config(dir, Duration::from_millis(150))).await;
        arms::fill(process.ports(), sites).await;
        process.stop(PATIENCE).await;
    });
}

/// Starts the server on `dir/data`, and waits for its first 200; how long that took.
fn started(dir: &Path) -> Option<(Running, Duration)> {
    // The port is free again, and is not given to anyone else for a while.
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
    while since.elapsed() < PATIENCE {
        if ask(free, "/healthz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            return Some((running, since.elapsed()));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    None
}

fn ask(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ADMIN}\r\n");
    stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A program's first line to its last, with nothing done: what starting anything costs here.
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
                None => println!("| a start that did not answer | |"),
            }
        }
    }
    println!("| `cdm-server --version`, to its end | {nothing:.1} |");
    println!("| a fresh directory | {fresh:.1} |");
    println!("| {EXISTING} sites, after the server was killed | {existing:.1} |");
}

fn rest(many: &Path) {
    println!("\n(e) A server on {MANY} sites; target 20 MB at rest\n");
    let Some((running, _)) = started(many) else { return println!("It did not start.") };
    let seen = Seen(running.child.id());
    let memory = |when: &str| match seen.resident() {
        Some((now, most)) => println!("| {when} | {now:.1} | {most:.1} |"),
        None => println!("| {when} | not told by this system | |"),
    };
    println!("| when | resident, MB | at most, MB |");
    println!("|---|---|---|");
    std::thread::sleep(Duration::from_secs(2));
    memory("2 s after the start");
    let (cpu, wakes, calls) = (seen.cpu(), seen.wakes(), seen.calls());
    std::thread::sleep(WATCH);
    let (cpu, wakes) = (seen.cpu().saturating_sub(cpu), seen.wakes().saturating_sub(wakes));
    let calls = seen.calls().zip(calls).map(|(after, before)| (after.0 - before.0, after.1 - before.1));
    memory("after 10 s idle");
    let listed = list_all(running.address);
    memory(&format!("after {listed} sites were listed"));
    std::thread::sleep(Duration::from_secs(2));
    memory("2 s later");
    println!(
        "\nIdle for {} s with {} threads: {:.1} ms of processor time ({:.3} % of one), {wakes} wakes of a thread{}.",
        WATCH.as_secs(),
        seen.threads(),
        cpu.as_secs_f64() * 1e3,
        cpu.as_secs_f64() * 100.0 / WATCH.as_secs_f64(),
        calls.map_or_else(String::new, |(read, write)| format!(", {read} reads and {write} writes")),
    );
}

/// Lists every site, page after page; how many there were.
fn list_all(address: SocketAddr) -> usize {
    let (mut listed, mut path) = (0, "/sites?limit=100".to_owned());
    for _ in 0..=MANY / 100 {
        let Some(answer) = ask(address, &path) else { return listed };
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
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
        None => println!("{built:.1} MB as built; there is no `strip` on this machine."),
    }
}
