//! One story in which every command of `cdm` has its turn, told to whoever looks at the answers.

use cdm_cli::Shape;

use crate::place::{Place, image};

/// What a command's answer is like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Like {
    /// One thing.
    One(Shape),
    /// A list.
    Many(Shape),
    /// Text for another program, whatever the format.
    Script,
}

/// Looks at a command: its name, its words, what its answer is like.
pub(crate) type See<'a> = &'a mut dyn FnMut(&str, &[&str], Like);

use Like::{Many, One};

/// Tells it. Each command has to end with 0.
pub(crate) fn tell(place: &Place, see: See<'_>) {
    a_site(place, see);
    images(place, see);
    fleets(place, see);
    stuck(place, see);
    platform(place, see);
    see("site delete", &["site", "delete", "shop", "--confirm", "shop"], One(Shape::Operation));
}

fn a_site(place: &Place, see: See<'_>) {
    let create = ["site", "create", "shop", "--theme", "plain", "--hostname", "shop.example.com"];
    see("site create", &create, One(Shape::Site));
    see("site list", &["site", "list"], Many(Shape::Site));
    see("site get", &["site", "get", "shop"], One(Shape::Site));
    see("site provision", &["site", "provision", "shop"], One(Shape::Operation));
    see("op list", &["op", "list", "--site", "shop"], Many(Shape::Operation));
    let provision = newest(place, &["op", "list", "--kind", "provision"]);
    see("op get", &["op", "get", &provision], One(Shape::Operation));
    see("op watch", &["op", "watch", &provision], One(Shape::Operation));
    see("op log", &["op", "log", &provision, "Install"], One(Shape::Done));
    see("services select", &["services", "select", "green"], One(Shape::Selection));
    see("site upgrade", &["site", "upgrade", "shop"], One(Shape::Operation));
    see("site promote", &["site", "promote", "shop"], One(Shape::Operation));
}

fn images(_: &Place, see: See<'_>) {
    let (a, b) = (image('a'), image('b'));
    see("services show", &["services", "show"], One(Shape::Services));
    see("services deploy", &["services", "deploy", &a], One(Shape::Operation));
    see("services deploy", &["services", "deploy", &b], One(Shape::Operation));
    let mark = ["services", "mark", &a, "healthy", "--reason", "seen to work"];
    see("services mark", &mark, Many(Shape::Release));
    see("services rollback", &["services", "rollback"], One(Shape::Operation));
    see("services history", &["services", "history", "green"], Many(Shape::Release));
}

fn fleets(place: &Place, see: See<'_>) {
    let plan = ["services", "rollout", "--promote", "--scope", "all", "--dry-run"];
    see("services rollout", &plan, One(Shape::Plan));
    let rollout = ["services", "rollout", "--promote", "--scope", "all"];
    see("services rollout", &rollout, One(Shape::Rollout));
    see("rollout list", &["rollout", "list"], Many(Shape::Rollout));
    let id = newest(place, &["rollout", "list"]);
    see("rollout get", &["rollout", "get", &id], One(Shape::Rollout));
    see("rollout watch", &["rollout", "watch", &id], One(Shape::Rollout));
}

/// A rollout that waits for an image which never gets ready.
fn stuck(place: &Place, see: See<'_>) {
    let stuck = image('c');
    place.never_ready(&stuck);
    let start = ["services", "rollout", "--image", &stuck, "--promote", "--scope", "all", "--no-wait"];
    let rollout = place.json(&start)["id"].as_str().expect("an id").to_owned();
    see("rollout pause", &["rollout", "pause", &rollout], One(Shape::Rollout));
    see("rollout resume", &["rollout", "resume", &rollout, "--no-wait"], One(Shape::Rollout));
    see("rollout abort", &["rollout", "abort", &rollout], One(Shape::Rollout));
    let deploy = newest(place, &["op", "list", "--kind", "deploy"]);
    see("op cancel", &["op", "cancel", &deploy], One(Shape::Operation));
    see("op retry", &["op", "retry", &deploy, "--no-wait"], One(Shape::Operation));
    let again = newest(place, &["op", "list", "--kind", "deploy"]);
    assert_ne!(again, deploy);
    see("op cancel", &["op", "cancel", &again], One(Shape::Operation));
    see("rollout retry", &["rollout", "retry", &rollout, "--no-wait"], One(Shape::Rollout));
    let rollout = newest(place, &["rollout", "list"]);
    see("rollout abort", &["rollout", "abort", &rollout], One(Shape::Rollout));
    let deploy = newest(place, &["op", "list", "--kind", "deploy"]);
    place.run(&["op", "cancel", &deploy]);
}

fn platform(place: &Place, see: See<'_>) {
    let freeze = ["freeze", "create", "--reason", "a launch", "--sites", "shop", "--for", "1h"];
    see("freeze create", &freeze, One(Shape::Freeze));
    see("freeze list", &["freeze", "list"], Many(Shape::Freeze));
    let freeze = newest(place, &["freeze", "list"]);
    see("freeze remove", &["freeze", "remove", &freeze], One(Shape::Done));
    let create = ["webhook", "create", "https://hooks.example.com/cdm", "--events", "rollout.halted"];
    see("webhook create", &create, One(Shape::Webhook));
    see("webhook list", &["webhook", "list"], Many(Shape::Webhook));
    let webhook = newest(place, &["webhook", "list"]);
    see("webhook remove", &["webhook", "remove", &webhook], One(Shape::Done));
    let create = ["token", "create", "ci", "--role", "viewer", "--expires-in", "1h"];
    see("token create", &create, One(Shape::Token));
    see("token list", &["token", "list"], Many(Shape::Token));
    let tokens = place.json(&["token", "list"]);
    let token = tokens["items"].as_array().expect("a list").iter().find(|token| token["name"] == "ci");
    let token = token.expect("the new token")["id"].as_str().expect("an id").to_owned();
    see("token revoke", &["token", "revoke", &token], One(Shape::Token));
    let password = place.home().join("password");
    std::fs::write(&password, "correct horse battery\n").expect("a file");
    let password = ["--password-file", password.to_str().expect("a path")];
    let create = [["user", "create"], ["ada", "--role=viewer"], password].concat();
    see("user create", &create, One(Shape::User));
    see("user list", &["user", "list"], Many(Shape::User));
    see("user role", &["user", "role", "ada", "operator"], One(Shape::User));
    see("user passwd", &[["user", "passwd"].as_slice(), &["ada"], &password].concat(), One(Shape::User));
    see("user sign-out", &["user", "sign-out", "ada"], One(Shape::User));
    let reset = ["user", "reset-second-factor", "ada"];
    see("user reset-second-factor", &reset, One(Shape::User));
    see("user unbind", &["user", "unbind", "ada"], One(Shape::User));
    see("user remove", &["user", "remove", "ada"], One(Shape::User));
    see("audit", &["audit"], Many(Shape::Audit));
    see("doctor", &["doctor"], One(Shape::Health));
    let (data, pages) = (place.data().display().to_string(), place.home().join("man").display().to_string());
    let declare = ["local", "image", &image('d'), "--failing", "--data-dir", &data];
    see("local image", &declare, One(Shape::Done));
    see("man", &["man", "--dir", &pages], One(Shape::Done));
    see("completion", &["completion", "bash"], Like::Script);
}

/// The id of the first of a list.
pub(crate) fn newest(place: &Place, words: &[&str]) -> String {
    place.json(words)["items"][0]["id"].as_str().expect("at least one").to_owned()
}
