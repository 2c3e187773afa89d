//! The table: its required schema, its creation, and its check.

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

/// How long to wait for a table to become active.
const ACTIVATION_TIMEOUT: Duration = Duration::from_mins(3);
/// How often to check whether the table is active.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The attribute of DynamoDB's time to live.
const EXPIRES: &str = "expires";

/// An index: its name, its keys, and the other attributes that it projects.
struct Index {
    name: &'static str,
    keys: [(&'static str, ScalarAttributeType); 2],
    projected: &'static [&'static str],
}

const INDEXES: [Index; 2] = [
    Index {
        name: LISTS,
        keys: [("list", ScalarAttributeType::S), ("id", ScalarAttributeType::S)],
        projected: &["service"],
    },
    Index {
        name: WORK,
        keys: [("work", ScalarAttributeType::S), ("number", ScalarAttributeType::N)],
        projected: &["opKind", "opStatus", "opOwner", "opWake", "opAsked"],
    },
];

const KEYS: [(&str, ScalarAttributeType); 2] =
    [("pk", ScalarAttributeType::S), ("sk", ScalarAttributeType::S)];

impl DynamoTable {
    /// Creates the table with its indexes if it is missing, enables its time to live, and enables point-in-time
    /// recovery. Settings that are already correct are not changed.
    ///
    /// # Errors
    /// When the account may not do this, or a table of that name has other keys.
    pub async fn bootstrap(&self) -> Result<(), StoreError> {
        let deadline = self.clock.monotonic().after(ACTIVATION_TIMEOUT);
        if self.describe().await?.is_none() {
            self.create(deadline).await.map_err(Failure::into_error)?;
        }
        while !self.is_ready().await? {
            self.pause(deadline).await?;
        }
        self.enable_time_to_live(deadline).await.map_err(Failure::into_error)?;
        self.enable_recovery(deadline).await
    }

    /// Checks that the table exists, is active, has the required schema, and can be read.
    ///
    /// # Errors
    /// When the table is not usable; the message has the cause and the next step.
    pub async fn check(&self) -> Result<(), StoreError> {
        if self.describe().await?.is_none() {
            let message =
                format!("the table `{}` does not exist; create it with `cdm-server --bootstrap`", self.name);
            return Err(StoreError::Denied(message));
        }
        if !self.is_ready().await? {
            let message = format!("the table `{}` is still being created; retry later", self.name);
            return Err(StoreError::Unavailable(message));
        }
        self.get(&Key::fleet(), self.read_deadline()).await.map(drop)
    }

    async fn describe(&self) -> Result<Option<TableDescription>, StoreError> {
        let request = self.client.describe_table().table_name(&*self.name);
        let response = async {
            match request.send().await {
                Ok(output) => Ok(output.table),
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
        self.within(self.read_deadline(), response).await.map_err(Failure::into_error)
    }

    /// Returns whether the table and its indexes are ready for use.
    async fn is_ready(&self) -> Result<bool, StoreError> {
        let Some(table) = self.describe().await? else { return Ok(false) };
        let deny = |what: &str| {
            let message = format!(
                "the table `{}` {what}, so `cdm-server --bootstrap` did not create it; configure another table name",
                self.name
            );
            Err(StoreError::Denied(message))
        };
        if !has_keys(table.key_schema(), &KEYS) {
            return deny("has other keys");
        }
        let mut ready = table.table_status == Some(TableStatus::Active);
        for index in &INDEXES {
            let current = table
                .global_secondary_indexes()
                .iter()
                .find(|current| current.index_name() == Some(index.name));
            match current {
                None => return deny(&format!("has no index `{}`", index.name)),
                Some(current) if !has_keys(current.key_schema(), &index.keys) => {
                    return deny(&format!("has an index `{}` with other keys", index.name));
                }
                Some(current) => ready &= current.index_status == Some(IndexStatus::Active),
            }
        }
        Ok(ready)
    }

    async fn create(&self, deadline: MonotonicTime) -> Result<(), Failure> {
        let build_error = |error: aws_sdk_dynamodb::error::BuildError| StoreError::Denied(error.to_string());
        let mut request =
            self.client.create_table().table_name(&*self.name).billing_mode(BillingMode::PayPerRequest);
        request = request.set_key_schema(Some(schema(&KEYS).map_err(build_error)?));
        for (name, kind) in KEYS.iter().chain(INDEXES.iter().flat_map(|index| &index.keys)) {
            let definition =
                AttributeDefinition::builder().attribute_name(*name).attribute_type(kind.clone());
            request = request.attribute_definitions(definition.build().map_err(build_error)?);
        }
        for index in &INDEXES {
            let projected = Projection::builder()
                .projection_type(ProjectionType::Include)
                .set_non_key_attributes(Some(index.projected.iter().map(ToString::to_string).collect()))
                .build();
            let index = GlobalSecondaryIndex::builder()
                .index_name(index.name)
                .set_key_schema(Some(schema(&index.keys).map_err(build_error)?))
                .projection(projected);
            request = request.global_secondary_indexes(index.build().map_err(build_error)?);
        }
        let sent = async {
            match request.send().await {
                Ok(_) => Ok(()),
                // Another process is creating the table.
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

    async fn enable_time_to_live(&self, deadline: MonotonicTime) -> Result<(), Failure> {
        let response = async {
            self.client.describe_time_to_live().table_name(&*self.name).send().await.map_err(failed)
        };
        let current = self.within(deadline, response).await?.time_to_live_description;
        let status = current.and_then(|current| current.time_to_live_status);
        if matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
            return Ok(());
        }
        let wanted = TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES).build();
        let wanted = wanted.map_err(|error| StoreError::Denied(error.to_string()))?;
        let request =
            self.client.update_time_to_live().table_name(&*self.name).time_to_live_specification(wanted);
        self.within(deadline, async { request.send().await.map(drop).map_err(failed) }).await
    }

    async fn enable_recovery(&self, deadline: MonotonicTime) -> Result<(), StoreError> {
        loop {
            let response = async {
                self.client.describe_continuous_backups().table_name(&*self.name).send().await.map_err(failed)
            };
            let current = match self.within(deadline, response).await {
                Ok(output) => output.continuous_backups_description,
                // Some stand-ins of DynamoDB do not implement backups.
                Err(Failure::NotApplied(StoreError::Denied(why))) if why.contains("UnknownOperation") => {
                    return Ok(());
                }
                Err(failure) => return Err(failure.into_error()),
            };
            let recovery = current.as_ref().and_then(|current| current.point_in_time_recovery_description());
            let on = recovery.and_then(|recovery| recovery.point_in_time_recovery_status());
            if on == Some(&PointInTimeRecoveryStatus::Enabled) {
                return Ok(());
            }
            // Backups of a new table become available with a delay.
            if current
                .is_some_and(|current| current.continuous_backups_status == ContinuousBackupsStatus::Enabled)
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
            return Err(StoreError::Unavailable(format!(
                "the table `{}` did not become active in time",
                self.name
            )));
        }
        self.clock.sleep_until(self.clock.monotonic().after(POLL_INTERVAL)).await;
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
