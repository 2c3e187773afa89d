//! An incident, as it is met on the command line, by the API and in the console: a gated rollout is paused, another image is
//! deployed meanwhile, and that one does not work.

use cdm_core::domain::Digest;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use serde_json::Value;

use crate::place::{Place, Running, Stream, image};

const SITES: [&str; 4] = ["books", "garden", "music", "tea"];
const PASSWORD: &str = "lantern-orbit-quilt";

/// Somebody who has signed in to the console.
struct Browser<'a> {
    place: &'a Place,
    client: Client,
    cookie: String,
}

impl<'a> Browser<'a> {
    fn sign_in(place: &'a Place) -> Self {
        std::fs::write(place.home().join("password"), PASSWORD).expect("a file");
        let file = place.home().join("password").display().to_string();
        place.run(&["user", "create", "ada", "--role", "admin", "--password-file", &file]).ends(0);
        // What the client's TLS runs on, though nothing here speaks TLS.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::builder().redirect(Policy::none()).build().expect("a client");
        let mut browser = Self { place, client, cookie: String::new() };
        let answer = browser.send("/console/sign-in", &format!("name=ada&password={PASSWORD}"));
        assert_eq!(answer.status(), 303);
        let cookie = answer.headers()[SET_COOKIE].to_str().expect("text").to_owned();
        browser.cookie = cookie.split(';').next().expect("a cookie").to_owned();
        browser
    }

    fn send(&self, path: &str, form: &str) -> Response {
        let request = self.client.post(format!("{}{path}", self.place.server));
        let request = request.header(COOKIE, &self.cookie).header("sec-fetch-site", "same-origin");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        self.place.block_on(request.body(form.to_owned()).send()).expect("an answer")
    }

    fn page(&self, path: &str) -> String {
        let request = self.client.get(format!("{}{path}", self.place.server)).header(COOKIE, &self.cookie);
        let answer = self.place.block_on(request.send()).expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        self.place.block_on(answer.text()).expect("text")
    }

    /// Sends a form that the page `from` has.
    fn submit(&self, from: &str, action: &str, fields: &str) -> Response {
        let page = self.page(from);
        self.send(action, &format!("csrf={}&key={}&{fields}", hidden(&page, "csrf"), hidden(&page, "key")))
    }

    fn text(&self, answer: Response) -> String {
        self.place.block_on(answer.text()).expect("text")
    }
}

/// What a page has in a hidden field; empty where it has none.
fn hidden(page: &str, name: &str) -> String {
    let field = page.split(&format!("name=\"{name}\" value=\"")).nth(1);
    field.and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
}

/// Asks the API itself.
fn api(place: &Place, path: &str, body: &Value) -> (u16, Value) {
    let request = Client::new().post(format!("{}{path}", place.server)).bearer_auth(&place.token);
    let answer = place.block_on(request.json(body).send()).expect("an answer");
    (answer.status().as_u16(), place.block_on(answer.json()).expect("JSON"))
}

fn whole(letter: char) -> String {
    Digest::parse(&image(letter)).expect("a digest").to_string()
}

#[test]
fn another_image_in_the_middle_of_a_gated_rollout() {
    let place = Place::new();
    for site in SITES {
        place.site(site);
    }
    let (good, failing) = (whole('a'), whole('b'));
    let data = place.data().display().to_string();
    place.run(&["local", "image", &failing, "--failing", "--data-dir", &data]).ends(0);
    place.run(&["services", "select", "green"]).ends(0);
    place.run(&["services", "deploy", &good]).ends(0);
    let browser = Browser::sign_in(&place);

    // The first site has moved, and the rollout rests, when somebody pauses it.
    let start = ["services", "rollout", "--promote", "--scope", "inactive", "--waves", "1,100%"];
    let more = ["--gate-path", "/", "--auto-rollback", "--bake", "10s"];
    let mut started = Running::start(&mut place.command(&[&start[..], &more].concat()), Stream::Err);
    started.until("baking");
    let rollout = place.json(&["rollout", "list", "--limit", "1"])["items"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    place.run(&["rollout", "pause", &rollout]).ends(0);
    let (code, said) = started.end();
    assert_eq!(code, 7, "{said}");
    let page = browser.page("/console/services");
    assert!(page.contains("A rollout stands still") && page.contains(&rollout), "{page}");

    // Another image, which gets ready and answers with errors.
    place.run(&["services", "deploy", &failing]).ends(0);
    let refused = place.run(&["rollout", "resume", &rollout]).ends(5);
    assert!(refused.err.contains(&good) && refused.err.contains(&failing), "{}", refused.err);
    assert!(refused.err.contains("--accept-digest"), "{}", refused.err);
    let path = format!("/rollouts/{rollout}/resume");
    let (status, problem) = api(&place, &path, &serde_json::json!({}));
    assert_eq!(
        (status, &problem["code"], &problem["running"]),
        (409, &"digest_changed".into(), &failing.as_str().into())
    );
    let (status, problem) = api(&place, &path, &serde_json::json!({ "acceptDigest": good }));
    assert_eq!((status, &problem["code"]), (409, &"digest_changed".into()), "{problem}");

    // The console asks, naming both, and does what is answered.
    let (of_it, resume) =
        (format!("/console/rollouts/{rollout}"), format!("/console/rollouts/{rollout}/resume"));
    assert!(browser.page(&of_it).contains("Resume on another digest"));
    let question = browser.page(&resume);
    assert!(question.contains(&good) && question.contains(&failing), "{question}");
    let unasked = browser.submit(&resume, &resume, "");
    assert_eq!(unasked.status(), 409);
    assert!(browser.text(unasked).contains("Resume on this digest"));
    let done = browser.submit(&resume, &resume, &format!("acceptDigest={}", failing.replace(':', "%3A")));
    assert_eq!((done.status().as_u16(), done.headers()[LOCATION].to_str().ok()), (303, Some(of_it.as_str())));

    // Its health check fails: that digest is bad, the other is not, and the sites return.
    let watched = place.run(&["rollout", "watch", &rollout]);
    assert!(matches!(watched.code, 1 | 7), "{}", watched.err);
    let ended = place.json(&["rollout", "get", &rollout]);
    assert_eq!(
        (&ended["status"], &ended["reason"]["code"]),
        (&"failed".into(), &"budget_exceeded".into()),
        "{ended}"
    );
    assert_eq!(
        (&ended["digest"], &ended["acceptedDigest"]),
        (&good.as_str().into(), &failing.as_str().into())
    );
    let history = place.json(&["services", "history", "green"]);
    let verdict = |of: &str| {
        let releases = history["items"].as_array().expect("a list").iter();
        releases.filter(|it| it["digest"] == of).map(|it| it["verdict"].clone()).next().expect("a release")
    };
    assert_eq!(verdict(&failing), "bad", "{history}");
    assert_ne!(verdict(&good), "bad", "{history}");
    for site in SITES {
        assert_eq!(place.json(&["site", "get", site])["routedService"], "blue", "{site}");
    }
    // Which site was moved, or asked, on which digest.
    let members = place.json(&["op", "list", "--rollout", &rollout]);
    let digests: Vec<_> =
        members["items"].as_array().expect("a list").iter().map(|it| it["digest"].clone()).collect();
    assert_eq!((&digests[0], &digests[1]), (&good.as_str().into(), &failing.as_str().into()), "{members}");
    let of_site = place.json(&["op", "list", "--site", SITES[0]]);
    assert_eq!(of_site["items"][0]["rollout"], rollout.as_str(), "{of_site}");
    assert!(browser.page(&format!("/console/sites/{}", SITES[0])).contains(&rollout));
    let audit = place.json(&["audit", "--site", SITES[0]]);
    let actions: Vec<_> =
        audit["items"].as_array().expect("a list").iter().map(|it| it["action"].as_str()).collect();
    assert!(actions.contains(&Some("rollout.resume")) && actions.contains(&Some("rollout.start")), "{audit}");

    // The same once more needs a word too: its digest is bad.
    let again = place.run(&["rollout", "retry", &rollout]).ends(5);
    assert!(again.err.contains("is bad") && again.err.contains("--force"), "{}", again.err);
    let question = browser.submit(&of_it, &format!("/console/rollouts/{rollout}/retry"), "");
    assert_eq!(question.status(), 409);
    let question = browser.text(question);
    assert!(question.contains(&failing) && question.contains("bad digest"), "{question}");
}

#[test]
fn a_parked_site_shows_as_such_and_is_not_to_be_waited_for() {
    let place = Place::new();
    let bare = whole('c');
    let data = place.data().display().to_string();
    place.run(&["local", "image", &bare, "--no-themes", "--data-dir", &data]).ends(0);
    place.run(&["services", "deploy", &bare]).ends(0);
    place.created("shop");
    place.run(&["site", "provision", "shop"]).ends(1);
    let list = place.run(&["site", "list"]).ends(0);
    assert!(list.out.contains("provisioning (parked)"), "{}", list.out);
    let refused = place.run(&["site", "promote", "shop"]).ends(5);
    let hint = refused.err.lines().last().expect("a hint");
    assert!(hint.contains("op retry op-") && !hint.contains("watch"), "{hint}");

    let browser = Browser::sign_in(&place);
    let parked = "<span class=\"badge warn\">parked</span>";
    for path in ["/console/sites", "/console/sites/shop", "/console/services"] {
        assert!(browser.page(path).contains(parked), "{path}");
    }
    // A plan of no site has no button.
    let start = "/console/rollouts/start";
    let form = browser.page(start);
    assert!(
        form.contains("value=\"1 10% 100%\"") && form.contains("name=\"gatePath\" value=\"/\""),
        "{form}"
    );
    let plan = browser.submit(start, start, "promote=true&scope=all&waves=100%25&gatePath=%2F");
    let plan = browser.text(plan);
    assert!(plan.contains("cannot be started") && !plan.contains("Start this rollout"), "{plan}");
    let named = browser.submit(start, start, "promote=true&scope=sites&sites=nobody&waves=100%25");
    let named = browser.text(named);
    assert!(named.contains("unknown_sites") && named.contains("nobody"), "{named}");
}
