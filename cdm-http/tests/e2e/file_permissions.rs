//! The data of a server is accessible only to its own user: file modes, directory owners, and no core dumps.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use reqwest::Method;
use rustix::process::geteuid;

use cdm_testkit::backends;
use cdm_testkit::server::{QUICK, Server, command, directory, new_site};

/// Starts a server under the umask of a shell in which files are usually readable by all users.
fn under_umask_022(dir: &Path) -> Server {
    let inner = command(dir, QUICK);
    let mut outer = Command::new("sh");
    outer.args(["-c", "umask 022; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        outer.env(name, value.unwrap_or_default());
    }
    outer.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    Server::listen(outer.spawn().expect("a shell"), cdm_testkit::server::ServerMode::ApiAndSites)
}

/// Returns every file and directory below, with its mode.
fn modes(dir: &Path) -> Vec<(String, u32)> {
    let mut found = vec![(dir.display().to_string(), fs::metadata(dir).expect("a directory").mode() & 0o777)];
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let (path, about) = (entry.path(), entry.metadata().expect("an entry"));
        if about.is_dir() {
            found.extend(modes(&path));
        } else {
            found.push((path.display().to_string(), about.mode() & 0o777));
        }
    }
    found
}

fn assert_private(dir: &Path) {
    let modes = modes(dir);
    let open: Vec<_> = modes.iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
    assert!(open.is_empty(), "others may use {open:?}");
    for name in
        ["cdm.db", "cdm.db-wal", "cdm.db-shm", "cluster.lock", "workers/", "databases", "objects", "key"]
    {
        assert!(
            modes.iter().any(|(path, _)| path.contains(&format!("data/{name}"))),
            "no {name} in {modes:?}"
        );
    }
}

/// Returns whether another user of the machine can read the file; only root can test this.
fn readable_by_others(path: &Path) -> bool {
    let cat = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"])
        .arg(path)
        .output()
        .expect("setpriv");
    cat.status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_directory_is_private() {
    let dir = directory();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("a mode");
    let server = under_umask_022(dir.path());
    server.ask(Method::POST, "/sites/create", Some(&new_site("one"))).await;
    server.done(Method::POST, "/sites/one/provision", None).await;
    let data = dir.path().join("data");
    assert_private(&data);
    if geteuid().is_root() {
        assert!(!readable_by_others(&data.join("cdm.db")));
        // The mode of the file itself is restricted, not only that of the directory.
        fs::set_permissions(&data, Permissions::from_mode(0o755)).expect("a mode");
        assert!(!readable_by_others(&data.join("cdm.db")) && !readable_by_others(&data.join("cluster.lock")));
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.id())).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("the limit");
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
}

/// A directory of an earlier version, whose modes depended on the umask.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_an_earlier_version_is_made_private() {
    let dir = directory();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("a mode");
    Server::start(dir.path()).kill();
    let data = dir.path().join("data");
    for (path, mode) in [("cdm.db", 0o644), ("cluster.lock", 0o644), ("workers", 0o755), ("", 0o755)] {
        fs::set_permissions(data.join(path), Permissions::from_mode(mode)).expect("a mode");
    }
    let server = Server::start(dir.path());
    assert_private(&data);
    let log = server.log.lock().expect("the log").clone();
    assert!(log.contains("(mode 0755); their access was removed"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_other_files_keeps_its_mode() {
    let dir = directory();
    let data = dir.path().join("data");
    fs::create_dir(&data).expect("a directory");
    fs::write(data.join("letter"), "hello").expect("a file");
    for path in [&data, &data.join("letter")] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).expect("a mode");
    }
    let server = Server::start(dir.path());
    let open: Vec<_> = modes(&data).into_iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
    assert_eq!(open.len(), 2, "the directory and the letter: {open:?}");
    assert!(server.log.lock().expect("the log").contains("also has `letter`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_user_is_rejected() {
    if !geteuid().is_root() {
        return backends::skip("only root can give a directory to another user");
    }
    let dir = directory();
    let data = dir.path().join("data");
    fs::create_dir(&data).expect("a directory");
    std::os::unix::fs::chown(&data, Some(12_345), None).expect("another owner");
    let ended = command(dir.path(), QUICK).output().expect("a server");
    let output = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{output}");
    assert!(output.contains("belongs to another user (uid 12345, this process has uid 0)"), "{output}");
    assert_eq!(fs::read_dir(&data).expect("a directory").count(), 0, "no file was created");
}

/// Passwords are readable afterwards, and the rotation is rejected while a server runs.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_rotated_while_no_server_runs() {
    let dir = directory();
    let mut server = Server::start(dir.path());
    server.ask(Method::POST, "/sites/create", Some(&new_site("one"))).await;
    let key = || fs::read(dir.path().join("data/key")).expect("a key");
    let before = key();
    let rotate = || command(dir.path(), QUICK).arg("--rotate-key").output().expect("a rotation");
    let refused = rotate();
    let output = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && output.contains("another process is using this data directory"),
        "{output}"
    );
    assert_eq!(key(), before);
    let status = tokio::task::block_in_place(|| server.terminate());
    assert_eq!(status.code(), Some(0));
    let rotated = rotate();
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    assert_ne!(key(), before);
    assert!(!dir.path().join("data/key.next").exists());
    let server = Server::start(dir.path());
    server.done(Method::POST, "/sites/one/provision", None).await;
}
