//! The server while its disk is full: writes are rejected immediately, reads continue, and it recovers without a
//! restart.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cdm_core::adapters::SystemClock;
use cdm_core::ports::Clock;
use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use cdm_testkit::backends;
use cdm_testkit::server::{QUICK, Server, directory, new_site};

/// Blocks and unblocks writes.
trait Disk {
    fn fill(&self, server: &Server);
    fn free(&self, server: &Server);
}

/// Limits the files of the server to a kilobyte; requires no privilege.
struct SizeLimit;

impl SizeLimit {
    fn set(server: &Server, max_bytes: Option<u64>) {
        let limit = Rlimit { current: max_bytes, maximum: None };
        let id = Pid::from_raw(i32::try_from(server.id()).expect("a process id"));
        prlimit(id, Resource::Fsize, limit).expect("a limit of the server");
    }
}

impl Disk for SizeLimit {
    fn fill(&self, server: &Server) {
        Self::set(server, Some(1_024));
    }

    fn free(&self, server: &Server) {
        Self::set(server, None);
    }
}

/// A file system of 6 MB in memory, which a ballast file fills to the last byte.
struct Mounted(PathBuf);

impl Mounted {
    /// Mounts the file system; `None` if the user may not mount.
    fn on(dir: &Path) -> Option<Self> {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "cdm-test"]).arg(dir).output();
        mount.is_ok_and(|mount| mount.status.success()).then(|| Self(dir.to_owned()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Disk for Mounted {
    fn fill(&self, _: &Server) {
        let mut ballast = File::create(self.ballast()).expect("a ballast");
        while ballast.write_all(&[0; 1_024]).is_ok() {}
    }

    fn free(&self, _: &Server) {
        std::fs::remove_file(self.ballast()).expect("a ballast");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Also if the server still has files open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Returns the status of `/readyz`, and the problem of the store.
async fn readiness(server: &Server) -> (StatusCode, Option<String>) {
    let response = server.ask_as(None, Method::GET, "/readyz", None).await;
    let (status, body): (_, Value) = (response.status(), response.json().await.expect("JSON"));
    let backends = body["backends"].as_array().expect("backends");
    let store = backends.iter().find(|backend| backend["name"] == "store").expect("the store");
    (status, store["problem"].as_str().map(str::to_owned))
}

/// Waits for that status of `/readyz`; a result is cached for a second.
async fn wait_for_readiness(server: &Server, wanted: StatusCode) -> Option<String> {
    let clock = SystemClock::new();
    for _ in 0..400 {
        let (status, problem) = readiness(server).await;
        if status == wanted {
            return problem;
        }
        clock.sleep_until(clock.monotonic().after(Duration::from_millis(25))).await;
    }
    panic!("readiness does not become {wanted}")
}

async fn fills_and_recovers(dir: &Path, disk: &impl Disk) {
    let server = Server::start_with(dir, QUICK);
    assert_eq!(readiness(&server).await, (StatusCode::OK, None));
    let (status, _) = server.ask(Method::POST, "/sites/create", Some(&new_site("before"))).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, begun) = server.ask(Method::POST, "/sites/before/provision", None).await;
    assert_eq!(status, StatusCode::ACCEPTED);

    disk.fill(&server);
    // Writes that fit into the remaining space of the write-ahead log succeed.
    let mut created = vec!["before".to_owned()];
    let refused = loop {
        assert!(created.len() < 2_000, "the disk does not fill up");
        let id = format!("site{}", created.len());
        let response = server.ask(Method::POST, "/sites/create", Some(&new_site(&id))).await;
        match response.0 {
            StatusCode::CREATED => created.push(id),
            _ => break response,
        }
    };
    let is_full = |(status, problem): &(StatusCode, Value)| {
        *status == StatusCode::SERVICE_UNAVAILABLE && problem["code"] == "storage_full"
    };
    assert!(is_full(&refused), "{refused:?}");
    let mut names = 0..;
    let mut token = || json!({"name": format!("t{}", names.next().unwrap_or(0)), "role": "viewer"});
    for _ in 0..20 {
        // Each request is rejected because of the full disk, and not because of an effect of an earlier rejection.
        for (path, body) in [("/sites/create", new_site("refused")), ("/tokens", token())] {
            let response = server.ask(Method::POST, path, Some(&body)).await;
            assert!(is_full(&response) || response.0 == StatusCode::CREATED, "{path}: {response:?}");
            if path == "/sites/create" && response.0 == StatusCode::CREATED {
                created.push("refused".to_owned());
            }
        }
    }
    let problem = wait_for_readiness(&server, StatusCode::SERVICE_UNAVAILABLE).await.expect("a problem");
    assert!(problem.contains("no space left"), "{problem}");
    for id in &created {
        assert_eq!(server.get(&format!("/sites/{id}")).await["id"], json!(id), "reads go on");
    }

    disk.free(&server);
    let (status, made) = server.ask(Method::POST, "/sites/create", Some(&new_site("after"))).await;
    assert_eq!(status, StatusCode::CREATED, "the first write after there is space: {made}");
    wait_for_readiness(&server, StatusCode::OK).await;
    let operation =
        server.wait_until_at_rest(&format!("/operations/{}", begun["id"].as_str().expect("an id"))).await;
    assert_eq!(operation["status"], "succeeded", "work in progress succeeds: {operation}");
    let log = server.log.lock().expect("the log").clone();
    assert!(log.contains("writes are rejected as `storage_full`"), "{log}");
    assert!(log.contains("writes to the disk of the data directory succeed again"), "{log}");
    // One line for each transition, not for each request.
    assert!(log.matches("writes are rejected as `storage_full`").count() <= 10, "{log}");

    server.kill();
    let server = Server::start_with(dir, QUICK);
    for id in created.iter().chain([&"after".to_owned()]) {
        server.get(&format!("/sites/{id}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_succeed_after_a_size_limit_is_lifted() {
    let dir = directory();
    fills_and_recovers(dir.path(), &SizeLimit).await;
}

/// Where nothing can be mounted, the size limit above covers the same behavior; this test then prints that it was
/// skipped.
#[tokio::test(flavor = "multi_thread")]
async fn writes_succeed_after_a_file_system_has_space_again() {
    let dir = directory();
    match Mounted::on(dir.path()) {
        Some(disk) => fills_and_recovers(dir.path(), &disk).await,
        None => backends::skip("this user may not mount a file system"),
    }
}
