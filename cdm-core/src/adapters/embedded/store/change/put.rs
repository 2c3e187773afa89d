//! Writes one record of a batch that was looked at before.

use sqlx::SqliteConnection;

use super::super::error::Failure;
use super::super::read::integer;
use super::{FLEET, USERS, WEBHOOKS, bits, colour_name};
use crate::adapters::records;
use crate::domain::operation::Home;
use crate::domain::search::SearchText;
use crate::domain::user::Users;
use crate::domain::webhook::Webhooks;
use crate::domain::{Colour, Fleet, Operation, Rollout, RolloutStatus, Site, SiteId, Slot, Status, Subject};
use crate::ports::{Call, Write};

type Done = Result<(), Failure>;

pub(super) async fn put(on: &mut SqliteConnection, call: &Call, write: &Write) -> Done {
    match write {
        Write::CreateSite(site) => create_site(on, call, site).await,
        Write::Site(site) => {
            super::update(on, call, Site::clone(site), None).await?;
            work(on, &Subject::Site(site.id.clone()), site.slot.as_ref()).await
        }
        Write::RemoveSite(id, ..) => remove_site(on, call, id).await,
        Write::Colour(colour) => {
            let after = Colour { version: colour.version + 1, ..Colour::clone(colour) };
            let body = records::encode(&after)?;
            shared(on, call, &colour_name(colour.selector), after.version, body).await?;
            work(on, &Subject::Colour(colour.selector), colour.slot.as_ref()).await
        }
        Write::Fleet(fleet) => {
            let after = Fleet { version: fleet.version + 1, ..Fleet::clone(fleet) };
            shared(on, call, FLEET, after.version, records::encode(&after)?).await?;
            work(on, &Subject::Fleet, fleet.slot.as_ref()).await
        }
        Write::Webhooks(webhooks) => {
            let after = Webhooks { version: webhooks.version + 1, ..Webhooks::clone(webhooks) };
            shared(on, call, WEBHOOKS, after.version, records::encode(&after)?).await
        }
        Write::Users(users) => {
            let after = Users { version: users.version + 1, ..Users::clone(users) };
            shared(on, call, USERS, after.version, records::encode(&after)?).await
        }
        Write::CreateRollout(rollout) => put_rollout(on, call, rollout, 1).await,
        Write::Rollout(rollout) => put_rollout(on, call, rollout, rollout.version + 1).await,
        Write::RolloutPage(page) => {
            sqlx::query("INSERT OR REPLACE INTO pages VALUES (?, ?, ?, ?)")
                .bind(integer(page.rollout))
                .bind(i64::from(page.page))
                .bind(bits(call.write))
                .bind(records::encode(page)?)
                .execute(on)
                .await?;
            Ok(())
        }
        Write::History(operation) => history(on, call, operation).await,
    }
}

async fn create_site(on: &mut SqliteConnection, call: &Call, site: &Site) -> Done {
    let site = Site { version: 1, ..site.clone() };
    let hosts = site.hostnames.all();
    for host in hosts {
        let query = sqlx::query("INSERT INTO hostnames VALUES (?, ?)");
        query.bind(host.as_str()).bind(site.id.as_str()).execute(&mut *on).await?;
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
        .execute(&mut *on)
        .await?;
    work(on, &Subject::Site(site.id.clone()), site.slot.as_ref()).await
}

async fn remove_site(on: &mut SqliteConnection, call: &Call, id: &SiteId) -> Done {
    sqlx::query("DELETE FROM hostnames WHERE site = ?").bind(id.as_str()).execute(&mut *on).await?;
    sqlx::query("DELETE FROM sites WHERE id = ?").bind(id.as_str()).execute(&mut *on).await?;
    sqlx::query("INSERT OR REPLACE INTO removed VALUES (?, ?)")
        .bind(id.as_str())
        .bind(bits(call.write))
        .execute(&mut *on)
        .await?;
    work(on, &Subject::Site(id.clone()), None).await
}

async fn shared(on: &mut SqliteConnection, call: &Call, name: &str, version: u64, body: String) -> Done {
    sqlx::query("INSERT OR REPLACE INTO shared VALUES (?, ?, ?, ?)")
        .bind(name.to_owned())
        .bind(integer(version))
        .bind(bits(call.write))
        .bind(body)
        .execute(on)
        .await?;
    Ok(())
}

async fn put_rollout(on: &mut SqliteConnection, call: &Call, rollout: &Rollout, version: u64) -> Done {
    let rollout = Rollout { version, ..rollout.clone() };
    let wake = rollout.wake.filter(|_| rollout.status == RolloutStatus::Waiting);
    sqlx::query("INSERT OR REPLACE INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(integer(rollout.number))
        .bind(integer(version))
        .bind(rollout.status.runnable() || rollout.control.is_some())
        .bind(rollout.owner.as_ref().map(|owner| owner.as_str().to_owned()))
        .bind(wake.map(|wake| integer(wake.millis())))
        .bind(rollout.control.is_some())
        .bind(bits(call.write))
        .bind(records::encode(&rollout)?)
        .execute(on)
        .await?;
    Ok(())
}

/// An operation that has ended is written once; what became of it does not change.
async fn history(on: &mut SqliteConnection, call: &Call, operation: &Operation) -> Done {
    sqlx::query("INSERT OR IGNORE INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(operation.id.to_string())
        .bind(integer(operation.id.number))
        .bind(operation.subject.to_string())
        .bind(operation.slot.task.kind().as_str())
        .bind(operation.slot.status.as_str())
        .bind(matches!(operation.id.home, Home::Rollout(..)))
        .bind(bits(call.write))
        .bind(records::encode(operation)?)
        .execute(on)
        .await?;
    Ok(())
}

/// Lists the operation that is in a record now, unless it is a rollout's.
async fn work(on: &mut SqliteConnection, subject: &Subject, slot: Option<&Slot>) -> Done {
    let Some(slot) = slot.filter(|slot| slot.member.is_none()) else {
        let query = sqlx::query("DELETE FROM working WHERE subject = ?").bind(subject.to_string());
        query.execute(on).await?;
        return Ok(());
    };
    let wake = slot.wake.filter(|_| slot.status == Status::Waiting);
    sqlx::query("INSERT OR REPLACE INTO working VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(subject.to_string())
        .bind(integer(slot.number))
        .bind(slot.task.kind().as_str())
        .bind(slot.status.as_str())
        .bind(slot.status.rests())
        .bind(slot.owner.as_ref().map(|owner| owner.as_str().to_owned()))
        .bind(wake.map(|wake| integer(wake.millis())))
        .bind(slot.cancel)
        .execute(on)
        .await?;
    Ok(())
}
