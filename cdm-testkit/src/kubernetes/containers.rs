//! What containers do is decided by whoever starts the server: it is given a container as a kubelet would start it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Decides what containers do that are to end: those of Jobs, and those that run before the others of a pod.
pub trait Containers: Send + Sync + fmt::Debug + 'static {
    /// Runs a container; its effects are there when this returns, and it ends when [`Exit::takes`] has passed. The server
    /// stands still meanwhile, so this must not ask it anything.
    fn run(&self, container: &Container) -> Exit;
}

/// A container as it is started.
#[derive(Clone, Default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// The pod's name.
    pub pod: String,
    /// The image.
    pub image: String,
    /// Command and arguments, with references to variables replaced.
    pub argv: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// The files of its mounts, by path.
    pub files: BTreeMap<String, String>,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
}

impl fmt::Debug for Container {
    /// Without the values of variables and files, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container")
            .field("name", &self.name)
            .field("pod", &self.pod)
            .field("image", &self.image)
            .field("argv", &self.argv)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("files", &self.files.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Container {
    /// A setting as images read it: the variable, or the file that the variable with `_FILE` behind it names.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let file = || self.files.get(self.env.get(&format!("{name}_FILE"))?);
        self.env.get(name).or_else(file).map(|value| value.trim_end_matches('\n'))
    }
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// 0 where it is content.
    pub code: i32,
    /// What it printed.
    pub log: String,
    /// What it wrote as its termination message.
    pub message: String,
    /// How long it ran.
    pub takes: Duration,
}

impl Exit {
    /// A container that was content after a second.
    pub fn success(log: impl Into<String>) -> Self {
        Self { code: 0, log: log.into(), message: String::new(), takes: Duration::from_secs(1) }
    }

    /// A container that was not.
    pub fn failure(code: i32, log: impl Into<String>) -> Self {
        Self { code, ..Self::success(log) }
    }
}

/// Containers that do nothing and are content.
#[derive(Clone, Copy, Debug, Default)]
pub struct Idle;

impl Containers for Idle {
    fn run(&self, _: &Container) -> Exit {
        Exit::success("")
    }
}

/// What becomes of the pods of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// They get ready, or end as [`Containers`] says.
    #[default]
    Good,
    /// The registry has no such image.
    Missing,
    /// The registry refuses: the image may be there or not.
    Refused,
    /// They exit with 1 as soon as they run.
    Crashing,
    /// They run and never pass their readiness check.
    NeverReady,
    /// No node has room for them.
    Unschedulable,
}
