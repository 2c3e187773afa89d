//! The users' record.

use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

use super::mirror;
use super::text::{Millis, Text};
use crate::domain::user::{PasswordHash, Session, User, Users};
use crate::domain::{Actor, Role, Timestamp, TokenHash, Uid, UserName};

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Users", rename_all = "camelCase")]
pub(crate) struct UsersDef {
    #[serde_as(as = "Vec<UserDef>")]
    list: Vec<User>,
    #[serde_as(as = "Vec<SessionDef>")]
    sessions: Vec<Session>,
    version: u64,
}
mirror!(UsersDef, Users);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "User", rename_all = "camelCase")]
struct UserDef {
    #[serde_as(as = "DisplayFromStr")]
    name: UserName,
    #[serde_as(as = "Text")]
    role: Role,
    #[serde_as(as = "Text")]
    password: PasswordHash,
    #[serde_as(as = "DisplayFromStr")]
    by: Actor,
    #[serde_as(as = "Millis")]
    at: Timestamp,
    #[serde_as(as = "Option<Millis>")]
    removed: Option<Timestamp>,
}
mirror!(UserDef, User);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Session", rename_all = "camelCase")]
struct SessionDef {
    #[serde_as(as = "DisplayFromStr")]
    id: Uid,
    #[serde_as(as = "DisplayFromStr")]
    user: UserName,
    #[serde_as(as = "Text")]
    hash: TokenHash,
    from: Option<String>,
    #[serde_as(as = "Millis")]
    at: Timestamp,
    #[serde_as(as = "Millis")]
    until: Timestamp,
}
mirror!(SessionDef, Session);
