//! Sites of the local cluster, asked through its router: as their visitors do, or at a service by the router's own
//! header for that.

use async_trait::async_trait;
use hyper::header::HeaderValue;

use super::LocalCluster;
use super::pages::SERVICE;
use crate::adapters::outbound::Outbound;
use crate::adapters::outbound::probe::{answer, asked, named};
use crate::domain::rollout::ProbeResponse;
use crate::ports::{HealthProbe, Inconclusive, ProbeRequest, Via};

/// Most bytes of a page.
const MOST_BODY: usize = 64 << 10;

/// Asks the sites of a [`LocalCluster`], whichever process hosts it.
#[derive(Debug)]
pub struct LocalProbe {
    cluster: std::sync::Arc<LocalCluster>,
    outbound: Outbound,
}

impl LocalProbe {
    /// Of that cluster.
    pub const fn new(cluster: std::sync::Arc<LocalCluster>, outbound: Outbound) -> Self {
        Self { cluster, outbound }
    }
}

#[async_trait]
impl HealthProbe for LocalProbe {
    async fn probe(&self, check: &ProbeRequest) -> Result<ProbeResponse, Inconclusive> {
        let router = self.cluster.router_address().await;
        let router = router.map_err(|error| Inconclusive(error.message))?;
        let router = router.ok_or_else(|| Inconclusive("nobody hosts the local cluster".to_owned()))?;
        let headers = match check.via {
            Via::Route => Vec::new(),
            Via::Service(color) => vec![(SERVICE, HeaderValue::from_static(color.as_str()))],
        };
        let answered =
            self.outbound.ask(asked(router, false, check, headers), MOST_BODY, check.timeout).await;
        let answered = answered.map_err(|error| Inconclusive(error.to_string()))?;
        // Either way the router stands between, and answers in the service's place while no pod is ready.
        Ok(answer(&answered, check, named(&answered, &SERVICE)))
    }
}
