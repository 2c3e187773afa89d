//! The interface through which a test decides what containers do. A container is described as a kubelet would
//! start it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Decides what finite containers do: the containers of Jobs, and init containers.
pub trait Containers: Send + Sync + fmt::Debug + 'static {
    /// Runs a container. Its effects exist when this method returns, and it ends when [`Exit::takes`] has
    /// passed. The server is locked meanwhile, so this method must not send it a request.
    fn run(&self, container: &Container) -> Exit;
}

/// A container at its start.
#[derive(Clone, Default)]
pub struct Container {
    /// Name of the container.
    pub name: String,
    /// Name of the pod.
    pub pod: String,
    /// The image reference of the pod's spec, with a tag or a digest.
    pub image: String,
    /// Command and arguments, with variable references expanded.
    pub argv: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Files of the volume mounts, by path.
    pub files: BTreeMap<String, String>,
    /// Annotations of the pod.
    pub annotations: BTreeMap<String, String>,
    /// Labels of the pod.
    pub labels: BTreeMap<String, String>,
}

impl fmt::Debug for Container {
    /// Omits the values of variables and files, which may be secret.
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
    /// Returns a setting as images read it: the variable, or the file named by the variable with the suffix
    /// `_FILE`.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let file = || self.files.get(self.env.get(&format!("{name}_FILE"))?);
        self.env.get(name).or_else(file).map(|value| value.trim_end_matches('\n'))
    }
}

/// The result of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 0 for success.
    pub code: i32,
    /// Output of the container.
    pub log: String,
    /// Termination message that the container wrote.
    pub message: String,
    /// Duration of the run.
    pub takes: Duration,
}

impl Exit {
    /// Returns a successful exit after one second.
    pub fn success(log: impl Into<String>) -> Self {
        Self { code: 0, log: log.into(), message: String::new(), takes: Duration::from_secs(1) }
    }

    /// Returns an exit with this code after one second.
    pub fn failure(code: i32, log: impl Into<String>) -> Self {
        Self { code, ..Self::success(log) }
    }
}

/// Containers that do nothing and succeed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Idle;

impl Containers for Idle {
    fn run(&self, _: &Container) -> Exit {
        Exit::success("")
    }
}

/// What happens to the pods of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageBehavior {
    /// The pods become ready, or end as [`Containers`] decides.
    #[default]
    Healthy,
    /// The image does not exist in the registry.
    Missing,
    /// The registry rejects the pull, so it is unknown whether the image exists.
    PullRejected,
    /// The containers exit with code 1 as soon as they run.
    Crashing,
    /// The containers run, but never pass their readiness probe.
    NeverReady,
    /// No node has enough capacity for the pods.
    Unschedulable,
}
