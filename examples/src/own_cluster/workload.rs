//! One of the two services: its template, and the state of its pods.
//!
//! Nothing runs in the background. Each read computes the state of the pods from the time at which the template was
//! set.

use std::time::Duration;

use cdm_core::domain::{Color, Digest, Fence, MonotonicTime, Template};
use cdm_core::ports::{PodFailure, ServiceView};

/// How the pods of an image behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Image {
    /// The pods become ready.
    Works,
    /// The pods crash repeatedly.
    Crashes,
    /// The image does not exist.
    #[default]
    Absent,
}

impl Image {
    /// Returns the failure message of the pods, if they do not become ready.
    pub(super) const fn failure_message(self) -> Option<&'static str> {
        match self {
            Self::Works => None,
            Self::Crashes => Some("CrashLoopBackOff"),
            Self::Absent => Some("ImagePullBackOff"),
        }
    }
}

/// Everything that defines the pods: the image, and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PodTemplate {
    pub(super) image: Digest,
    memory_mib: u32,
}

impl PodTemplate {
    /// Returns the template in the form of the port: a text that only this cluster reads.
    fn print(self) -> Template {
        Template::new(&format!("image={} memory={}", self.image, self.memory_mib))
    }

    /// Parses the output of [`PodTemplate::print`]; `None` for any other text.
    pub(super) fn parse(template: &Template) -> Option<Self> {
        let (image, memory) = template.as_str().strip_prefix("image=")?.split_once(" memory=")?;
        Some(Self { image: Digest::parse(image).ok()?, memory_mib: memory.parse().ok()? })
    }
}

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
    /// Template of the pods that serve until the pods of the present template are ready.
    before: Option<PodTemplate>,
}

/// Desired number of pods of a service.
const PODS: u32 = 2;
/// Memory of a pod, unless a template sets another value.
const MEMORY_MIB: u32 = 512;
/// Time until pods become ready, or crash for the first time.
const START_DURATION: Duration = Duration::from_secs(3);
/// Time without progress after which the cluster reports a definite failure.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(30);

impl Workload {
    pub(super) const fn fence(&self) -> Fence {
        self.fence
    }

    pub(super) fn image(&self) -> Option<Digest> {
        self.running.map(|running| running.template.image)
    }

    /// Returns the present template with another image, and otherwise unchanged.
    pub(super) fn template_with(&self, image: Digest) -> PodTemplate {
        let memory_mib = self.running.map_or(MEMORY_MIB, |running| running.template.memory_mib);
        PodTemplate { image, memory_mib }
    }

    /// Sets template and fence, and returns the times at which the state of the service changes without a call.
    /// Setting the template that already runs restarts nothing.
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
            // Pods that did not become ready are removed; the pods that served before them continue to serve.
            Some(running) => running.before,
            None => None,
        };
        self.running = Some(Running { template, image, since: now, before });
        vec![now, now.after(START_DURATION), now.after(PROGRESS_DEADLINE)]
    }

    /// Returns the current state.
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
    /// Returns whether every pod of the template is available, and no pod of an earlier template remains.
    fn is_up(&self, now: MonotonicTime) -> bool {
        // A template that is restored while its pods still serve is ready at once.
        let serves = self.before == Some(self.template);
        serves || (self.image == Image::Works && now >= self.since.after(START_DURATION))
    }

    fn failure(&self, now: MonotonicTime) -> Option<PodFailure> {
        let message = self.image.failure_message().filter(|_| now >= self.since.after(START_DURATION))?;
        let definite = now >= self.since.after(PROGRESS_DEADLINE);
        Some(PodFailure { definite, blames_image: true, message: message.to_owned() })
    }
}
