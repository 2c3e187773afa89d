//! One of the two services: the template that it runs, and how the pods of it fare.
//!
//! Nothing runs in the background. How the pods stand follows from when the template was set, whenever someone looks.

use std::time::Duration;

use cdm_core::domain::{Color, Digest, Fence, MonotonicTime, Template};
use cdm_core::ports::{PodFailure, ServiceView};

/// What becomes of an image's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Image {
    /// They get ready.
    Works,
    /// They crash, again and again.
    Crashes,
    /// There is no such image.
    #[default]
    Absent,
}

impl Image {
    /// What its pods say of themselves, where they do not get ready.
    pub(super) const fn complaint(self) -> Option<&'static str> {
        match self {
            Self::Works => None,
            Self::Crashes => Some("CrashLoopBackOff"),
            Self::Absent => Some("ImagePullBackOff"),
        }
    }
}

/// Everything that makes the pods what they are: the image, and the settings around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PodTemplate {
    pub(super) image: Digest,
    memory_mib: u32,
}

impl PodTemplate {
    /// The template in the port's form: a text that only this cluster reads.
    fn print(self) -> Template {
        Template::new(&format!("image={} memory={}", self.image, self.memory_mib))
    }

    /// Parses what [`PodTemplate::print`] prints; `None` for anything else.
    pub(super) fn parse(template: &Template) -> Option<Self> {
        let (image, memory) = template.as_str().strip_prefix("image=")?.split_once(" memory=")?;
        Some(Self { image: Digest::parse(image).ok()?, memory_mib: memory.parse().ok()? })
    }
}

/// One service.
#[derive(Debug, Default)]
pub(super) struct Workload {
    fence: Fence,
    running: Option<Running>,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    template: PodTemplate,
    image: Image,
    since: MonotonicTime,
    /// The template of the pods that serve until those of the present one are up.
    before: Option<PodTemplate>,
}

/// How many pods a service wants.
const PODS: u32 = 2;
/// The memory of a pod where no template says another.
const MEMORY_MIB: u32 = 512;
/// How long pods take to get ready, or to crash first.
const START: Duration = Duration::from_secs(3);
/// How long a rollout may make no progress before the cluster gives it up.
const PATIENCE: Duration = Duration::from_secs(30);

impl Workload {
    pub(super) const fn fence(&self) -> Fence {
        self.fence
    }

    pub(super) fn image(&self) -> Option<Digest> {
        self.running.map(|running| running.template.image)
    }

    /// The present template with another image, everything else as it is.
    pub(super) fn template_with(&self, image: Digest) -> PodTemplate {
        let memory_mib = self.running.map_or(MEMORY_MIB, |running| running.template.memory_mib);
        PodTemplate { image, memory_mib }
    }

    /// Sets template and fence; answers the moments at which the service will look different of itself. Setting the
    /// template that runs already restarts nothing.
    pub(super) fn run(
        &mut self,
        template: PodTemplate,
        image: Image,
        fence: Fence,
        now: MonotonicTime,
    ) -> Vec<MonotonicTime> {
        self.fence = fence;
        let before = match &self.running {
            Some(running) if running.template == template => return vec![now],
            Some(running) if running.is_up(now) => Some(running.template),
            // What did not get ready goes; who served before it serves on.
            Some(running) => running.before,
            None => None,
        };
        self.running = Some(Running { template, image, since: now, before });
        vec![now, now.after(START), now.after(PATIENCE)]
    }

    /// How it stands.
    pub(super) fn view(&self, color: Color, now: MonotonicTime) -> ServiceView {
        let up = self.running.is_some_and(|running| running.is_up(now));
        let updated = if self.running.is_some() { PODS } else { 0 };
        let available = if up { PODS } else { 0 };
        let old = if !up && self.running.is_some_and(|running| running.before.is_some()) { PODS } else { 0 };
        ServiceView {
            color,
            digest: self.image(),
            template: self.running.map(|running| running.template.print()),
            fence: self.fence,
            desired: PODS,
            updated,
            ready: available + old,
            available,
            total: updated + old,
            observed: true,
            failure: self.running.and_then(|running| running.failure(now)),
        }
    }
}

impl Running {
    /// Whether every pod of the template is available, and none of an earlier one is left.
    fn is_up(&self, now: MonotonicTime) -> bool {
        // Put back while its own pods still serve, a template is up at once.
        let serves = self.before == Some(self.template);
        serves || (self.image == Image::Works && now >= self.since.after(START))
    }

    fn failure(&self, now: MonotonicTime) -> Option<PodFailure> {
        let message = self.image.complaint().filter(|_| now >= self.since.after(START))?;
        let definite = now >= self.since.after(PATIENCE);
        Some(PodFailure { definite, blames_image: true, message: message.to_owned() })
    }
}
