//! A separate MariaDB server for a test, which can be stopped, restarted and reconfigured.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use cdm_testkit::backends;
use tempfile::TempDir;

use crate::TestEnv;

/// The server and its data directory; both are removed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    data: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Starts a new server; returns `None` if the shared server was not started, because its script installs the
    /// programs.
    pub(crate) async fn start(options: &[&str]) -> Option<Self> {
        backends::address("CDM_TEST_MYSQL")?;
        let data = tempfile::tempdir().expect("a directory");
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let mut install = command("mariadb-install-db").expect("MariaDB's programs");
        install.args(["--no-defaults", "--basedir=/usr", "--skip-test-db", "--innodb-log-file-size=8M"]);
        install.arg("--auth-root-authentication-method=normal").arg(of("datadir", data.path()));
        install.stdout(Stdio::null()).stderr(Stdio::null());
        assert!(own_user(&mut install).status().expect("mariadb-install-db").success());
        let mut server = Self { data, port, child: None };
        server.run(options).await;
        Some(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/", self.port)
    }

    /// Returns the server's port on loopback.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Starts the server on its data, and returns when it accepts connections.
    pub(crate) async fn run(&mut self, options: &[&str]) {
        let mut server = command("mariadbd").expect("the installed server");
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
        let env = TestEnv::at(&self.url());
        env.suite.cx().until("the server answers", async || env.databases.check().await.ok()).await;
    }

    /// Kills the server, as a power failure would.
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

/// Returns a program of MariaDB at the path of Debian's packages.
fn command(name: &str) -> Option<Command> {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists())?;
    Some(Command::new(found))
}

/// As root, the server requires `--user=root`; otherwise it runs as the current user.
fn own_user(command: &mut Command) -> &mut Command {
    command.arg("--user=root")
}
