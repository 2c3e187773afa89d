//! A MariaDB of a test's own, to be stopped, started again, and set up otherwise.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{Lab, parts};

/// The server and where its data lies; both go with it.
#[derive(Debug)]
pub(crate) struct Server {
    data: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// A fresh server; nothing where the shared one was not started, which brings the programs.
    pub(crate) async fn start(options: &[&str]) -> Option<Self> {
        parts::address("CDM_TEST_MYSQL")?;
        let data = tempfile::tempdir().expect("a directory");
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let mut install = command("mariadb-install-db").expect("MariaDB's programs");
        install.args(["--no-defaults", "--basedir=/usr", "--skip-test-db", "--innodb-log-file-size=8M"]);
        install.arg("--auth-root-authentication-method=normal").arg(of("datadir", data.path()));
        install.stdout(Stdio::null()).stderr(Stdio::null());
        assert!(own_user(&mut install).status().expect("mariadb-install-db").success());
        let mut server = Self { data, port, child: None };
        server.go(options).await;
        Some(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/", self.port)
    }

    /// Its port on loopback.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Starts it on its data, and returns when it answers.
    pub(crate) async fn go(&mut self, options: &[&str]) {
        let mut server = command("mariadbd").expect("it was there before");
        let socket = self.data.path().join("s.sock");
        server.args([
            "--no-defaults",
            "--bind-address=127.0.0.1",
            "--skip-log-bin",
            "--innodb-log-file-size=8M",
        ]);
        server.args([
            of("datadir", self.data.path()),
            of("socket", &socket),
            format!("--port={}", self.port),
        ]);
        server.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(own_user(&mut server).spawn().expect("mariadbd"));
        let lab = Lab::at(&self.url());
        lab.bench.cx().until("the server answers", async || lab.databases.check().await.ok()).await;
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn of(option: &str, path: &Path) -> String {
    format!("--{option}={}", path.display())
}

/// A program of MariaDB, from where Debian has it.
fn command(name: &str) -> Option<Command> {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists())?;
    Some(Command::new(found))
}

/// As root, the server wants to be told that it shall be root's; elsewhere it takes the user that there is.
fn own_user(command: &mut Command) -> &mut Command {
    command.arg("--user=root")
}
