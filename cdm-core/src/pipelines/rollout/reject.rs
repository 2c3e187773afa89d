//! The effect of a halt by the health gate on the image: the image is marked as bad. If sites ran on it before the
//! rollout, a deploy restores the previous image.

use super::driver::RolloutRun;
use crate::domain::operation::{Deploy, Hooks};
use crate::domain::service::rollback_choice;
use crate::domain::{Digest, Fence, OperationId, OperationInput, Rollout, Service, Subject};
use crate::engine::{Backoff, Lost};
use crate::ports::{Outcome, StoreError, WriteError};

impl RolloutRun<'_> {
    /// Records the verdict of the health gate in the record of the target. With automatic rollback it also starts the
    /// deploy that restores the previous digest, since sites that were on the target already cannot be moved back.
    pub(super) async fn reject_image(&self, next: &mut Rollout, target: &mut Service) -> Result<(), Lost> {
        let requested = next.digest.filter(|_| crate::bug!(VerdictOnRolloutsDigest));
        let Some(digest) = requested.or_else(|| next.wanted()) else { return Ok(()) };
        let why = format!("sites failed the health gate of rollout-{}", next.number);
        target.condemn(&digest, self.now(), &next.requested_by, &why);
        if !next.auto_rollback || next.in_place == 0 {
            return Ok(());
        }
        let other = self.service(target.color.other()).await?;
        let note = match (rollback_choice(target, &other, Some(digest)), &target.operation) {
            (Some(previous), None) => {
                let number = self.allocate_number().await?;
                next.rollback = Some(OperationId::on(number, Subject::Service(target.color)));
                let deploy = rollback_input(target, previous);
                let registry = self.worker.registry();
                target.operation = Some(registry.queued(number, deploy, &next.requested_by, self.now()));
                format!("a deploy restores {previous} on `{}`", target.color)
            }
            (None, _) => format!("`{}` has no healthy digest to restore", target.color),
            (Some(_), Some(_)) => {
                format!("no digest is restored on `{}`, since another operation runs on it", target.color)
            }
        };
        if let Some(reason) = &mut next.reason {
            reason.message = format!("{}; {note}", reason.message);
        }
        Ok(())
    }

    async fn allocate_number(&self) -> Result<u64, Lost> {
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

fn rollback_input(target: &Service, digest: Digest) -> OperationInput {
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
