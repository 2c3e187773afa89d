//! What a halt by the gate means for the image: it is bad, and where sites ran on it before the rollout came, the one
//! before it is put back.

use super::driver::RolloutRun;
use crate::domain::operation::{Deploy, Hooks};
use crate::domain::service::rollback_choice;
use crate::domain::{Digest, Fence, OperationId, OperationInput, Rollout, Service, Subject};
use crate::engine::{Backoff, Lost};
use crate::ports::{Outcome, StoreError, WriteError};

impl RolloutRun<'_> {
    /// Writes the gate's verdict into the target's record, and where it is asked for the deploy that puts the digest
    /// before it back: sites that were in place cannot be taken back one by one.
    pub(super) async fn condemn(&self, next: &mut Rollout, target: &mut Service) -> Result<(), Lost> {
        let rollouts = next.digest.filter(|_| crate::bug!(VerdictOnRolloutsDigest));
        let Some(digest) = rollouts.or_else(|| next.wanted()) else { return Ok(()) };
        let why = format!("the gate of rollout-{} spoke against it", next.number);
        target.condemn(&digest, self.now(), &next.requested_by, &why);
        if !next.auto_rollback || next.in_place == 0 {
            return Ok(());
        }
        let other = self.service(target.color.other()).await?;
        let said = match (rollback_choice(target, &other, Some(digest)), &target.operation) {
            (Some(previous), None) => {
                let number = self.number().await?;
                next.rollback = Some(OperationId::on(number, Subject::Service(target.color)));
                let deploy = put_back(target, previous);
                let registry = self.worker.registry();
                target.operation = Some(registry.queued(number, deploy, &next.requested_by, self.now()));
                format!("{previous} is put back on `{}`", target.color)
            }
            (None, _) => format!("`{}` has no healthy digest that could be put back", target.color),
            (Some(_), Some(_)) => {
                format!("nothing is put back on `{}`: another operation changes it", target.color)
            }
        };
        if let Some(reason) = &mut next.reason {
            reason.message = format!("{}; {said}", reason.message);
        }
        Ok(())
    }

    async fn number(&self) -> Result<u64, Lost> {
        let ports = self.worker.ports();
        let mut backoff = Backoff::of(self.worker.settings());
        loop {
            let call = self.worker.lease().call(ports, Fence::default())?;
            match ports.store.allocate_ids(&call, 1).await {
                Outcome::Applied(number) => return Ok(number),
                Outcome::NotApplied(WriteError::Store(StoreError::Denied(_))) => return Err(Lost),
                Outcome::NotApplied(_) | Outcome::Unknown(_) => backoff.wait(&*ports.clock).await,
            }
        }
    }
}

fn put_back(target: &Service, digest: Digest) -> OperationInput {
    OperationInput::Deploy(Box::new(Deploy {
        color: target.color,
        digest,
        promote: false,
        hooks: Hooks::Run,
        previous: None,
        rollout: None,
        rolls_back: true,
    }))
}
