//! Writes one record of a batch after the batch was checked.

use sqlx::SqliteConnection;

use super::super::error::Failure;
use super::super::read::integer;
use super::{FLEET, USERS, WEBHOOKS, bits, service_name};
use crate::adapters::records;
use crate::domain::operation::OperationParent;
use crate::domain::search::SearchText;
use crate::domain::user::Users;
use crate::domain::webhook::Webhooks;
use crate::domain::{
    Fleet, Operation, OperationState, Rollout, RolloutStatus, Service, Site, SiteId, Status, Subject,
};
use crate::ports::{CallContext, Mutation};

type Done = Result<(), Failure>;

pub(super) async fn put(conn: &mut SqliteConnection, call: &CallContext, write: &Mutation) -> Done {
    match write {
        Mutation::CreateSite(site) => create_site(conn, call, site).await,
        Mutation::Site(site) => {
            super::update(conn, call, Site::clone(site), None).await?;
            work(conn, &Subject::Site(site.id.clone()), site.operation.as_ref()).await
        }
        Mutation::RemoveSite(id, ..) => remove_site(conn, call, id).await,
        Mutation::Service(service) => {
            let after = Service { version: service.version + 1, ..Service::clone(service) };
            let body = records::encode(&after)?;
            shared(conn, call, &service_name(service.color), after.version, body).await?;
            work(conn, &Subject::Service(service.color), service.operation.as_ref()).await
        }
        Mutation::Fleet(fleet) => {
            let after = Fleet { version: fleet.version + 1, ..Fleet::clone(fleet) };
            shared(conn, call, FLEET, after.version, records::encode(&after)?).await?;
            work(conn, &Subject::Fleet, fleet.operation.as_ref()).await
        }
        Mutation::Webhooks(webhooks) => {
            let after = Webhooks { version: webhooks.version + 1, ..Webhooks::clone(webhooks) };
            shared(conn, call, WEBHOOKS, after.version, records::encode(&after)?).await
        }
        Mutation::Users(users) => {
            let after = Users { version: users.version + 1, ..Users::clone(users) };
            shared(conn, call, USERS, after.version, records::encode(&after)?).await
        }
        Mutation::CreateRollout(rollout) => put_rollout(conn, call, rollout, 1).await,
        Mutation::Rollout(rollout) => put_rollout(conn, call, rollout, rollout.version + 1).await,
        Mutation::RolloutPage(page) => {
            sqlx::query("INSERT OR REPLACE INTO pages VALUES (?, ?, ?, ?)")
                .bind(integer(page.rollout))
                .bind(i64::from(page.page))
                .bind(bits(call.write))
                .bind(records::encode(page)?)
                .execute(conn)
                .await?;
            Ok(())
        }
        Mutation::History(operation) => history(conn, call, operation).await,
    }
}

async fn create_site(conn: &mut SqliteConnection, call: &CallContext, site: &Site) -> Done {
    let site = Site { version: 1, ..site.clone() };
    let hosts = site.hostnames.all();
    for host in hosts {
        let query = sqlx::query("INSERT INTO hostnames VALUES (?, ?)");
        query.bind(host.as_str()).bind(site.id.as_str()).execute(&mut *conn).await?;
    }
    sqlx::query("INSERT INTO sites VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?)")
        .bind(site.id.as_str())
        .bind(site.uid.to_string())
        .bind(integer(site.version))
        .bind(site.service.as_str())
        .bind(site.state().as_str())
        .bind(SearchText::of(&site).as_str())
        .bind(bits(call.write))
        .bind(records::encode(&site)?)
        .execute(&mut *conn)
        .await?;
    work(conn, &Subject::Site(site.id.clone()), site.operation.as_ref()).await
}

async fn remove_site(conn: &mut SqliteConnection, call: &CallContext, id: &SiteId) -> Done {
    sqlx::query("DELETE FROM hostnames WHERE site = ?").bind(id.as_str()).execute(&mut *conn).await?;
    sqlx::query("DELETE FROM sites WHERE id = ?").bind(id.as_str()).execute(&mut *conn).await?;
    sqlx::query("INSERT OR REPLACE INTO removed VALUES (?, ?)")
        .bind(id.as_str())
        .bind(bits(call.write))
        .execute(&mut *conn)
        .await?;
    work(conn, &Subject::Site(id.clone()), None).await
}

async fn shared(
    conn: &mut SqliteConnection,
    call: &CallContext,
    name: &str,
    version: u64,
    body: String,
) -> Done {
    sqlx::query("INSERT OR REPLACE INTO shared VALUES (?, ?, ?, ?)")
        .bind(name.to_owned())
        .bind(integer(version))
        .bind(bits(call.write))
        .bind(body)
        .execute(conn)
        .await?;
    Ok(())
}

async fn put_rollout(
    conn: &mut SqliteConnection,
    call: &CallContext,
    rollout: &Rollout,
    version: u64,
) -> Done {
    let rollout = Rollout { version, ..rollout.clone() };
    let next_poll_at = rollout.next_poll_at.filter(|_| rollout.status == RolloutStatus::Waiting);
    sqlx::query("INSERT OR REPLACE INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(integer(rollout.number))
        .bind(integer(version))
        .bind(rollout.status.runnable() || rollout.control.is_some())
        .bind(rollout.owner.as_ref().map(|owner| owner.as_str().to_owned()))
        .bind(next_poll_at.map(|next_poll_at| integer(next_poll_at.millis())))
        .bind(rollout.control.is_some())
        .bind(bits(call.write))
        .bind(records::encode(&rollout)?)
        .execute(conn)
        .await?;
    Ok(())
}

/// Writes a finished operation. A finished operation is written once and never changes.
async fn history(conn: &mut SqliteConnection, call: &CallContext, operation: &Operation) -> Done {
    sqlx::query("INSERT OR IGNORE INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(operation.id.to_string())
        .bind(integer(operation.id.number))
        .bind(operation.subject.to_string())
        .bind(operation.state.input.kind().as_str())
        .bind(operation.state.status.as_str())
        .bind(matches!(operation.id.parent, OperationParent::Rollout(..)))
        .bind(bits(call.write))
        .bind(records::encode(operation)?)
        .execute(conn)
        .await?;
    Ok(())
}

/// Updates the list of running operations with the operation of a record. Members of rollouts are not listed.
async fn work(conn: &mut SqliteConnection, subject: &Subject, operation: Option<&OperationState>) -> Done {
    let Some(operation) = operation.filter(|operation| operation.member.is_none()) else {
        let query = sqlx::query("DELETE FROM working WHERE subject = ?").bind(subject.to_string());
        query.execute(conn).await?;
        return Ok(());
    };
    let next_poll_at = operation.next_poll_at.filter(|_| operation.status == Status::Waiting);
    sqlx::query("INSERT OR REPLACE INTO working VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(subject.to_string())
        .bind(integer(operation.number))
        .bind(operation.input.kind().as_str())
        .bind(operation.status.as_str())
        .bind(operation.status.is_settled())
        .bind(operation.owner.as_ref().map(|owner| owner.as_str().to_owned()))
        .bind(next_poll_at.map(|next_poll_at| integer(next_poll_at.millis())))
        .bind(operation.cancel)
        .execute(conn)
        .await?;
    Ok(())
}
