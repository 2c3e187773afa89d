//! Health checks of sites of the local cluster, through its router: as visitors reach them, or at one service by the
//! router's header.

use async_trait::async_trait;
use hyper::header::HeaderValue;

use super::LocalCluster;
use super::pages::SERVICE;
use crate::adapters::outbound::Outbound;
use crate::adapters::outbound::probe::{request, response, service_in_header};
use crate::domain::rollout::ProbeResponse;
use crate::ports::{HealthProbe, Inconclusive, ProbeRequest, Via};

/// Maximum size of a page, in bytes.
const MAX_BODY: usize = 64 << 10;

/// Probes the sites of a [`LocalCluster`] through the router of its current host.
#[derive(Debug)]
pub struct LocalProbe {
    cluster: std::sync::Arc<LocalCluster>,
    outbound: Outbound,
}

impl LocalProbe {
    /// Creates a probe that sends its requests through `outbound` to the cluster's router.
    pub const fn new(cluster: std::sync::Arc<LocalCluster>, outbound: Outbound) -> Self {
        Self { cluster, outbound }
    }
}

#[async_trait]
impl HealthProbe for LocalProbe {
    async fn probe(&self, check: &ProbeRequest) -> Result<ProbeResponse, Inconclusive> {
        let router = self.cluster.router_address().await;
        let router = router.map_err(|error| Inconclusive(error.message))?;
        let router = router.ok_or_else(|| Inconclusive("no process hosts the local cluster".to_owned()))?;
        let headers = match check.via {
            Via::Route => Vec::new(),
            Via::Service(color) => vec![(SERVICE, HeaderValue::from_static(color.as_str()))],
        };
        let received =
            self.outbound.send(request(router, false, check, headers), MAX_BODY, check.timeout).await;
        let received = received.map_err(|error| Inconclusive(error.to_string()))?;
        // In both cases, the router responds in place of the service while no pod is ready.
        Ok(response(&received, check, service_in_header(&received, &SERVICE)))
    }
}
