//! The table itself: what it has to be like, making it, and saying what is wrong with it.

use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, ContinuousBackupsStatus, GlobalSecondaryIndex, IndexStatus,
    KeySchemaElement, KeyType, PointInTimeRecoverySpecification, PointInTimeRecoveryStatus, Projection,
    ProjectionType, ScalarAttributeType, TableDescription, TableStatus, TimeToLiveSpecification,
    TimeToLiveStatus,
};

use super::failure::{Failure, failed};
use super::item::Key;
use super::lists::{LISTS, WORK};
use super::table::DynamoTable;
use crate::domain::MonotonicTime;
use crate::ports::StoreError;

/// How long a table may take to come about.
const PATIENCE: Duration = Duration::from_mins(3);
/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(500);
/// The attribute by which the table cleans up.
const EXPIRES: &str = "expires";

/// An index: its name, its keys, and what it tells of an item besides.
struct Index {
    name: &'static str,
    keys: [(&'static str, ScalarAttributeType); 2],
    tells: &'static [&'static str],
}

const INDEXES: [Index; 2] = [
    Index {
        name: LISTS,
        keys: [("list", ScalarAttributeType::S), ("id", ScalarAttributeType::S)],
        tells: &["service"],
    },
    Index {
        name: WORK,
        keys: [("work", ScalarAttributeType::S), ("number", ScalarAttributeType::N)],
        tells: &["opKind", "opStatus", "opOwner", "opWake", "opAsked"],
    },
];

const KEYS: [(&str, ScalarAttributeType); 2] =
    [("pk", ScalarAttributeType::S), ("sk", ScalarAttributeType::S)];

impl DynamoTable {
    /// Makes the table with its indexes where it is missing, has it clean up what has expired, and turns its
    /// point-in-time recovery on. What is as it shall be is left alone.
    ///
    /// # Errors
    /// When the account does not let it, or a table of that name has other keys.
    pub async fn bootstrap(&self) -> Result<(), StoreError> {
        let deadline = self.clock.monotonic().after(PATIENCE);
        if self.described().await?.is_none() {
            self.create(deadline).await.map_err(Failure::into_error)?;
        }
        while !self.stands().await? {
            self.pause(deadline).await?;
        }
        self.clean_up(deadline).await.map_err(Failure::into_error)?;
        self.keep_recoverable(deadline).await
    }

    /// Whether the table answers, and is as it shall be.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub async fn check(&self) -> Result<(), StoreError> {
        if self.described().await?.is_none() {
            let message = format!("there is no table `{}`; `cdm-server --bootstrap` makes it", self.name);
            return Err(StoreError::Denied(message));
        }
        if !self.stands().await? {
            let message = format!("the table `{}` is still being made", self.name);
            return Err(StoreError::Unavailable(message));
        }
        self.get(&Key::fleet(), self.soon()).await.map(drop)
    }

    async fn described(&self) -> Result<Option<TableDescription>, StoreError> {
        let request = self.client.describe_table().table_name(&*self.name);
        let asked = async {
            match request.send().await {
                Ok(answer) => Ok(answer.table),
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(|error| error.is_resource_not_found_exception()) =>
                {
                    Ok(None)
                }
                Err(error) => Err(failed(error)),
            }
        };
        self.within(self.soon(), asked).await.map_err(Failure::into_error)
    }

    /// Whether the table and its indexes are ready for use.
    async fn stands(&self) -> Result<bool, StoreError> {
        let Some(table) = self.described().await? else { return Ok(false) };
        let deny = |what: &str| {
            let message = format!(
                "the table `{}` {what}; it is not one that `cdm-server --bootstrap` made: name another one",
                self.name
            );
            Err(StoreError::Denied(message))
        };
        if !has_keys(table.key_schema(), &KEYS) {
            return deny("has other keys");
        }
        let mut ready = table.table_status == Some(TableStatus::Active);
        for index in &INDEXES {
            let known =
                table.global_secondary_indexes().iter().find(|known| known.index_name() == Some(index.name));
            match known {
                None => return deny(&format!("has no index `{}`", index.name)),
                Some(known) if !has_keys(known.key_schema(), &index.keys) => {
                    return deny(&format!("has an index `{}` with other keys", index.name));
                }
                Some(known) => ready &= known.index_status == Some(IndexStatus::Active),
            }
        }
        Ok(ready)
    }

    async fn create(&self, deadline: MonotonicTime) -> Result<(), Failure> {
        let wrong = |error: aws_sdk_dynamodb::error::BuildError| StoreError::Denied(error.to_string());
        let mut request =
            self.client.create_table().table_name(&*self.name).billing_mode(BillingMode::PayPerRequest);
        request = request.set_key_schema(Some(schema(&KEYS).map_err(wrong)?));
        for (name, kind) in KEYS.iter().chain(INDEXES.iter().flat_map(|index| &index.keys)) {
            let definition =
                AttributeDefinition::builder().attribute_name(*name).attribute_type(kind.clone());
            request = request.attribute_definitions(definition.build().map_err(wrong)?);
        }
        for index in &INDEXES {
            let tells = Projection::builder()
                .projection_type(ProjectionType::Include)
                .set_non_key_attributes(Some(index.tells.iter().map(ToString::to_string).collect()))
                .build();
            let index = GlobalSecondaryIndex::builder()
                .index_name(index.name)
                .set_key_schema(Some(schema(&index.keys).map_err(wrong)?))
                .projection(tells);
            request = request.global_secondary_indexes(index.build().map_err(wrong)?);
        }
        let sent = async {
            match request.send().await {
                Ok(_) => Ok(()),
                // Someone else makes it at the same time.
                Err(error)
                    if error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()) =>
                {
                    Ok(())
                }
                Err(error) => Err(failed(error)),
            }
        };
        self.within(deadline, sent).await
    }

    async fn clean_up(&self, deadline: MonotonicTime) -> Result<(), Failure> {
        let asked = async {
            self.client.describe_time_to_live().table_name(&*self.name).send().await.map_err(failed)
        };
        let known = self.within(deadline, asked).await?.time_to_live_description;
        let status = known.and_then(|known| known.time_to_live_status);
        if matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
            return Ok(());
        }
        let wanted = TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES).build();
        let wanted = wanted.map_err(|error| StoreError::Denied(error.to_string()))?;
        let request =
            self.client.update_time_to_live().table_name(&*self.name).time_to_live_specification(wanted);
        self.within(deadline, async { request.send().await.map(drop).map_err(failed) }).await
    }

    async fn keep_recoverable(&self, deadline: MonotonicTime) -> Result<(), StoreError> {
        loop {
            let asked = async {
                self.client.describe_continuous_backups().table_name(&*self.name).send().await.map_err(failed)
            };
            let known = match self.within(deadline, asked).await {
                Ok(answer) => answer.continuous_backups_description,
                // What stands in for DynamoDB here or there has no backups.
                Err(Failure::Not(StoreError::Denied(why))) if why.contains("UnknownOperation") => {
                    return Ok(());
                }
                Err(failure) => return Err(failure.into_error()),
            };
            let recovery = known.as_ref().and_then(|known| known.point_in_time_recovery_description());
            let on = recovery.and_then(|recovery| recovery.point_in_time_recovery_status());
            if on == Some(&PointInTimeRecoveryStatus::Enabled) {
                return Ok(());
            }
            // Those of a new table are not available for a moment.
            if known.is_some_and(|known| known.continuous_backups_status == ContinuousBackupsStatus::Enabled)
            {
                let wanted =
                    PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true).build();
                let wanted = wanted.map_err(|error| StoreError::Denied(error.to_string()))?;
                let request = self.client.update_continuous_backups().table_name(&*self.name);
                let request = request.point_in_time_recovery_specification(wanted);
                let sent = async { request.send().await.map(drop).map_err(failed) };
                return self.within(deadline, sent).await.map_err(Failure::into_error);
            }
            self.pause(deadline).await?;
        }
    }

    async fn pause(&self, deadline: MonotonicTime) -> Result<(), StoreError> {
        if self.clock.monotonic() >= deadline {
            return Err(StoreError::Unavailable(format!("the table `{}` does not come about", self.name)));
        }
        self.clock.sleep_until(self.clock.monotonic().after(LOOK)).await;
        Ok(())
    }
}

fn schema(
    keys: &[(&str, ScalarAttributeType); 2],
) -> Result<Vec<KeySchemaElement>, aws_sdk_dynamodb::error::BuildError> {
    let kinds = [KeyType::Hash, KeyType::Range];
    let element = |((name, _), kind): (&(&str, _), KeyType)| {
        KeySchemaElement::builder().attribute_name(*name).key_type(kind).build()
    };
    keys.iter().zip(kinds).map(element).collect()
}

fn has_keys(schema: &[KeySchemaElement], keys: &[(&str, ScalarAttributeType); 2]) -> bool {
    let named =
        |kind: KeyType| schema.iter().find(|key| key.key_type == kind).map(|key| key.attribute_name.as_str());
    named(KeyType::Hash) == Some(keys[0].0) && named(KeyType::Range) == Some(keys[1].0)
}
