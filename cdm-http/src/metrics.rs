//! Metrics for Prometheus. Each server has its own recorder, so that one process may contain several servers.

use std::fmt;
use std::time::Duration;

use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

const META: Metadata<'static> = Metadata::new("cdm_http", Level::INFO, Some("cdm_http"));
const REQUESTS: &str = "cdm_http_requests_total";
const SECONDS: &str = "cdm_http_request_duration_seconds";
const RUNNING: &str = "cdm_http_requests_in_flight";
const STREAMS: &str = "cdm_http_event_streams";
const DROPPED: &str = "cdm_log_lines_dropped_total";
/// Upper bounds of the histogram's buckets, in seconds.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];

/// The metrics of one server.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let builder = PrometheusBuilder::new();
        let builder = builder.set_buckets(&BUCKETS).unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        recorder.describe_counter(REQUESTS.into(), None, "Completed requests.".into());
        recorder.describe_histogram(
            SECONDS.into(),
            None,
            "Duration of requests up to the start of the response.".into(),
        );
        recorder.describe_gauge(RUNNING.into(), None, "Requests in progress.".into());
        recorder.describe_gauge(STREAMS.into(), None, "Open event streams.".into());
        recorder.describe_counter(
            DROPPED.into(),
            None,
            "Log lines that were dropped because standard error was blocked or closed.".into(),
        );
        let handle = recorder.handle();
        Self { recorder, handle }
    }

    /// Counts a request as in progress until the returned guard is dropped.
    pub(crate) fn begin(&self) -> Gauge {
        self.gauge(RUNNING)
    }

    /// Counts an event stream as open until the returned guard is dropped.
    pub(crate) fn stream(&self) -> Gauge {
        self.gauge(STREAMS)
    }

    fn gauge(&self, name: &'static str) -> Gauge {
        let gauge = self.recorder.register_gauge(&Key::from_static_name(name), &META);
        gauge.increment(1.0);
        Gauge(gauge)
    }

    /// Records a completed request. `route` is the pattern of the route, never a path.
    pub(crate) fn record_response(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let method = Label::from_static_parts("method", method);
        let route = Label::new("route", route.to_owned());
        let labels = vec![method.clone(), route.clone(), Label::new("status", status.to_string())];
        let requests = Key::from_parts(REQUESTS, labels);
        self.recorder.register_counter(&requests, &META).increment(1);
        let seconds = Key::from_parts(SECONDS, vec![method, route]);
        self.recorder.register_histogram(&seconds, &META).record(took.as_secs_f64());
    }

    /// Returns all metrics in the Prometheus text format.
    pub(crate) fn render(&self) -> String {
        let dropped = self.recorder.register_counter(&Key::from_static_name(DROPPED), &META);
        dropped.absolute(crate::log::dropped());
        self.handle.render()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Increments a gauge, and decrements it on drop.
pub(crate) struct Gauge(metrics::Gauge);

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
