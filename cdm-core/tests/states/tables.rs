//! Every pair of the three transition tables, compared to the rows listed here.

use cdm_core::domain::lifecycle::{Event as LifeEvent, Life};
use cdm_core::domain::operation::Event;
use cdm_core::domain::rollout::Transition;
use cdm_core::domain::{OperationKind, Phase, RolloutStatus, TerminalStatus};

use crate::STATUSES;
use crate::records::life_name;
use cdm_testkit::campaign::Campaign;

/// Exactly the rows of the three tables are legal; an error names both the state and the event.
#[test]
fn tables() {
    let mut campaign = Campaign::new("states-tables");
    let (mut legal, mut pairs) = (0, 0);
    let mut check_row = |state: &str, event: &str, follows: Result<String, String>, rows: &[&str]| {
        pairs += 1;
        let row = format!("{state} > {event} > ");
        let known = rows.iter().find_map(|known| known.strip_prefix(row.as_str()));
        campaign.run(match (known, follows) {
            (Some(known), Ok(next)) if known == next => {
                legal += 1;
                Ok(())
            }
            (None, Err(text)) => {
                // An error about a site names the state that users see.
                let state = state.split(" (").next().unwrap_or(state);
                let both = text.contains(&format!("`{state}`")) && text.contains(&format!("`{event}`"));
                if both { Ok(()) } else { Err(format!("{row}is rejected with: {text}")) }
            }
            (known, follows) => Err(format!("{row}{follows:?}, and the table has {known:?}")),
        });
    };
    let ends = [TerminalStatus::Succeeded, TerminalStatus::Failed, TerminalStatus::Cancelled];
    let rests = |phase| Life::Present { phase, work: None };
    let works = |phase, kind| Life::Present { phase, work: Some(kind) };
    let lives = [
        Life::Absent,
        works(Phase::New, OperationKind::Create),
        works(Phase::New, OperationKind::Terminate),
        rests(Phase::Created),
        works(Phase::Created, OperationKind::Provision),
        works(Phase::Created, OperationKind::Terminate),
        rests(Phase::Active),
        works(Phase::Active, OperationKind::Upgrade),
        works(Phase::Active, OperationKind::Promote),
        works(Phase::Active, OperationKind::Terminate),
    ];
    for life in lives {
        let begins = OperationKind::ALL.into_iter().map(LifeEvent::Begin);
        for event in begins.chain([LifeEvent::Displace]).chain(ends.map(LifeEvent::End)) {
            let follows = life.next(event).map(describe_life).map_err(|illegal| illegal.to_string());
            check_row(&describe_life(life), &event.to_string(), follows, LIVES);
        }
    }
    let plain = [
        Event::Claim,
        Event::Wait,
        Event::Wake,
        Event::Park,
        Event::HandOver,
        Event::Retry,
        Event::Cancel,
        Event::Displace,
    ];
    for status in STATUSES {
        for event in plain.into_iter().chain(ends.map(Event::Finish)) {
            let follows =
                status.next(event).map(|next| next.to_string()).map_err(|illegal| illegal.to_string());
            check_row(status.as_str(), event.as_str(), follows, OPERATIONS);
        }
    }
    for status in RolloutStatus::ALL {
        for event in Transition::ALL {
            let follows = status
                .next(event)
                .map(|next| next.as_str().to_owned())
                .map_err(|illegal| illegal.to_string());
            check_row(status.as_str(), event.as_str(), follows, ROLLOUTS);
        }
    }
    let rows = LIVES.len() + OPERATIONS.len() + ROLLOUTS.len();
    campaign.run(if legal == rows { Ok(()) } else { Err(format!("{legal} of {rows} rows are legal")) });
    campaign.end(&format!("{pairs} pairs, {legal} legal"));
}

/// Formats a life: the state that users see, then phase and operation.
fn describe_life(life: Life) -> String {
    match life {
        Life::Absent => "absent".to_owned(),
        Life::Present { phase, work } => {
            format!("{} ({phase:?}, {})", life_name(life), work.map_or("none", OperationKind::as_str))
        }
    }
}

const LIVES: &[&str] = &[
    "absent > begin create > creating (New, create)",
    "creating (New, create) > end succeeded > created (Created, none)",
    "creating (New, create) > end failed > absent",
    "creating (New, create) > end cancelled > absent",
    "creating (New, create) > displace the parked operation > terminating (New, terminate)",
    "created (Created, none) > begin provision > provisioning (Created, provision)",
    "created (Created, none) > begin terminate > terminating (Created, terminate)",
    "provisioning (Created, provision) > end succeeded > active (Active, none)",
    "provisioning (Created, provision) > end failed > created (Created, none)",
    "provisioning (Created, provision) > end cancelled > created (Created, none)",
    "provisioning (Created, provision) > displace the parked operation > terminating (Created, terminate)",
    "active (Active, none) > begin upgrade > upgrading (Active, upgrade)",
    "active (Active, none) > begin promote > promoting (Active, promote)",
    "active (Active, none) > begin terminate > terminating (Active, terminate)",
    "upgrading (Active, upgrade) > end succeeded > active (Active, none)",
    "upgrading (Active, upgrade) > end failed > active (Active, none)",
    "upgrading (Active, upgrade) > end cancelled > active (Active, none)",
    "upgrading (Active, upgrade) > displace the parked operation > terminating (Active, terminate)",
    "promoting (Active, promote) > end succeeded > active (Active, none)",
    "promoting (Active, promote) > end failed > active (Active, none)",
    "promoting (Active, promote) > end cancelled > active (Active, none)",
    "promoting (Active, promote) > displace the parked operation > terminating (Active, terminate)",
    "terminating (New, terminate) > end succeeded > absent",
    "terminating (Created, terminate) > end succeeded > absent",
    "terminating (Created, terminate) > end cancelled > created (Created, none)",
    "terminating (Active, terminate) > end succeeded > absent",
    "terminating (Active, terminate) > end cancelled > active (Active, none)",
];

const OPERATIONS: &[&str] = &[
    "queued > claim > running",
    "queued > park > parked",
    "queued > cancel > queued",
    "running > claim > running",
    "running > wait > waiting",
    "running > park > parked",
    "running > hand over > queued",
    "running > cancel > running",
    "running > succeed > succeeded",
    "running > fail > failed",
    "running > end cancelled > cancelled",
    "waiting > claim > running",
    "waiting > wake > running",
    "waiting > park > parked",
    "waiting > hand over > queued",
    "waiting > cancel > waiting",
    "parked > retry > queued",
    "parked > cancel > queued",
    "parked > displace > cancelled",
];

const ROLLOUTS: &[&str] = &[
    "waiting > claim > running",
    "waiting > pause > paused",
    "waiting > abort > aborted",
    "running > claim > running",
    "running > wait > waiting",
    "running > pause > paused",
    "running > halt > halted",
    "running > abort > aborted",
    "running > succeed > succeeded",
    "running > fail > failed",
    "paused > resume > waiting",
    "paused > abort > aborted",
    "halted > resume > waiting",
    "waiting > resume > waiting",
    "halted > abort > aborted",
];
