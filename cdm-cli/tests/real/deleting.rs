//! A site is deleted by whoever says its id, and by nobody else.

use crate::place::Place;

#[test]
fn on_a_pipe_only_the_right_id_deletes() {
    let place = Place::new();
    place.created("shop");
    let wrong: [&[&str]; 3] = [
        &["site", "delete", "shop"],
        &["site", "delete", "shop", "--confirm", "ship"],
        &["site", "delete", "shop", "--confirm", ""],
    ];
    for words in wrong {
        let ran = place.run(words).ends(2);
        assert_eq!(ran.out, "");
        assert!(ran.err.contains("site `shop` was not deleted"), "{}", ran.err);
        assert!(ran.err.contains("cdm site delete shop --confirm shop"), "{}", ran.err);
    }
    assert_eq!(place.json(&["site", "get", "shop"])["state"], "created", "nothing was deleted");
    let audit = place.json(&["audit", "--site", "shop"]);
    assert_eq!(audit["items"].as_array().expect("a list").len(), 1, "nothing was asked: {audit}");

    let refused = place.run(&["site", "delete", "shop"]);
    let hint = refused.err.lines().last().expect("a hint").to_owned();
    let command = hint.strip_prefix("hint: in a script: ").expect("a command");
    place.pasted(command).ends(0);
    place.run(&["site", "get", "shop"]).ends(4);
}
